"""Where a command's images go: a file, a folder, or standard output; decided before any work."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from cvae_jax import data, files
from cvae_jax.bitstream.records import crc32c
from cvae_jax.cli.files import paths, unpacking
from cvae_jax.errors import ConfigError, DataError
from cvae_jax.jobs.names import file_names

SUFFIX = ".cvae"
WRITABLE = (".npy", *data.WRITABLE)


@dataclass(frozen=True)
class ToStdout:
    def __str__(self) -> str:
        return "-"


@dataclass(frozen=True)
class ToFile:
    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class ToFolder:
    path: Path

    def __str__(self) -> str:
        return str(self.path)


Output = ToStdout | ToFile | ToFolder


def for_compressed(inputs: Sequence[str], given: str | None) -> ToStdout | ToFile:
    """Where a compressed file goes; given: what ``-o`` says.

    Raises:
      ConfigError: it says nothing, and the inputs are several, or have no name to go by.
    """
    if given is not None:
        return to_file(given)
    if list(inputs) == ["-"]:
        return ToStdout()
    if len(inputs) > 1:
        raise ConfigError(f"{len(inputs)} inputs; say with -o which file to write")
    path = Path(inputs[0])
    if glob.has_magic(inputs[0]) and not os.path.lexists(path):
        raise ConfigError(f"{inputs[0]} is a pattern; say with -o which file to write")
    if path.name in ("", ".."):
        raise ConfigError(f"{inputs[0]} has no name to go by; say with -o which file to write")
    return ToFile(path.with_name(path.name + SUFFIX) if path.is_dir() else path.with_suffix(SUFFIX))


def for_images(source: str, given: str | None, *, is_archive: bool) -> Output:
    """Where the images of a compressed file go; given: what ``-o`` says.

    A path that ends in a slash, an existing folder, and a name without a suffix that images or
    arrays have are folders.

    Raises:
      ConfigError: images cannot be written so, or -o is missing and the source has no suffix.
    """
    if given is None:
        if source == "-":
            return ToStdout()
        path = Path(source)
        if path.with_suffix("") == path:
            raise ConfigError(f"{source} has no suffix to leave out; say with -o what to write")
        return ToFolder(path.with_suffix("")) if is_archive else ToFile(path.with_suffix(".png"))
    if paths.is_stdout(given):
        return ToStdout()
    if not given:
        raise ConfigError("-o says nothing; name a file or a folder")
    path = Path(given)
    if _names_a_folder(given) or path.is_dir():
        return ToFolder(path)
    suffix = path.suffix.lower()
    if suffix in WRITABLE or files.is_written_into(path):
        return ToFile(path)
    if suffix in (*data.SUFFIXES, ".npz", SUFFIX):
        raise ConfigError(f"{path}: images are written as {' '.join(WRITABLE)}")
    return ToFolder(path)


def to_file(given: str) -> ToStdout | ToFile:
    """A file to write.  Raises ConfigError for a name that only a folder can have."""
    if paths.is_stdout(given):
        return ToStdout()
    if not given or _names_a_folder(given):
        raise ConfigError(f"{given!r} names a folder; name a file")
    return ToFile(Path(given))


def check(outputs: Sequence[Output], inputs: Sequence[Path], *, force: bool) -> None:
    """Refuses all that a command's paths are refused for, before any work.

    inputs: the files that are read, and folders that nothing may be written into; they and the
      outputs must all be apart.

    Raises:
      ConfigError: an output is an input or another output, is there (and ``force`` is not set)
        or cannot be there, or is a terminal.
    """
    if sum(isinstance(output, ToStdout) for output in outputs) > 1:
        raise ConfigError("standard output would be written twice; name another output")
    paths.check_apart([o.path for o in outputs if not isinstance(o, ToStdout)], inputs)
    for output in outputs:
        if isinstance(output, ToFile):
            files.check_free(output.path, force=force)
        elif isinstance(output, ToFolder):
            unpacking.check_folder(output.path, force=force)
        elif sys.__stdout__ is None:
            raise ConfigError("standard output is closed; name a file with -o")
        elif sys.stdout.isatty():
            raise ConfigError("not writing a file to a terminal; give -o or redirect")


def check_fit(output: Output, image_shape: Sequence[int], count: int) -> None:
    """Refuses so many images, of this shape ``[H, W, C]``, where they do not go.

    Raises:
      ConfigError: an image file for more than one, or for neither grey nor colour.
    """
    is_picture = isinstance(output, ToFile) and output.path.suffix.lower() in data.WRITABLE
    if is_picture and count != 1:
        raise ConfigError(f"{output}: cannot hold {count} images; name a folder or an .npy file")
    if (is_picture or isinstance(output, ToFolder)) and image_shape[2] not in (1, 3):
        raise ConfigError(
            f"{output}: image files hold 1 or 3 channels, not {image_shape[2]}; name an .npy file"
        )


def write_images(
    output: Output,
    blocks: Iterable[np.ndarray],
    shape: tuple[int, int, int, int],
    names: Sequence[str] | None,
    *,
    force: bool,
) -> None:
    """Writes images, uint8 ``[n, H, W, C]`` at a time.

    shape: of all of them, ``[N, H, W, C]``; names: of the files in a folder (``file_names``); None
    where the images have none.
    """
    if isinstance(output, ToFolder):
        if names is None:
            names = file_names(unpacking.numbered(range(shape[0])))
        contents = (data.encode_image(image) for block in blocks for image in block)
        unpacking.extract(output.path, names, contents, force=force)
        return
    suffix = output.path.suffix.lower() if isinstance(output, ToFile) else ""
    if suffix not in WRITABLE:  # standard output, a device
        alone = shape[0] == 1 and names is None and shape[3] in (1, 3)
        suffix = ".png" if alone else ".npy"
    with writing(output, force=force) as file:
        if suffix == ".npy":
            data.write_npy(file, blocks, shape)
        else:
            (image,) = (image for block in blocks for image in block)
            file.write(data.encode_image(image, suffix))


def array_file(array: np.ndarray) -> bytes:
    """The bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(output: ToStdout | ToFile, content: bytes, *, force: bool) -> None:
    """Writes a file."""
    with writing(output, force=force) as file:
        file.write(content)


