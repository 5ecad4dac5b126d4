"""Where a command's images go: a file, a folder, or standard output; decided before any work."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cvae_jax import data, files
from cvae_jax.cli.files import paths, unpacking
from cvae_jax.errors import ConfigError

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
    output: Output, images: np.ndarray, names: Sequence[str] | None, *, force: bool
) -> None:
    """Writes images, uint8 ``[N, H, W, C]``.

    names: of the files in a folder (``file_names``); None where the images have none.
    """
    if isinstance(output, ToFolder):
        if names is None:
            names = unpacking.file_names(unpacking.numbered(range(len(images))))
        unpacking.extract(output.path, names, lambda i: data.encode_image(images[i]), force=force)
        return
    suffix = output.path.suffix.lower() if isinstance(output, ToFile) else ""
    if suffix not in WRITABLE:  # standard output, a device
        alone = len(images) == 1 and names is None and images.shape[3] in (1, 3)
        suffix = ".png" if alone else ".npy"
    is_array = suffix == ".npy"
    content = array_file(images) if is_array else data.encode_image(images[0], suffix)
    write(output, content, force=force)


def array_file(array: np.ndarray) -> bytes:
    """The bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(
    output: ToStdout | ToFile,
    content: bytes,
    *,
    force: bool,
    read_back: Callable[[BinaryIO], None] | None = None,
) -> None:
    """Writes a file; read_back: raises if what was written is not what was meant.

    A file is read back before it takes its name, a stream's content before it is sent.
    """
    if isinstance(output, ToFile):
        with files.whole(output.path, force=force) as file:
            file.write(content)
            if read_back:
                file.flush()
                read_back(file if file.readable() else io.BytesIO(content))
        return
    if read_back:
        read_back(io.BytesIO(content))
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _names_a_folder(given: str) -> bool:
    return given.endswith(("/", os.sep))
