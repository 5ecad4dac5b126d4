"""Many inputs as one row of images with numbers, some of which cannot be decoded."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data.sources import FileSource, open_source
from cvae_jax.data.sources import reading as in_files
from cvae_jax.data.sources.images import ShapeError
from cvae_jax.data.sources.source import ChangedError
from cvae_jax.errors import ConfigError, DataError


class Reading(NamedTuple):
    """How images are made to fit a model."""

    image_shape: tuple[int, int, int]
    resize: bool = False
    grayscale: bool = False


class Skipped(NamedTuple):
    """An image that cannot be decoded."""

    image: int  # its number in the collection
    input: str
    name: str | None
    reason: str


class Part(NamedTuple):
    """Some images in order, and what is missing among them."""

    images: np.ndarray  # uint8 [n, H, W, C]
    numbers: np.ndarray  # int64 [n], in the collection
    names: list[str | None]
    skipped: list[Skipped]


@dataclass(frozen=True)
class Input:
    """A file or a folder of images, as it was when the job was planned."""

    path: str
    images: int
    stamp: str  # digest of the sizes and times of its file, or of the files in the folder
    names: str | None  # digest of the images' names; None: they have none


@dataclass(frozen=True)
class Collection:
    """Inputs, one after the other; can be pickled, and opens them where it is used.

    Raises, wherever it reads:
      DataError: an input is gone, or is not what it was.
    """

    inputs: tuple[Input, ...]
    reading: Reading

    @classmethod
    def of(cls, patterns: Sequence[str], reading: Reading) -> Collection:
        """The inputs that patterns mean, in their order, and sorted within a pattern.

        Raises:
          ConfigError: an input comes twice, be it by other names.
          DataError: nothing has that name, or it holds no images of the wanted shape.
        """
        paths = [str(path.absolute()) for pattern in patterns for path in expand(pattern)]
        _check_once(paths)
        return cls(tuple(_looked_at(path, _open(path, reading)) for path in paths), reading)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """The number of each input's first image, and of all: int64 ``[inputs + 1]``."""
        return np.cumsum([0, *(given.images for given in self.inputs)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict:
        return {"inputs": self.inputs, "reading": self.reading}

    @property
    def named(self) -> bool:
        """Whether all images have names."""
        return all(given.names is not None for given in self.inputs)

    def names(self) -> list[str]:
        """The names of all images, which must have some."""
        opened = ((given, _opened(given, self.reading)) for given in self.inputs)
        return [source.name(k) or "" for given, source in opened for k in range(given.images)]

    def parts(self, start: int, stop: int, size: int) -> Iterator[Part]:
        """The images from ``start`` to ``stop``, of so many numbers at a time."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        for given, begins in zip(self.inputs[first:], self.starts[first:].tolist(), strict=False):
            ends = min(begins + given.images, stop)
            for at in range(max(begins, start), ends, size):
                yield self._part(given, begins, range(at - begins, min(at + size, ends) - begins))
            if ends == stop:
                return

    def _part(self, given: Input, begins: int, wanted: range) -> Part:
        source = _opened(given, self.reading)
        blocks: list[np.ndarray] = [np.empty((0, *self.reading.image_shape), np.uint8)]
        numbers: list[int] = []
        skipped = []
        for rows, found in _decoded(source, wanted):
            if isinstance(found, DataError):
                (row,) = rows
                skipped.append(Skipped(begins + row, given.path, source.name(row), str(found)))
            else:
                blocks.append(found)
                numbers += rows
        images = blocks[1] if len(blocks) == 2 else np.concatenate(blocks)
        names = [source.name(row) for row in numbers]
        return Part(images, begins + np.array(numbers, np.int64), names, skipped)


def expand(pattern: str) -> list[Path]:
    """The files and folders that a pattern means, sorted, but none that is in one of those folders.

    Raises:
      DataError: there are none.
    """
    path = Path(pattern)
    if path.exists():
        return [path]
    if not glob.has_magic(pattern):
        raise DataError(f"{pattern}: no such file or folder")
    matching = map(Path, glob.glob(pattern, recursive=True))
    found = sorted(path for path in matching if path.is_file() or path.is_dir())
    if not found:
        raise DataError(f"{pattern}: no such file or folder, and no file matches")
    folders = {path for path in found if path.is_dir()}
    return [path for path in found if folders.isdisjoint(path.parents)]


def _check_once(paths: Sequence[str]) -> None:
    """Raises ConfigError where two paths, by links or not, lead to one file or folder."""
    known: dict[tuple[int, int], str] = {}
    for path in paths:
        status = os.stat(path)
        before = known.setdefault((status.st_dev, status.st_ino), path)
        if before is not path:
            told = "is given twice" if before == path else f"is {before}, which is given as well"
            raise ConfigError(f"{path} {told}; its images would be there twice")


def _decoded(source: FileSource, wanted: range) -> Iterator[tuple[range, np.ndarray | DataError]]:
    """Images in order, as many at once as can be, with what is wrong with those that cannot."""
    try:
        images = source[np.arange(wanted.start, wanted.stop)]
    except DataError as error:
        if isinstance(error, ChangedError | ShapeError) or _is_of_the_system(error):
            raise
        if len(wanted) == 1:
            yield wanted, error
            return
        half = len(wanted) // 2
        yield from _decoded(source, wanted[:half])
        yield from _decoded(source, wanted[half:])
    else:
        yield wanted, images


def _is_of_the_system(error: DataError) -> bool:
    """Whether a file could not be read, rather than what it holds (which Pillow tells as an OSError
    without a number)."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno is not None


def _open(path: str, reading: Reading) -> FileSource:
    return open_source(
        path, reading.image_shape, resize=reading.resize, grayscale=reading.grayscale
    )


def _looked_at(path: str, source: FileSource) -> Input:
    count, names = len(source), None
    if not count:
        raise DataError(f"{path}: no images")
    if source.name(0) is not None:
        digest = hashlib.sha256()
        for k in range(count):
            # As the system has them in memory, names may be no Unicode text.
            digest.update(f"{source.name(k)}\0".encode("utf-8", "surrogateescape"))
        names = digest.hexdigest()
    return Input(path, count, _stamp(path, source), names)


def _stamp(path: str, source: FileSource) -> str:
    is_folder = Path(path).is_dir()
    files = (f"{path}/{source.name(k)}" for k in range(len(source))) if is_folder else [path]
    digest = hashlib.sha256()
    with in_files(Path(path)):
        for file in files:
            found = os.stat(file)
            digest.update(f"{found.st_size} {found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def _opened(given: Input, reading: Reading) -> FileSource:
    source = _open(given.path, reading)
    if _looked_at(given.path, source) != given:
        raise ChangedError(f"{given.path}: it has changed since the job began; start again")
    return source
