"""What a command is given to compress: image files, folders, globs, arrays, IDX files, stdin."""

from __future__ import annotations

import contextlib
import glob
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cvae_jax import data
from cvae_jax.errors import DataError

_ARRAY_SUFFIXES = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz"}
_IDX_STARTS = (b"\x00\x00\x08", b"\x1f\x8b")


class Source(NamedTuple):
    """A file to read."""

    name: str | None  # relative path of an image file; None: standard input
    path: Path | None  # None: standard input


class Inputs(NamedTuple):
    images: np.ndarray  # uint8 [N, H, W, C]
    names: list[str] | None  # relative paths of image files; None where some had no name
    single: bool  # one image file


def expand(arguments: Sequence[str]) -> list[Source]:
    """The files that arguments mean, in their order.

    Raises:
      DataError: there is none for an argument.
    """
    return [source for argument in arguments for source in _expand(argument)]


def read(
    sources: Sequence[Source],
    image_shape: tuple[int, int, int],
    *,
    resize: bool,
    grayscale: bool,
    stdin: BinaryIO,
) -> Inputs:
    """Reads the images of all sources, in the order given.

    image_shape: what the model wants.  Other images are refused, with both sizes in the message;
    ``resize`` stretches image files to its size, ``grayscale`` makes coloured ones grey.

    Raises:
      DataError: something is missing, damaged, or not of the model's shape.
    """
    parts: list[np.ndarray] = []
    names: list[str | None] = []
    with contextlib.ExitStack() as stack:
        for name, given in sources:
            path = stack.enter_context(_spooled(stdin)) if given is None else given
            shown = "standard input" if given is None else str(given)
            if not path.is_file():  # reading a FIFO or a device may never end
                raise DataError(f"{shown}: no regular file; give it as standard input, with -")
            reader = _array_reader(path)
            try:
                if reader:
                    images = _check_array(reader(path), shown, image_shape)
                else:
                    images = _read_image(path, shown, image_shape, resize, grayscale)[None]
            except DataError as error:
                raise DataError(str(error).replace(str(path), shown)) from error
            parts.append(images)
            names += [None] * len(images) if reader or name is None else [name]
    images = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if not len(images):
        raise DataError(f"{shown}: no images")
    known = None if None in names else [str(name) for name in names]
    return Inputs(images, known, single=len(parts) == 1 and reader is None)


def _expand(argument: str) -> list[Source]:
    if argument == "-":
        return [Source(None, None)]
    path = Path(argument)
    if path.is_dir():
        return [Source(p.relative_to(path).as_posix(), p) for p in data.list_images(path)]
    if path.exists():
        return [Source(path.name, path)]
    if glob.has_magic(argument):
        found = sorted(p for p in map(Path, glob.glob(argument, recursive=True)) if p.is_file())
        if found:
            return [Source(p.name, p) for p in found]
        raise DataError(f"{argument}: no file matches")
    raise DataError(f"{argument}: no such file or folder")


@contextlib.contextmanager
def _spooled(stdin: BinaryIO) -> Iterator[Path]:
    """Standard input as a file: the readers of arrays want one, with its suffix."""
    content = stdin.read()
    if not content:
        raise DataError("standard input: empty")
    suffix = next((s for start, s in _ARRAY_SUFFIXES.items() if content.startswith(start)), "")
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _array_reader(path: Path) -> Callable[[Path], np.ndarray] | None:
    """What reads a file that holds an array of images, None for an image file."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(_IDX_STARTS):
        return data.read_idx
    if start.startswith(tuple(_ARRAY_SUFFIXES)) or path.suffix in _ARRAY_SUFFIXES.values():
        return data.read_array
    return None


def _check_array(images: np.ndarray, shown: str, wanted: tuple[int, int, int]) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1:] != wanted:
        raise DataError(
            f"{shown}: an array of shape {list(images.shape)}, the model's images are "
            f"{_words(wanted)}; choose another --ckpt, or convert the array"
        )
    return images


def _read_image(
    path: Path, shown: str, wanted: tuple[int, int, int], resize: bool, grayscale: bool
) -> np.ndarray:
    h, w, channels = wanted
    image = data.read_image(path, image_size=(h, w) if resize else None)
    if image.shape[2] == 3 and channels == 1 and grayscale:
        image = data.read_image(path, image_size=(h, w) if resize else None, channels=1)
    if image.shape[2] == 1 and channels == 3:
        image = np.repeat(image, 3, axis=2)
    if image.shape != wanted:
        flags = ["--resize"] * (image.shape[:2] != (h, w))
        flags += ["--grayscale"] * (image.shape[2] != channels)
        raise DataError(
            f"{shown}: {_words(image.shape)}, the model's images are {_words(wanted)}; "
            f"{' '.join(flags)} converts, or choose another --ckpt"
        )
    return image


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} {'grey' if shape[2] == 1 else 'colour'}"
