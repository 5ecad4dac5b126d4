"""A page that holds the codec: one HTML file that opens archives and, with an encoder, makes them.

``linker`` joins the modules of ``web/src``, ``dense`` writes bytes as text, ``weights`` makes the
encoder small; ``build`` puts all of it into ``web/template.html``.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path, PurePosixPath
from typing import Any

from cvae_jax import bitstream
from cvae_jax.errors import CheckpointError, DataError
from cvae_jax.file_model import FileModel
from cvae_jax.page import dense, linker

PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = (PACKAGE / "web", PACKAGE.parent / "web")


def build(
    files: FileModel,
    name: str,
    encoder: bytes | None = None,
    archive: tuple[str, bytes] | None = None,
) -> str:
    """The text of a self-contained HTML file.

    files: what reads archives; name: of the model, for people; encoder: of ``weights.pack``;
    archive: name and content of one that the page shows first.

    Raises:
      CheckpointError: the package came without the page's sources.
      DataError: the archive is not one that the page could open.
    """
    web = _sources()

    def read(path: PurePosixPath) -> str:
        return (web / "src" / path).read_text()

    carried: dict[str, Any] = {"name": name, "model": _carried(files.model_file())}
    carried["kernels"] = _carried((web / "wasm" / "kernels.wasm").read_bytes())
    if encoder is not None:
        carried["encoder"] = _carried(encoder)
    worker = linker.link("worker.js", read, {"carried.js": {"carried": carried}})
    scripts = [
        f'<script type="text/plain" id="worker">\n{linker.in_html(worker)}</script>',
        f'<script type="module">\n{linker.in_html(linker.link("app/main.js", read))}</script>',
    ]
    if archive is not None:
        scripts.insert(0, _archive_element(files, *archive))
    page = (web / "template.html").read_text()
    for key, text in (
        ("title", html.escape(f"cvae: {name}")),
        ("model", html.escape(name)),
        ("style", (web / "style.css").read_text().strip()),
        ("scripts", "\n".join(scripts)),
    ):
        before, after = page.split("{{" + key + "}}")
        page = before + text + after
    return page


def _sources() -> Path:
    for folder in SOURCES:
        if (folder / "template.html").is_file():
            return folder
    raise CheckpointError(f"the sources of the page are missing: {SOURCES[0]}")


def _carried(data: bytes) -> list[int | str]:
    """Bytes as the worker takes them: how many, and their text."""
    return [len(data), dense.to_text(data)]


def _archive_element(files: FileModel, name: str, content: bytes) -> str:
    if not bitstream.is_archive(content):
        raise DataError(f"{name} is no archive")
    text = base64.b64encode(content).decode()
    label = html.escape(name)
    return f'<script type="text/plain" id="archive" data-name="{label}">\n{text}\n</script>'
