"""Writing files so that they are whole or not there."""

from __future__ import annotations

import contextlib
import io
import math
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cvae_jax.errors import ConfigError

_SUFFIX = ".cvae-tmp"
ABANDONED = 6 * 3600  # seconds after which nobody writes into a temporary any more
_STEM = 80  # bytes of the file's name that its temporary repeats


@contextlib.contextmanager
def whole(path: Path, *, force: bool, inputs: Sequence[Path] = ()) -> Iterator[BinaryIO]:
    """A file to write, which takes the name ``path`` at the end if all went well.

    Until then it is a temporary beside ``path``, closed to other users; whatever goes wrong,
    it is removed and what was there before is intact.  It can be read back before it is given
    its name.  A FIFO or a character device is written into, and cannot be.

    Raises:
      ConfigError: as for ``check_free``.
      OSError: it cannot be written; the error names ``path``.
    """
    check_free(path, force=force, inputs=inputs)
    if is_written_into(path):
        with _naming(path):
            into = io.BufferedWriter(_Raw(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY, path))
        with into:
            yield into
        return
    with temporary(path) as made:
        with _naming(path):
            file = io.BufferedRandom(_Raw(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, path))
        with file:
            yield file
            with _naming(path):
                file.flush()
                os.fsync(file.fileno())
                file.close()
                made.chmod(0o666 & ~umask())
                os.replace(made, path)
                sync(path.parent)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file or a folder on its way there; removed if still in use.

    What killed processes left there for the same ``path`` is removed too.
    """
    stem = _stem(path.name)
    _remove_leftovers(path.parent, {stem})
    # The name is known before anything is made, so that no interrupt can come in between.
    made = path.parent / f".{stem}.{os.getpid()}.{_host()}.{secrets.token_hex(4)}{_SUFFIX}"
    try:
        yield made
    finally:
        _remove(made)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Removes what killed processes left on the way to files of these names, on whatever machine.

    A process of another machine cannot be looked for; it counts as dead where its file has not
    been written into for ABANDONED seconds.
    """
    _remove_leftovers(folder, set(map(_stem, names)), ABANDONED)


def check_free(path: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses, before any work, an output that ``whole`` would refuse.

    Raises:
      ConfigError: it exists and ``force`` is not set, is a folder, a block device or a socket,
        or is one of ``inputs``.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
        raise ConfigError(f"{path} is also an input; name another output")
    if path.is_block_device() or path.is_socket():
        raise ConfigError(f"{path} is a block device or a socket; name a file")
    if not force and not is_written_into(path):
        raise ConfigError(f"{path} exists; -f overwrites it")


def is_written_into(path: Path) -> bool:
    """Whether it is there and no regular file could take its place: a FIFO, a device.

    So are the open files of this process (``/dev/stdout``), whatever they are.
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _descriptor(path) is not None
    return False


def is_standard_output(path: Path) -> bool:
    """Whether it is this process's standard output: ``/dev/stdout``, ``/dev/fd/1``, a copy."""
    number = _descriptor(path)
    if number is None:
        return False
    with contextlib.suppress(OSError):  # one of them is closed
        return os.path.samestat(os.fstat(number), os.fstat(1))
    return number == 1


def is_temporary(name: str) -> bool:
    """Whether a file of this name is on its way to another, or was left on it."""
    return name.startswith(".") and name.endswith(_SUFFIX)


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


def write(path: Path, content: bytes, shown: Path) -> None:
    """Writes a new file in a temporary folder; an error names it as ``shown``.  Raises OSError."""
    with _naming(shown), _Raw(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, shown, 0o666) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]


class _Raw(io.FileIO):
    """A file whose errors of writing name the file that is meant: a full disk names none."""

    def __init__(self, path: Path, flags: int, shown: Path, mode: int = 0o600):
        reads = flags & os.O_RDWR
        super().__init__(
            path,
            "r+" if reads else "w",
            opener=lambda name, _: os.open(name, flags | os.O_CLOEXEC, mode),
        )
        self._shown = shown

    def write(self, data: Any, /) -> int:
        with _naming(self._shown):
            return super().write(data)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _descriptor(path: Path) -> int | None:
    """The number of the open file of this process that a path is, or None."""
    own = os.path.realpath("/proc/self/fd")
    for _ in range(40):  # links in a chain, as the system allows
        if os.path.realpath(path.parent) == own:
            return int(path.name) if path.name.isdecimal() else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _host() -> str:
    """Tells machines that share a folder apart: a process is looked for on its own alone."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _stem(name: str) -> str:
    """What the temporaries of a file of this name have in common."""
    return os.fsencode(name)[:_STEM].decode(errors="ignore")


def _remove_leftovers(folder: Path, stems: Container[str], after: float = math.inf) -> None:
    """Of processes of this machine that are no more; and of others', which cannot be looked for,
    what nobody has written into for so many seconds."""
    pattern = re.compile(
        r"\.(.+)\.([1-9]\d{0,8})\.([0-9a-f]{8})\.\w{8}" + re.escape(_SUFFIX), re.DOTALL
    )
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = pattern.fullmatch(entry.name)
            if not found or found[1] not in stems:
                continue
            ours = found[3] == _host()
            if ours and _is_alive(int(found[2])):
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                old = time.time() - status.st_mtime > after
                if (ours or old) and status.st_uid == os.geteuid():
                    _remove(Path(entry.path))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
