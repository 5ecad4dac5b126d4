"""The manifest of a checkpoint directory: size and SHA-256 of each of its files.

It tells a whole checkpoint from an empty, half-copied or damaged directory, which Orbax would
all count as finished.  Files that are not named in it (a model card) may join the directory.
"""

import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from cvae_jax.errors import CheckpointError
from cvae_jax.files import sync, whole

NAME = "manifest.json"
_FORMAT = 1


def seal(folder: Path) -> None:
    """Writes the manifest of all files in ``folder``, and brings everything to the disk.

    Raises:
      OSError: the disk is full, or failing.
    """
    files = {
        file.relative_to(folder).as_posix(): _fingerprint(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    _write(folder, files)
    for path in (folder, *folder.rglob("*")):
        sync(path)


def replace(folder: Path, name: str, data: bytes) -> None:
    """Puts a file into a sealed folder, in place of what may have its name.

    A kill on the way leaves a folder that is intact, with the file or without it.

    Raises:
      CheckpointError: the manifest is damaged.
      OSError: the disk is full, or failing.
    """
    files = read(folder)
    if files.pop(name, None):
        _write(folder, files)
    with whole(folder / name, force=True) as file:
        file.write(data)
    _write(folder, {**files, name: _fingerprint(folder / name)})


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The fingerprint of each file by its name (relative, with forward slashes).

    Raises:
      CheckpointError: the manifest is missing or damaged.
    """
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        version, files = manifest["format"], manifest["files"]
        files.items()
    except OSError as error:
        raise _damaged(folder, f"{NAME} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, f"{NAME} is not what was saved") from error
    if version != _FORMAT:
        raise CheckpointError(
            f"checkpoint {folder} has format {version}, this program reads format {_FORMAT}; "
            "update cvae_jax"
        )
    return files


def verify(folder: Path, names: Container[str] | None = None) -> None:
    """Compares the files in ``folder`` with its manifest.

    Args:
      folder: the checkpoint.
      names: look only at these subfolders and top-level files (default: at everything).

    Raises:
      CheckpointError: naming the first file that is not what was saved.
    """
    for name, saved in read(folder).items():
        if names is not None and name.split("/")[0] not in names:
            continue
        file = folder / name
        if not file.is_file():
            raise _damaged(folder, f"{name} is missing")
        try:
            intact = _fingerprint(file) == saved
        except OSError as error:
            raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from error
        if not intact:
            raise _damaged(folder, f"{name} is not what was saved")


def _write(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    text = json.dumps({"format": _FORMAT, "files": files}, indent=2) + "\n"
    with whole(folder / NAME, force=True) as file:
        file.write(text.encode())


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _damaged(folder: Path, fault: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {folder} is damaged: {fault}; use another step or a fresh copy"
    )
