"""Where a command's images go: a file, a folder, or standard output."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cvae_jax import data, files
from cvae_jax.bitstream.names import check_names
from cvae_jax.errors import ConfigError

SUFFIX = ".cvae"


def compressed_name(args: Namespace) -> Path | None:
    """None: standard output."""
    if args.output == "-" or (args.output is None and args.inputs[0] == "-"):
        return None
    if args.output:
        return Path(args.output)
    first = Path(args.inputs[0])
    return first.with_name(first.name + SUFFIX) if first.is_dir() else first.with_suffix(SUFFIX)


def decompressed_name(args: Namespace, is_archive: bool) -> Path | None:
    """None: standard output."""
    if args.output == "-" or (args.output is None and args.input == "-"):
        return None
    if args.output:
        return Path(args.output)
    return Path(args.input).with_suffix("" if is_archive else ".png")


def writer(output: Path | None, force: bool, sources: list[Path]) -> Callable:
    """``write(images, names)``; what it would refuse is refused now, before the work."""
    suffix = output.suffix.lower() if output else ""
    if suffix in data.SUFFIXES and suffix not in data.WRITABLE:
        raise ConfigError(f"{output}: images are written as {' '.join(data.WRITABLE)}")
    if output and suffix != ".npy" and suffix not in data.WRITABLE:
        check_folder(output, force=force)
    elif output:
        files.check_free(output, force=force, inputs=sources)

    def write(images: np.ndarray, names: list[str] | None) -> None:
        if output is None or suffix:
            if suffix in data.WRITABLE or (output is None and len(images) == 1 and not names):
                if len(images) != 1:
                    raise ConfigError(
                        f"{output}: cannot hold {len(images)} images; name a folder or an .npy file"
                    )
                content = data.encode_image(images[0], suffix or ".png")
            else:
                file = io.BytesIO()
                np.save(file, images)
                content = file.getvalue()
            if output is None:
                to_stdout(content)
                return
            with files.whole(output, force=force, inputs=sources) as target:
                target.write(content)
        else:
            chosen = _file_names(names or [f"{i:06d}" for i in range(len(images))])
            extract(output, chosen, lambda i: data.encode_image(images[i]), force=force)

    return write


def _file_names(names: list[str]) -> list[str]:
    """The images' names as those of PNG files: another image suffix goes, if none collide."""
    check_names(names)
    short = [
        str(Path(name).with_suffix("")) if Path(name).suffix.lower() in data.SUFFIXES else name
        for name in names
    ]
    if len({name.casefold() for name in short}) < len(short):
        short = names
    return [f"{name}.png" for name in short]


def to_stdout(content: bytes) -> None:
    if sys.stdout.isatty():
        raise ConfigError("not writing a file to a terminal; give -o or redirect")
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


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
            temporary.chmod(0o777 & ~files.umask())
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
