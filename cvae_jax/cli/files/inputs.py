"""What a command is given to compress: image files, folders, globs, arrays, IDX files, stdin."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cvae_jax import data
from cvae_jax.data.sources import blocks, open_source
from cvae_jax.errors import DataError

_ARRAY_SUFFIXES = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz"}
_Blocks = Callable[[int], Iterator[np.ndarray]]


class Source(NamedTuple):
    """A file to read."""

    name: str | None  # relative path of an image file; None: standard input
    path: Path | None  # None: standard input


class Inputs(NamedTuple):
    """Images, read when they are wanted: there may be more of them than memory has room for."""

    total: int
    names: list[str] | None  # relative paths of image files; None where some had no name
    single: bool  # one image file
    # The images in order, uint8 [n, H, W, C], at most so many at once, from the start at each call.
    # Raises DataError where a file turns out to be damaged, or not of the model's shape.
    blocks: Callable[[int], Iterator[np.ndarray]]

    def all(self) -> np.ndarray:
        """All images in memory, uint8 ``[N, H, W, C]``."""
        parts = list(self.blocks(self.total))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def expand(arguments: Sequence[str]) -> list[Source]:
    """The files that arguments mean, in their order.

    Raises:
      DataError: there is none for an argument.
    """
    return [source for argument in arguments for source in _expand(argument)]


@contextlib.contextmanager
def opened(
    sources: Sequence[Source],
    image_shape: tuple[int, int, int],
    *,
    resize: bool,
    grayscale: bool,
    stdin: BinaryIO,
) -> Iterator[Inputs]:
    """The images of all sources, in the order given.

    image_shape: what the model wants.  Other images are refused, with both sizes in the message;
    ``resize`` stretches image files to its size, ``grayscale`` makes coloured ones grey.

    Raises:
      DataError: something is missing, or of an array's header damaged or not of the model's shape.
    """
    names: list[str | None] = []
    parts: list[Callable[[int], Iterator[np.ndarray]]] = []
    with contextlib.ExitStack() as stack:
        for name, given in sources:
            path = stack.enter_context(_spooled(stdin)) if given is None else given
            shown = "standard input" if given is None else str(given)
            if not path.is_file():  # reading a FIFO or a device may never end
                raise DataError(f"{shown}: no regular file; give it as standard input, with -")
            is_array = _holds_array(path)
            if is_array:
                with _shown(path, shown):
                    source = open_source(path)
                _check_shape(source.shape, shown, image_shape)
                read: _Blocks = functools.partial(blocks, source)
                count = len(source)
            else:
                read, count = _image_reader(path, image_shape, resize, grayscale), 1
            parts.append(_shown_blocks(read, path, shown))
            names += [None] * count if is_array or name is None else [name]
        if not names:
            raise DataError(f"{shown}: no images")
        known = None if None in names else [str(name) for name in names]
        yield Inputs(
            len(names),
            known,
            len(parts) == 1 and not is_array,
            lambda size: itertools.chain.from_iterable(part(size) for part in parts),
        )


def _image_reader(
    path: Path, wanted: tuple[int, int, int], resize: bool, grayscale: bool
) -> Callable[[int], Iterator[np.ndarray]]:
    def blocks(size: int) -> Iterator[np.ndarray]:
        yield _read_image(path, wanted, resize, grayscale)[None]

    return blocks


def _shown_blocks(
    read: Callable[[int], Iterator[np.ndarray]], path: Path, shown: str
) -> Callable[[int], Iterator[np.ndarray]]:
    def blocks(size: int) -> Iterator[np.ndarray]:
        with _shown(path, shown):
            yield from read(size)

    return blocks


@contextlib.contextmanager
def _shown(path: Path, shown: str) -> Iterator[None]:
    """Errors name a file as the user knows it: standard input has become a temporary one."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace(str(path), shown)) from error


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
    start = stdin.read(4)
    if not start:
        raise DataError("standard input: empty")
    suffix = next((s for begins, s in _ARRAY_SUFFIXES.items() if start.startswith(begins[:4])), "")
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(start)
        shutil.copyfileobj(stdin, file)
        file.flush()
        yield Path(file.name)


def _holds_array(path: Path) -> bool:
    """Whether a file holds an array of images; otherwise it is an image file."""
    with path.open("rb") as file:
        start = file.read(6)
    return start.startswith((*data.IDX_STARTS, *_ARRAY_SUFFIXES)) or (
        path.suffix in _ARRAY_SUFFIXES.values()
    )


def _check_shape(shape: Sequence[int], shown: str, wanted: tuple[int, int, int]) -> None:
    if len(shape) != 4 or tuple(shape[1:]) != wanted:
        raise DataError(
            f"{shown}: an array of shape {list(shape)}, the model's images are "
            f"{_words(wanted)}; choose another --ckpt, or convert the array"
        )


def _read_image(
    path: Path, wanted: tuple[int, int, int], resize: bool, grayscale: bool
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
            f"{path}: {_words(image.shape)}, the model's images are {_words(wanted)}; "
            f"{' '.join(flags)} converts, or choose another --ckpt"
        )
    return image


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} {'grey' if shape[2] == 1 else 'colour'}"