@contextlib.contextmanager
def writing(
    output: ToStdout | ToFile, *, force: bool, read_back: bool = False
) -> Iterator[BinaryIO]:
    """A file to write, which is there at the end, or sent, if all went well.

    read_back: what was written is then read again and compared.

    Raises:
      DataError: it is something else.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(output, ToStdout):
            final: BinaryIO = sys.stdout.buffer
        else:
            final = stack.enter_context(files.whole(output.path, force=force))
        # Into what cannot be taken back, a stream or a device, nothing goes before all is well.
        file = final if final is not sys.stdout.buffer and final.readable() else None
        made: BinaryIO = file or stack.enter_context(tempfile.TemporaryFile())
        if read_back:
            watched = _Watched(made)
            yield cast(BinaryIO, watched)
            watched.check()
        else:
            yield made
        if file is None:
            made.seek(0)
            shutil.copyfileobj(made, final)
            final.flush()


class _Watched:
    """A file that is written from its start to its end, and the check of what went into it."""

    def __init__(self, file: BinaryIO):
        self._file, self._crc = file, 0

    def write(self, content: bytes) -> int:
        self._crc = crc32c(content, self._crc)
        return self._file.write(content)

    def check(self) -> None:
        """Reads all of it.  Raises DataError if it is something else."""
        self._file.flush()
        self._file.seek(0)
        crc = 0
        while block := self._file.read(1 << 20):
            crc = crc32c(block, crc)
        if crc != self._crc:
            raise DataError("what was written reads back as something else; write it anew")


def _names_a_folder(given: str) -> bool:
    return given.endswith(("/", os.sep))
