"""A set of archives as one sequence of images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cvae_jax.bitstream import Archive
from cvae_jax.bitstream.archive import ImageSequence, OnProgress, unwatched, whole_numbers
from cvae_jax.errors import DataError, naming
from cvae_jax.shards.naming import Shards

KEPT_OPEN = 4  # archives, each of which may keep 64 MB of chunks


class ArchiveSet(ImageSequence):
    """The images of all shards, in order; has what an ``Archive`` has.

    Shards are opened when something of them is wanted, a few at a time; the first question for a
    number, or for the length, opens each once, as only its index says how many images it holds.

    What is raised names the shard at fault.
    """

    kind = "a set"

    def __init__(self, shards: Shards, opened: Callable[[Path], Archive]):
        """opened: opens an archive of the set's model, and refuses those of others."""
        self.shards = shards
        self._opened = opened
        self._open: dict[int, Archive] = {}  # the one asked for last comes last

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def shard(self, number: int) -> Archive:
        """One of the archives; it stays open until a few others were asked for.

        Raises: as opening it does.
        """
        archive = self._open.pop(number, None)
        if archive is None:
            if len(self._open) >= KEPT_OPEN:
                self._open.pop(next(iter(self._open))).close()
            archive = self._opened(self.shards.path(number))
        self._open[number] = archive
        return archive

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """The number of the first image of each shard, and of all: int64 ``[shards + 1]``."""
        lengths = [len(self.shard(number)) for number in range(self.shards.count)]
        return np.cumsum([0, *lengths], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(
        self,
        which: Sequence[int] | np.ndarray | None = None,
        progress: OnProgress = unwatched,
        *,
        preview: bool = False,
    ) -> np.ndarray:
        """The images of these numbers (default: all), uint8 ``[n, H, W, C]``; arguments, and what
        is raised, as for ``Archive.read``."""
        numbers = whole_numbers(range(len(self)) if which is None else which, len(self))
        of_shard = np.searchsorted(self.starts, numbers, side="right") - 1
        out: np.ndarray | None = None
        for k in np.unique(of_shard).tolist():  # each shard once, whatever the order
            wanted = np.flatnonzero(of_shard == k)
            with naming(self.shards.path(k)):
                found = self.shard(k).read(
                    numbers[wanted] - self.starts[k], progress, preview=preview
                )
            if out is None:
                out = np.empty((len(numbers), *found.shape[1:]), np.uint8)
            if out.shape[1:] != found.shape[1:]:
                raise DataError(
                    "images of several sizes, which fit no one array: decompress them into a "
                    "folder, or read them one by one"
                )
            out[wanted] = found
        if out is None:
            return np.empty((0, *self.shard(0).reader.header.image_shape), np.uint8)
        return out

    def stream(self, *, preview: bool = False) -> Iterator[np.ndarray]:
        """All images in order, a chunk at a time, as ``Archive.stream``."""
        for path in self.shards.paths:
            # Not one of ``shard``'s, which may be closed for others between two chunks.
            with naming(path), self._opened(path) as archive:
                yield from archive.stream(preview=preview)

    def names(self) -> list[str] | None:
        """All images' names, None where some were stored without."""
        found: list[str] = []
        for number in range(self.shards.count):
            with naming(self.shards.path(number)):
                archive = self.shard(number)
                names = archive.names()
            if names is None and len(archive):
                return None
            found += names or []
        return found or None

    def labels(self) -> np.ndarray | None:
        """All images' labels, uint32 ``[N]``, None where some were stored without."""
        found: list[np.ndarray] = []
        for number in range(self.shards.count):
            with naming(self.shards.path(number)):
                archive = self.shard(number)
                labels = archive.labels()
            if labels is not None:
                found.append(labels)
            elif len(archive):
                return None
        return np.concatenate(found) if found else None
