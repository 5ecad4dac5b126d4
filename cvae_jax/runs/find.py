"""What a user means by ``--ckpt``: a path, or the name of a released checkpoint.

An existing path takes precedence over a name.  The released checkpoints are part of the package:
they are in its folder ``released`` when it is installed, and in ``checkpoints/`` beside it in a
clone.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Container
from pathlib import Path

from cvae_jax.bitstream import Identity
from cvae_jax.coding.streams import read_tables
from cvae_jax.coding.usual import UsualErrors
from cvae_jax.errors import CheckpointError, ModelMismatchError, explained, naming
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.file_model import FileModel
from cvae_jax.refinement.integers import ContextModel
from cvae_jax.runs import manifest, saved
from cvae_jax.runs.manifest import Checkpoint, StrPath, absolute
from cvae_jax.runs.saved import STEPS, Warn

DEFAULT = "mnist"
# What calibration adds to a checkpoint.
TABLES, DECODER = "tables.bin", "decoder.bin"
CONTEXT, ERRORS = "context.bin", "calibration.json"
PACKAGE = Path(__file__).resolve().parents[1]
RELEASED = (PACKAGE / "released", PACKAGE.parent / "checkpoints")


def find(
    name: StrPath | None = None,
    warn: Warn = warnings.warn,
    *,
    files: Container[str] | None = None,
) -> Checkpoint:
    """The checkpoint that a user's ``--ckpt`` means, verified.

    Args:
      name: a workdir (meaning its best step), a step inside it, the folder of a released
        checkpoint, or, if there is nothing at that path, the name of one; None: the default.
      warn: gets one line for each damaged step skipped in a workdir.
      files: which files of a checkpoint named directly must be intact (default: all); for
        callers that read no others.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    by_name = released()
    if name is None and DEFAULT not in by_name:
        raise CheckpointError(
            f"no released checkpoint in {' or '.join(map(str, RELEASED))}; "
            "name a checkpoint (--ckpt)"
        )
    name = by_name[DEFAULT] if name is None else name
    path = absolute(name)
    if not os.path.lexists(path) and os.fspath(name) in by_name:
        path = by_name[os.fspath(name)]
    if (path / manifest.NAME).is_file():
        found = Checkpoint(path)
        found.verify(files)
        return found
    if (path / STEPS).is_dir():
        best = saved.best(path, warn)
        if best is None:
            raise CheckpointError(
                f"no intact checkpoint among the {len(saved.steps(path))} steps in "
                f"{path / STEPS}; train first, or name another path"
            )
        return best
    state = "it" if path.exists() else "which does not exist; it"
    raise CheckpointError(
        f"no checkpoint at {path}, {state} should hold {manifest.NAME} (a checkpoint) "
        f"or {STEPS}/ (a workdir); {_nearby(path)}; {_by_name(os.fspath(name), by_name)}"
    )


def file_model(found: Checkpoint) -> FileModel | None:
    """What files are made and read with, or None if calibration has not added it yet.

    No other file of the checkpoint is read.

    Raises:
      CheckpointError, FormatError: it is damaged.
    """
    if not {TABLES, DECODER} <= found.files.keys():
        return None
    with naming(found.path):
        return FileModel(
            read_tables(found.read(TABLES)),
            IntegerDecoder.from_bytes(found.read(DECODER)),
            ContextModel.from_bytes(found.read(CONTEXT)) if CONTEXT in found.files else None,
        )


def usual_errors(found: Checkpoint) -> UsualErrors | None:
    """The usual errors of a checkpoint's model, or None if they have not been measured.

    Raises:
      CheckpointError, FormatError: they are damaged.
    """
    return UsualErrors.from_bytes(found.read(ERRORS)) if ERRORS in found.files else None


def maker(made: Callable[[Identity], bool]) -> Path | None:
    """The released checkpoint that made a file, found by the digests in its manifest, or None.

    made: whether a model with this identity made the file.
    """
    for path in released().values():
        with contextlib.suppress(CheckpointError, KeyError):
            files = Checkpoint(path).files
            model, tables = (bytes.fromhex(files[n]["sha256"])[:16] for n in (DECODER, TABLES))
            if made(Identity(model, tables)):
                return path
    return None


def known_maker(made: Callable[[Identity], bool]) -> Path:
    """As ``maker``; raises ModelMismatchError if there is none."""
    found = maker(made)
    if found is None:
        raise ModelMismatchError(
            "no released model made it; name the checkpoint that did with --ckpt"
        )
    return found


def released() -> dict[str, Path]:
    """The checkpoints that come with the package, by name."""
    for folder in RELEASED:
        found = {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{manifest.NAME}"))}
        if found:
            return found
    return {}


def _nearby(path: Path) -> str:
    """What may have been meant instead of ``path``, in words."""
    base = next(p for p in (path, *path.parents) if p.is_dir())
    with explained(f"list {base}"):
        names = sorted(
            p.name for p in base.iterdir() if (p / manifest.NAME).is_file() or (p / STEPS).is_dir()
        )
    return f"{base} holds {', '.join(names[:5])}" if names else f"{base} holds none either"


def _by_name(name: str, by_name: dict[str, Path]) -> str:
    """What may have been meant by name, in words."""
    if name in by_name:
        return f"a path takes precedence over a name: the released {name} is {by_name[name]}"
    return f"released and known by name: {', '.join(by_name) or 'none'}"
