"""An open archive: random access, names, labels; and what can be recovered of a damaged one."""

from __future__ import annotations

import abc
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from cvae_jax.batching import cores, mapped
from cvae_jax.bitstream import budget
from cvae_jax.bitstream.budget import Budget, Meter
from cvae_jax.bitstream.container import Reader, unpack_names
from cvae_jax.bitstream.decoder import Bill, FileDecoder
from cvae_jax.bitstream.records import BASED, Chunk
from cvae_jax.bitstream.salvage import lost, salvage
from cvae_jax.config import Size
from cvae_jax.errors import DataError, FormatError, ModelMismatchError

OnProgress = Callable[[int], None]  # gets the images finished since the last call


def unwatched(done: int) -> None:
    """The default: does nothing."""


class ImageSequence(abc.ABC):
    """Images by number; a context manager: leaving it closes what they are read from."""

    kind: str  # as an error calls it

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, which: Sequence[int] | None = None) -> np.ndarray:
        """The images of these numbers (default: all), uint8 ``[n, H, W, C]``."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """One image, uint8 ``[H, W, C]``, or those of a slice, ``[n, H, W, C]``."""
        if isinstance(which, slice):
            return self.read(range(len(self))[which])
        try:
            number = range(len(self))[which]
        except IndexError as error:
            raise IndexError(f"image {which} of {self.kind} of {len(self)}") from error
        return self.read([number])[0]


class Archive(ImageSequence):
    """A sequence of images in a file; reads and decodes the chunks that are asked for."""

    kind = "an archive"

    def __init__(
        self,
        file: BinaryIO,
        decoder: FileDecoder,
        reader: Reader | None = None,
        *,
        allowed: Budget = budget.DEFAULT,
    ):
        """Raises FormatError if damaged, ModelMismatchError if it is not the decoder's.

        reader: of the file, where there is one already; its budget then counts.
        """
        self._file, self._decoder = file, decoder
        self.reader = Reader(file, allowed) if reader is None else reader
        decoder.require(self.reader.header)
        self._newest: tuple[int, np.ndarray] | None = None  # chunk, its symbols
        self._newest_refined: tuple[int, np.ndarray] | None = None  # chunk, its images

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.reader)

    def read(
        self,
        which: Sequence[int] | None = None,
        progress: OnProgress = unwatched,
        *,
        preview: bool = False,
    ) -> np.ndarray:
        """The images of these numbers (default: all), uint8 ``[n, H, W, C]``.

        The pixels of chunks that are read whole, in their order, are compared with their check (a
        spot check is of the first ones alone); those of refined chunks always are.

        preview: of refined images that have a base, the base, in a fraction of the time.

        Raises:
          DataError: they are of several sizes, which no array holds.
          FormatError: they are damaged, or more than the budget allows.
          IndexError: there is no image of a number; they start at 0.
          TypeError: not whole numbers (a mask is none: ``np.flatnonzero`` makes numbers of it).
        """
        if which is None:
            return self._read_all(progress, preview)
        return self._chosen(self._numbers(which), self._bill(), progress, preview)

    def _bill(self) -> Bill:
        return Bill(self.reader.allowed, self.reader.paid)

    def _chosen(
        self, numbers: np.ndarray, bill: Bill, progress: OnProgress, preview: bool
    ) -> np.ndarray:
        # Chunk by chunk: whatever the order that is asked for, each is decoded once.
        of_chunk, row = self.reader.find(numbers)
        found, counts = np.unique(of_chunk, return_counts=True)
        chunks = found.tolist()
        shape = self._shape_of(chunks)
        self._require_affordable(dict(zip(chunks, counts.tolist(), strict=True)))
        out = np.empty((len(numbers), *shape), np.uint8)
        refined: list[tuple[int, np.ndarray]] = []  # chunks, and where in `out` their images go
        for k in chunks:
            wanted = np.flatnonzero(of_chunk == k)
            modes = self._modes(k)
            if modes is not None:
                seen = preview & (modes[row[wanted]] == BASED)
                if not seen.all():
                    refined.append((k, wanted[~seen]))
                wanted = wanted[seen]
            if len(wanted):
                out[wanted] = self._levels(k, row[wanted], bill)
                progress(len(wanted))
        for (_, wanted), images in zip(
            refined, self._refined([k for k, _ in refined], bill), strict=True
        ):
            out[wanted] = images[row[wanted]]
            progress(len(wanted))
        return out

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of all images; raises DataError where sizes differ."""
        return self._shape_of(range(len(self.reader.entries)))

    def _shape_of(self, chunks: Iterable[int]) -> tuple[int, int, int]:
        h, w, channels = self.reader.header.image_shape
        sizes = list(dict.fromkeys(self.reader.size_of(k) or (h, w) for k in chunks))
        if len(sizes) > 1:
            some = ", ".join("{}x{}".format(*size) for size in sizes[:3])
            raise DataError(
                f"images of {len(sizes)} sizes ({some}{', ...' * (len(sizes) > 3)}), which fit no "
                "one array: decompress them into a folder, or read them one by one"
            )
        return (*(sizes[0] if sizes else (h, w)), channels)

    def _require_affordable(self, images: Mapping[int, int]) -> None:
        """Raises FormatError unless so many images of chunks may be decoded."""
        counts: Counter[Size | None] = Counter()
        for k, count in images.items():
            counts[self.reader.size_of(k)] += count
        self._decoder.require_affordable(counts, self.reader.allowed, self.reader.paid)

    def _all_affordable(self) -> None:
        self._require_affordable(dict(enumerate(np.diff(self.reader.starts).tolist())))

    def _read_all(self, progress: OnProgress, preview: bool) -> np.ndarray:
        shape = self.image_shape
        self._all_affordable()
        out = np.empty((len(self), *shape), np.uint8)
        at = 0
        for images in self.stream(preview=preview):
            out[at : at + len(images)] = images
            at += len(images)
            progress(len(images))
        return out

    def stream(self, *, preview: bool = False) -> Iterator[np.ndarray]:
        """All images in order, uint8 ``[n, H, W, C]``, a chunk at a time, each of one size: in
        memory that does not depend on their number.  Several chunks are decoded at once.

        preview, and what is raised: as for ``read``.
        """
        # All of the file is vouched for, whatever decodes it and whatever is asked for.
        _ = self.reader.model(), self.reader.names_of_chunks, self.reader.labels_of_chunks
        self._all_affordable()
        starts, bill = self.reader.starts, self._bill()
        chunks = range(len(self.reader.entries))
        for (refined, size), run in itertools.groupby(chunks, self._kind):
            if not refined:
                room = self._room(self._decoder.of_size(size))
                decode = functools.partial(self._decoder.levels_of, bill=bill)
                yield from mapped(decode, map(self.reader.chunk, run), at_once=room)
            elif preview:
                for k in run:
                    yield self._chosen(np.arange(*starts[k : k + 2]), bill, unwatched, True)
            else:
                yield from self._refined(list(run), bill)

    def _kind(self, k: int) -> tuple[bool, Size | None]:
        """Whether a chunk is refined, and the size of its images: chunks alike are decoded
        together."""
        chunk = self.reader.chunk(k)
        return chunk.refinement is not None, chunk.size

    @staticmethod
    def _room(decoder: FileDecoder) -> int | None:
        """How many chunks may be decoded at once; None: as many as there are cores for."""
        if decoder.cost is None:
            return None
        memory = decoder.cost.memory
        room = budget.ACTIVATIONS.always // (budget.at_once(memory) * memory)
        return min(max(room, 1), cores() + 1)

    def _modes(self, k: int) -> np.ndarray | None:
        """How the images of a chunk are coded, None if it is not refined."""
        refinement = self.reader.chunk(k).refinement
        return None if refinement is None else refinement.modes

    def _levels(self, k: int, rows: np.ndarray, bill: Bill) -> np.ndarray:
        """What the symbols of images of a chunk decode to; all of them must have some."""
        chunk, modes = self.reader.chunk(k), self._modes(k)
        symbols = self._symbols(k, bill)
        if modes is not None:
            rows = (np.cumsum(modes == BASED) - 1)[rows]
        levels = self._decoder.of(chunk).decode_symbols(symbols[rows], chunk.step)
        if np.array_equal(rows, np.arange(len(symbols))):
            chunk.check_pixels(levels)
        return levels

    def _refined(self, chunks: Sequence[int], bill: Bill) -> Iterator[np.ndarray]:
        """All images of refined chunks; the newest chunk is kept."""

        def with_base() -> Iterator[tuple[Chunk, np.ndarray]]:
            for k in chunks:
                chunk = self.reader.chunk(k)
                self._require_affordable({k: chunk.count})
                yield chunk, self._levels(k, np.flatnonzero(self._modes(k) == BASED), bill)

        if not chunks:  # what is kept may still be asked for
            return
        if len(chunks) == 1 and self._newest_refined and self._newest_refined[0] == chunks[0]:
            yield self._newest_refined[1]
            return
        self._newest_refined = None
        meter = self.reader.meter(budget.DISTRIBUTIONS)
        for k, images in zip(chunks, self._decoder.refined(with_base(), meter), strict=True):
            self._newest_refined = k, images
            yield images

    def names(self) -> list[str] | None:
        """All images' names, None where they were stored without."""
        return self.reader.names

    def labels(self) -> np.ndarray | None:
        """All images' labels, uint32 ``[N]``, None where they were stored without."""
        return self.reader.labels

    def _numbers(self, which: Sequence[int] | np.ndarray) -> np.ndarray:
        """Numbers of images as int64 ``[n]``; raises as ``read``."""
        if isinstance(which, range):  # as an array it could be larger than memory
            self.reader.allowed.require(budget.PIXELS, len(which), self.reader.paid)
        return whole_numbers(which, len(self))

    def _symbols(self, k: int, bill: Bill) -> np.ndarray:
        if self._newest is None or self._newest[0] != k:
            self._newest = None  # before memory is taken for others
            chunk = self.reader.chunk(k)
            bill.pay_size(chunk)
            tables = self._decoder.of(chunk).tables
            bill.pay_symbols(chunk, tables)
            self._newest = k, chunk.symbols(tables, self.reader.allowed)
        return self._newest[1]


