"""Writing files so that they are whole or not there, and never outside where they belong."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cvae_jax.errors import ConfigError, FormatError

MAX_COMPONENT = 200  # bytes of a file's or a folder's name; leaves room for a suffix


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
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
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


def check_names(names: Sequence[str]) -> None:
    """Refuses names that could leave the folder they are meant for, or overwrite each other.

    Raises:
      FormatError: naming the first that is absolute, has ``..``, backslashes, control
        characters or a drive letter, is too long, or is there twice or also a folder.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.split("/")
        fault = None
        if any(ord(c) < 32 or ord(c) == 127 or c in '\\:*?"<>|' for c in name):
            fault = "a character that not every system allows"
        elif any(part in ("", ".", "..") for part in parts):
            fault = "an absolute path, or one with empty, . or .. parts"
        elif any(len(part.encode()) > MAX_COMPONENT for part in parts):
            fault = f"a part of more than {MAX_COMPONENT} bytes"
        elif any(part.endswith((" ", ".")) for part in parts):
            fault = "a part that ends in a space or a dot"
        key = name.casefold()
        if key in files:
            fault = "it is there twice"
        if fault:
            raise FormatError(f"the name {name[:80]!r} is refused: {fault}")
        files.add(key)
        folders.update(str(parent) for parent in PurePosixPath(key).parents)
    if both := files & folders:
        raise FormatError(f"the name {min(both)[:80]!r} is refused: it is also a folder")


def extract(
    folder: Path,
    names: Sequence[str],
    content: Callable[[int], bytes],
    *,
    force: bool,
) -> None:
    """Writes one file per name below ``folder``; ``content(i)`` makes the bytes of the i-th.

    All are written to a temporary folder first.  That becomes ``folder`` if there is none; into
    an existing one the files are moved, one by one, never through a symbolic link.

    Raises:
      FormatError: a name is refused (see ``check_names``); nothing is written then.
      ConfigError: the folder holds something and ``force`` is not set, or has a link in the way.
      OSError: it cannot be written.
    """
    check_names(names)
    check_folder(folder, force=force)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}-", dir=folder.parent))
    try:
        for i, name in enumerate(names):
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(i))
        if folder.is_dir():
            _move_into(folder, temporary, names)
        else:
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses an output folder that ``extract`` would refuse.  Raises ConfigError."""
    if not folder.parent.is_dir():
        raise ConfigError(f"{folder}: there is no folder {folder.parent}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} exists and is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ConfigError(f"{folder} is not empty; -f writes into it, over files of the same name")


def _move_into(folder: Path, source: Path, names: Sequence[str]) -> None:
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in names:
            *parents, file = name.split("/")
            with contextlib.ExitStack() as stack:
                place = top
                for parent in parents:
                    place = _enter(place, parent, folder / name)
                    stack.callback(os.close, place)
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.stat(file, dir_fd=place, follow_symlinks=False).st_mode):
                        raise ConfigError(f"{folder / name} is a folder; move it away")
                os.replace(source / name, file, dst_dir_fd=place)  # replaces a link itself
    finally:
        os.close(top)


def _enter(place: int, name: str, path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=place)
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
    except OSError as error:
        raise ConfigError(f"{path}: a link or a file is in the way; move it away") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
