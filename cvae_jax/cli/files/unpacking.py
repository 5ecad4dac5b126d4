"""Images written as files into a folder: their names, and never outside it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from cvae_jax import files
from cvae_jax.bitstream.names import check_names
from cvae_jax.errors import ConfigError
from cvae_jax.jobs.names import LONGEST


def check_encodable(names: Sequence[str]) -> None:
    """Refuses names that this process cannot give to files: its locale may know no such letters.

    Raises:
      ConfigError: naming the first.
    """
    for name in names:
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"no file can be called {name!a} in this locale ({error.encoding}); set "
                "LC_ALL=C.UTF-8 or PYTHONUTF8=1, or write an .npy file"
            ) from error


def numbered(numbers: Iterable[int]) -> list[str]:
    """The names of images that have none."""
    return [f"{number:06d}" for number in numbers]


def named(names: Iterable[str | None], numbers: Iterable[int]) -> list[str]:
    """The names of images, of which some may have none."""
    return [name or own for name, own in zip(names, numbered(numbers), strict=True)]


def extract(
    folder: Path,
    names: Sequence[str],
    contents: Iterable[bytes],
    *,
    force: bool,
) -> None:
    """Writes one file per name below ``folder``, with these contents.

    All are written to a temporary folder first.  That becomes ``folder`` if there is none; into
    an existing one the files are moved, one by one, never through a symbolic link.

    Raises:
      FormatError: a name is refused (see ``check_names``); nothing is written then.
      ConfigError: the folder holds something and ``force`` is not set, or has a link in the way,
        or a name cannot be encoded.
      OSError: it cannot be written.
    """
    check_names(names, longest=LONGEST)
    check_encodable(names)
    check_folder(folder, force=force)
    _check_places(folder, names)
    with files.temporary(folder) as temporary:
        temporary.mkdir(0o700)
        for name, content in zip(names, contents, strict=True):
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, content, folder / name)
        if folder.is_dir():
            _move_into(folder, temporary, names)
        else:
            temporary.chmod(0o777 & ~files.umask())
            temporary.rename(folder)


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses an output folder that ``extract`` would refuse.  Raises ConfigError."""
    if not folder.parent.is_dir():
        raise ConfigError(f"{folder}: there is no folder {folder.parent}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} exists and is no folder")
    kept = folder.is_dir() and any(not files.is_temporary(p.name) for p in folder.iterdir())
    if kept and not force:
        raise ConfigError(f"{folder} is not empty; -f writes into it, over files of the same name")


def _check_places(folder: Path, names: Sequence[str]) -> None:
    """Refuses what ``_move_into`` would refuse, before the first file is moved."""
    parents: set[Path] = set()
    for name in names:
        path = folder / name
        for parent in reversed(path.relative_to(folder).parents[:-1]):
            place = folder / parent
            if place in parents:
                continue
            parents.add(place)
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise ConfigError(f"{path}: a link or a file is in the way; move it away")
        if not path.is_symlink() and path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no file; move it away")


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
                    mode = os.stat(file, dir_fd=place, follow_symlinks=False).st_mode
                    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
                        raise ConfigError(f"{folder / name} is no file; move it away")
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
