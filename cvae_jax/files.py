"""Writing files so that they are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cvae_jax.errors import ConfigError


@contextlib.contextmanager
def whole(path: Path, *, force: bool, inputs: Sequence[Path] = ()) -> Iterator[BinaryIO]:
    """A file to write, which takes the name ``path`` at the end if all went well.

    Until then it is a temporary beside ``path``, closed to other users; whatever goes wrong,
    it is removed and what was there before is intact.

    Raises:
      ConfigError: ``path`` exists and ``force`` is not set, or it is one of ``inputs``.
      OSError: it cannot be written.
    """
    check_free(path, force=force, inputs=inputs)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def check_free(path: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses, before any work, an output that ``whole`` would refuse.

    Raises:
      ConfigError: it exists and ``force`` is not set, is a folder, or is one of ``inputs``.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
        raise ConfigError(f"{path} is also an input; name another output")
    if not force:
        raise ConfigError(f"{path} exists; -f overwrites it")


def sync(path: Path) -> None:
    """Brings a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The permissions that new files of this process go without."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
