"""What a source of images is, and what can be made of any."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from cvae_jax.errors import DataError

BLOCK_BYTES = 1 << 23  # of pixels, that are read at once where all images are gone through


class ChangedError(DataError):
    """An input is not what it was when it was opened."""


class Source(Protocol):
    """Images by number, of a collection that need not fit into memory.

    A NumPy array, uint8 ``[N, H, W, C]``, is one.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``[N, H, W, C]``"""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        """Images by their numbers, int ``[n]`` in any order: uint8 ``[n, H, W, C]``.

        Raises:
          DataError: an image is damaged or of another shape; the message names it.
        """
        ...


class FileSource(Source, Protocol):
    """Images in files.

    Pickled, it is the paths and where in the files the images are: each process opens the files
    itself, when it reads.  Threads may read at the same time.
    """

    def name(self, number: int) -> str | None:
        """The path of an image inside its folder, tar or zip; None: it has no name."""
        ...


class Subset:
    """Some images of a source, int ``[n]``, in the order of their numbers there."""

    def __init__(self, source: Source, numbers: np.ndarray):
        self._source = source
        fits = not len(numbers) or numbers.max() < 1 << 31
        self._numbers = numbers.astype(np.int32) if fits else numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._numbers), *self._source.shape[1:])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        return self._source[self._numbers[numbers]]


class File:
    """A file of which parts are read, by any thread; opened on first use, in each process anew."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file: IO[bytes] | None = None
        self._stamp = self._now()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    @property
    def size(self) -> int:
        return self._stamp[0]

    def read(self, offset: int, count: int) -> bytes:
        """Bytes ``offset`` to ``offset + count``.

        Raises:
          ChangedError: it has changed since it was first looked at.
          DataError: it cannot be read, or never went so far.
        """
        with reading(self.path):
            file = self._file = self._file or self._opened()  # two threads may each open it
            parts: list[bytes] = []
            while count:
                part = os.pread(file.fileno(), count, offset)
                if not part:
                    kind = ChangedError if offset < self.size else DataError
                    raise kind(f"{self.path}: it ends too early, at byte {offset}")
                parts.append(part)
                offset, count = offset + len(part), count - len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def _opened(self) -> IO[bytes]:
        file = self.path.open("rb", buffering=0)
        if self._now() != self._stamp:
            raise ChangedError(f"{self.path}: it has changed since it was opened; start again")
        return file

    def _now(self) -> tuple[int, int]:
        with reading(self.path):
            found = self.path.stat()
            return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Makes a DataError that names the file of a failure of the system."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def block_size(source: Source, multiple: int = 1) -> int:
    """How many images are about ``BLOCK_BYTES``, a multiple of ``multiple``."""
    each = max(math.prod(source.shape[1:]), 1)
    return max(BLOCK_BYTES // each // multiple, 1) * multiple


def blocks(source: Source, size: int | None = None) -> Iterator[np.ndarray]:
    """All images in order, uint8 ``[n, H, W, C]``, so many at once.

    One after the other: threads that decode small images keep each other waiting, which was three
    times as slow.
    """
    n, size = len(source), size or block_size(source)
    for first in range(0, n, size):
        if isinstance(source, np.ndarray):
            yield source[first : first + size]
        else:
            yield source[np.arange(first, min(first + size, n))]


def to_memory(source: Source) -> np.ndarray:
    """All images, uint8 ``[N, H, W, C]``."""
    if isinstance(source, np.ndarray):
        return source
    images = np.empty(source.shape, np.uint8)
    first = 0
    for part in blocks(source):
        images[first : first + len(part)] = part
        first += len(part)
    return images


def spread(source: Source, most: int) -> Source:
    """So many images, evenly spread over a source; the source itself, if it has no more."""
    n = len(source)
    return source if n <= most else Subset(source, spread_numbers(n, most))


def spread_numbers(n: int, most: int) -> np.ndarray:
    """Of ``n`` numbers from 0 as many as are wanted, evenly spread, or all if there are fewer."""
    most = min(n, most)
    return np.arange(most) * n // max(most, 1)