def whole_numbers(which: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Numbers of images of a sequence of so many, as int64 ``[n]``; raises as ``Archive.read``."""
    numbers = np.asarray(which)
    if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and len(numbers)):
        raise TypeError(
            f"numbers of images must be a list of whole numbers, not {numbers.dtype} of shape "
            f"{numbers.shape}"
        )
    outside = (numbers < 0) | (numbers >= count)
    if outside.any():
        raise IndexError(f"image {numbers[outside][0]} of an archive of {count}")
    return numbers.astype(np.int64)


class Recovered(NamedTuple):
    """What a damaged archive still holds."""

    images: list[np.ndarray]  # of each chunk, uint8 [count, H, W, C]
    numbers: np.ndarray  # int64 [n], of all these images in the archive
    names: list[str | None]
    lost: list[tuple[int, int]]  # ranges of images, first and last, that are gone
    faults: list[str]


def recover(data: bytes, decoder: FileDecoder, allowed: Budget = budget.DEFAULT) -> Recovered:
    """Decodes every intact chunk of a damaged archive.

    Raises:
      FormatError: nothing can be recovered, or only at a cost that is not allowed.
      ModelMismatchError: it is another model's, or nothing is left but what another context model
        refined.
    """
    found = salvage(data)
    decoder.require(found.header)
    paid = len(data) - sum(map(len, found.models))
    faults = list(found.faults)
    chunks, counts = [], Counter[Size | None]()
    for chunk in found.chunks:
        try:  # what names an impossible size is lost, and the others are not
            if chunk.size is not None:
                decoder.require_affordable({chunk.size: chunk.count}, allowed, paid)
        except FormatError as error:
            faults.append(f"{chunk.where}: {error}")
            continue
        chunks.append(chunk)
        counts[chunk.size] += chunk.count
    decoder.require_affordable(counts, allowed, paid)
    images: list[np.ndarray] = []
    bill = Bill(allowed, paid)
    distributions = Meter(budget.DISTRIBUTIONS, allowed, paid)
    text = Meter(budget.TEXT, allowed, paid)
    mismatch: ModelMismatchError | None = None  # of a chunk: others may be the context model's
    names: list[str | None] = []
    ranges: list[tuple[int, int]] = []
    for chunk in chunks:
        try:
            named = unpack_names(chunk, text)
            levels = decoder.levels_of(chunk, bill)
            if chunk.refinement is not None:
                (levels,) = decoder.refined([(chunk, levels)], distributions)
        except (FormatError, ModelMismatchError) as error:
            faults.append(str(error))
            if isinstance(error, ModelMismatchError):
                mismatch = error
            continue
        images.append(levels)
        names += named or [None] * chunk.count
        ranges.append((chunk.first, chunk.count))
    if mismatch is not None and not ranges:
        raise mismatch
    numbers = [np.arange(first, first + count) for first, count in ranges]
    return Recovered(
        images,
        np.concatenate([np.zeros(0, np.int64), *numbers]),
        names,
        lost(ranges, found.images),
        faults,
    )
