"""Archives: many images, chunk by chunk, with an index for random access."""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cvae_jax.bitstream import budget, records, single
from cvae_jax.bitstream.budget import Budget, Limit, Meter
from cvae_jax.bitstream.header import HEADER_SIZE, Header, pack_header, unpack_header
from cvae_jax.bitstream.names import check_names
from cvae_jax.bitstream.records import CRC_SIZE, Chunk, Refinement
from cvae_jax.coding import entropy
from cvae_jax.coding.tables import Tables
from cvae_jax.errors import DataError, FormatError, ModelMismatchError

CHUNK_IMAGES = 4096  # where an archive is written here
KEPT = 1 << 26  # bytes of chunks that a reader keeps
_NAME_ROOM = 64  # bytes that a name takes in memory beside its characters

_COUNT = struct.Struct("<Q")
_ENTRY = struct.Struct("<QII")

Labels = Sequence[int] | np.ndarray  # one for each image, 0 to 2**32 - 1


@dataclass(frozen=True)
class Entry:
    """A chunk as the index knows it."""

    offset: int  # of its section in the file
    length: int  # of the whole section
    count: int  # images


class Writer:
    """Writes an archive to a file object, chunk by chunk; ``finish`` makes it complete.

    Whatever a reader would refuse is refused before it is written.
    """

    def __init__(self, file: BinaryIO, header: Header, model: bytes | None = None):
        """model: what decodes the archive, kept with it; opaque here."""
        self._file, self._header = file, header
        self._packed = pack_header(header, model is not None)
        self._entries: list[Entry] = []
        self._batches: list[list[str]] = []  # names, as they came
        self._images = 0
        self._at = 0
        self._write(self._packed)
        if model is not None:
            self._section(records.MODEL, model)

    def add(
        self,
        symbols: np.ndarray,
        step: int,
        tables: Tables,
        levels: np.ndarray,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
    ) -> None:
        """Appends images: int32 ``[N, D]`` symbols, and N names and labels where given.

        levels: what the symbols decode to, uint8 ``[N, H, W, C]``; the file vouches for it.

        Raises:
          DataError: symbols of another shape, or a name or a label that cannot be stored.
        """
        n = len(symbols)
        self._check(symbols, tables, levels)
        numbers = self._checked_extras(n, names, labels)
        for start in range(0, n, CHUNK_IMAGES):
            part = slice(start, min(start + CHUNK_IMAGES, n))
            self._chunk(
                _chunk(
                    self._images, part.stop - start, step, tables, symbols[part], levels[part],
                    None if names is None else names[part],
                    None if numbers is None else numbers[part],
                )
            )  # fmt: skip

    def add_refined(
        self,
        symbols: np.ndarray,
        step: int,
        tables: Tables,
        levels: np.ndarray,
        refinement: Refinement,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
    ) -> None:
        """Appends one chunk of refined images, at most MAX_CHUNK.

        symbols, levels: of the images whose mode is BASED, as in ``add``; raises as that.
        """
        self._check(symbols, tables, levels)
        n = len(refinement.modes)
        numbers = self._checked_extras(n, names, labels)
        chunk = _chunk(self._images, n, step, tables, symbols, levels, names, numbers)
        self._chunk(dataclasses.replace(chunk, refinement=refinement))

    def _check(self, symbols: np.ndarray, tables: Tables, levels: np.ndarray) -> None:
        n, d = len(symbols), self._header.latent_dim
        if symbols.shape != (n, d) or tables.latent_dim != d:
            raise DataError(f"symbols of shape {symbols.shape} for a model of {d} latents")
        if levels.shape != (n, *self._header.image_shape):
            raise DataError(f"{n} images that decode to shape {levels.shape}")

    def _checked_extras(
        self, n: int, names: Sequence[str] | None, labels: Labels | None
    ) -> np.ndarray | None:
        """Checks names and labels; returns labels as uint32 ``[n]``."""
        numbers = None if labels is None else checked_labels(labels, n)
        if names is not None:
            if len(names) != n:
                raise DataError(f"{len(names)} names for {n} images")
            self._take_names(names)
        return numbers

    def copy(self, archive: Reader) -> None:
        """Appends all images of another archive of the same model, as they are.

        Raises:
          ModelMismatchError: it is of another model.
          DataError: it has names that cannot be unpacked.
          FormatError: it is damaged.
        """
        for name, other, ours in archive.header.identity.differences(self._header.identity):
            raise ModelMismatchError(
                "archives of different models cannot be joined: "
                f"this one is of {name} {other}, the first of {ours}"
            )
        self._take_names([name for names in archive.names_of_chunks for name in names or ()])
        for k in range(len(archive.entries)):
            self._chunk(dataclasses.replace(archive.chunk(k), first=self._images))

    def _take_names(self, names: Sequence[str]) -> None:
        records.pack_names(names)  # says which cannot be stored at all
        _check_names(names)
        self._batches.append(list(names))

    def finish(self) -> None:
        """Writes the index, which makes the archive complete.

        Raises:
          DataError: names that came one by one cannot be together.
        """
        if len(self._batches) > 1:
            _check_names([name for names in self._batches for name in names])
        offset = self._at
        entries = b"".join(_ENTRY.pack(e.offset, e.length, e.count) for e in self._entries)
        self._section(records.INDEX, self._packed + _COUNT.pack(self._images) + entries)
        self._write(records.pack_footer(offset))

    def _chunk(self, chunk: Chunk) -> None:
        offset = self._at
        self._section(records.CHUNK, records.pack_chunk(chunk))
        self._entries.append(Entry(offset, self._at - offset, chunk.count))
        self._images += chunk.count

    def _section(self, tag: bytes, body: bytes) -> None:
        self._write(records.pack_section(tag, body))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._at += len(data)


class Reader:
    """An archive, open for reading.

    Opening reads the header and the index; ``chunk`` reads one chunk and nothing else.  Chunks
    are kept, the newest KEPT bytes of them, so that none is read twice for its several contents.
    """

    def __init__(self, file: BinaryIO, allowed: Budget = budget.DEFAULT):
        """file: seekable.

        Raises:
          FormatError: no archive, or a damaged one.
          VersionError: one of a newer format.
        """
        self._file, self.allowed = file, allowed
        self.size = file.seek(0, io.SEEK_END)
        head = self._read(0, min(HEADER_SIZE, self.size))
        if head.startswith((single.MAGIC, single.REFINED_MAGIC)):
            raise FormatError("it holds a single image, which decompress reads, and no archive")
        self.header, self.has_model = unpack_header(head)
        self.model_size = (
            records.section_length(self._read(HEADER_SIZE, 8)) if self.has_model else 0
        )
        self.index_offset, self.entries = self._index()
        self.starts = np.cumsum([0] + [entry.count for entry in self.entries])
        self._kept: dict[int, Chunk] = {}  # the one asked for last comes last
        self._kept_size = 0

    def __len__(self) -> int:
        """Number of images."""
        return int(self.starts[-1])

    @property
    def paid(self) -> int:
        """Bytes of the file that its budget counts: all but the model."""
        return self.size - self.model_size

    @property
    def is_model_file(self) -> bool:
        """Whether it carries a model and no images."""
        return self.has_model and not len(self)

    def meter(self, limit: Limit) -> Meter:
        return Meter(limit, self.allowed, self.paid)

    def model(self) -> bytes | None:
        """The embedded model, opaque here; None if there is none.

        Raises:
          FormatError: it is damaged.
        """
        return self._embedded if self.has_model else None

    @functools.cached_property
    def _embedded(self) -> bytes:
        return self._section(HEADER_SIZE, self.model_size, records.MODEL)

    def find(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of images' chunks, and their places in there: ``[n]`` -> two ``[n]``."""
        k = np.searchsorted(self.starts, images, side="right") - 1
        return k, images - self.starts[k]

    def chunk(self, k: int) -> Chunk:
        """Reads the k-th chunk and checks its bytes, unless it is kept.

        Raises:
          FormatError: it is damaged.
        """
        chunk = self._kept.pop(k, None)
        if chunk is None:
            chunk = self._read_chunk(k)
            self._kept_size += self.entries[k].length
        self._kept[k] = chunk
        while self._kept_size > KEPT and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._kept_size -= self.entries[oldest].length
        return chunk

    def _read_chunk(self, k: int) -> Chunk:
        entry, first = self.entries[k], int(self.starts[k])
        try:
            chunk = records.unpack_chunk(self._section(entry.offset, entry.length, records.CHUNK))
            if (chunk.first, chunk.count) != (first, entry.count):
                raise FormatError("it is another chunk than the index says")
        except FormatError as error:
            last = first + entry.count - 1
            raise FormatError(
                f"chunk {k} (images {first} to {last}, byte {entry.offset}): {error}"
            ) from error
        return chunk

    @functools.cached_property
    def names_of_chunks(self) -> list[list[str] | None]:
        """The names of each chunk's images, None for one that was stored without.

        Raises:
          FormatError: they are damaged, or more than the budget allows.
        """
        meter = self.meter(budget.TEXT)
        return [unpack_names(self.chunk(k), meter) for k in range(len(self.entries))]

    @functools.cached_property
    def labels_of_chunks(self) -> list[np.ndarray | None]:
        """The labels of each chunk's images, as ``names_of_chunks``: uint32 ``[count]``."""
        self.allowed.require(budget.TEXT, 4 * len(self), self.paid)
        return [self.chunk(k).labels for k in range(len(self.entries))]

    @property
    def names(self) -> list[str] | None:
        """All images' names, None if any was stored without; raises as ``names_of_chunks``."""
        found: list[str] = []
        for names in self.names_of_chunks:
            if names is None:
                return None
            found += names
        return found or None

    @property
    def labels(self) -> np.ndarray | None:
        """All images' labels, uint32 ``[N]``, as ``names``."""
        found = [labels for labels in self.labels_of_chunks if labels is not None]
        return np.concatenate(found) if found and len(found) == len(self.entries) else None

    def ledger(self) -> dict[str, int]:
        """Bytes of the file by what they are for; they add up to its size."""
        kinds = ("header", "index", "checks", "names", "labels", "streams", "refinements")
        spent, refined = dict.fromkeys(kinds, 0), 0
        for k in range(len(self.entries)):
            chunk = self.chunk(k)
            spent["names"] += chunk.names_size
            spent["labels"] += chunk.labels_size
            spent["streams"] += len(chunk.stream)
            if chunk.refinement is not None:
                spent["refinements"] += len(chunk.refinement.stream)
                refined += 1
        sections = len(self.entries) + 1
        # Of the header twice (the index repeats it), of each section, of each chunk's symbols and
        # pixels, of refined images, of the footer.  The model's section counts whole: it is what
        # embedding adds.
        spent["checks"] = CRC_SIZE * (2 + sections + 2 * len(self.entries) + refined + 1)
        spent["model"] = self.model_size
        spent["index"] = self.size - self.index_offset - 3 * CRC_SIZE
        spent["header"] = self.size - sum(spent.values())
        return spent

    def _read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size:
            raise FormatError(f"truncated: {self.size} bytes, expected {offset + length} or more")
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise FormatError(f"truncated at byte {offset + len(data)} while it was read")
        return data

    def _section(self, offset: int, length: int, tag: bytes) -> bytes:
        return records.unpack_section(self._read(offset, length), tag)

    def _index(self) -> tuple[int, list[Entry]]:
        footer = self._read(max(self.size - records.FOOTER_SIZE, 0), records.FOOTER_SIZE)
        offset = records.unpack_footer(footer)
        length = self.size - records.FOOTER_SIZE - offset
        body = self._section(offset, length, records.INDEX)
        fixed = HEADER_SIZE + _COUNT.size
        if len(body) < fixed or (len(body) - fixed) % _ENTRY.size:
            raise FormatError("index: of an impossible size")
        if body[:HEADER_SIZE] != self._read(0, HEADER_SIZE):
            raise FormatError("index: it belongs to another header")
        entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(body[fixed:])]
        at = HEADER_SIZE + self.model_size
        for k, entry in enumerate(entries):
            room = entry.offset == at and entry.length > records.SECTION_ROOM
            if not room or not 1 <= entry.count <= records.MAX_CHUNK:
                raise FormatError(f"index: chunk {k} cannot be where it says, byte {entry.offset}")
            at += entry.length
        (images,) = _COUNT.unpack_from(body, HEADER_SIZE)
        if at != offset or images != sum(entry.count for entry in entries):
            raise FormatError("index: it does not add up to the file")
        return offset, entries


def _chunk(
    first: int,
    count: int,
    step: int,
    tables: Tables,
    symbols: np.ndarray,
    levels: np.ndarray,
    names: Sequence[str] | None,
    labels: np.ndarray | None,
) -> Chunk:
    return Chunk(
        first=first,
        count=count,
        step=step,
        symbol_crc=records.crc32c(records.symbol_bytes(symbols)),
        pixel_crc=records.crc32c(records.pixel_bytes(levels)),
        packed_names=None if names is None else records.pack_names(names),
        packed_labels=None if labels is None else records.pack_labels(labels),
        stream=entropy.encode(symbols, tables.book(step)),
    )


def _check_names(names: Sequence[str]) -> None:
    """``check_names`` of what is given to be written: no damaged file, but data at fault."""
    try:
        check_names(names)
    except FormatError as error:
        raise DataError(str(error)) from error


def unpack_names(chunk: Chunk, meter: Meter) -> list[str] | None:
    """A chunk's names, if ``meter``, of budget.TEXT, lets them have the memory."""
    meter.spend(_NAME_ROOM * chunk.count)  # once too much is spent, nothing more is inflated
    joined = chunk.joined_names
    if joined is None:
        return None
    meter.spend(len(joined) * (1 if joined.isascii() else 4))
    return records.split_names(joined, chunk.count)


def checked_labels(labels: Labels, n: int) -> np.ndarray:
    """Labels as uint32 ``[n]``, a copy; raises DataError for what a file cannot hold."""
    try:
        numbers = np.asarray(labels)
    except ValueError as error:
        raise DataError(f"labels must be one whole number for each image ({error})") from error
    if numbers.ndim != 1:
        raise DataError(f"labels of shape {numbers.shape}; expected one for each of {n} images")
    if len(numbers) != n:
        raise DataError(f"{len(numbers)} labels for {n} images")
    low, high = (numbers.min(), numbers.max()) if numbers.dtype.kind in "iu" and n else (0, 0)
    if (numbers.dtype.kind not in "iu" and n) or not 0 <= low <= high < 1 << 32:
        raise DataError("labels must be whole numbers from 0 to 4294967295")
    return numbers.astype(np.uint32)
