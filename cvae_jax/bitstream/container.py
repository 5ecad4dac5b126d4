"""Reading archives: many images, chunk by chunk, with an index for random access."""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cvae_jax.bitstream import budget, records, single
from cvae_jax.bitstream.budget import Budget, Limit, Meter
from cvae_jax.bitstream.header import HEADER_SIZE, unpack_header
from cvae_jax.bitstream.records import CRC_SIZE, Chunk
from cvae_jax.config import Size
from cvae_jax.errors import FormatError

KEPT = 1 << 26  # bytes of chunks that a reader keeps
_NAME_ROOM = 64  # bytes that a name takes in memory beside its characters

COUNT = struct.Struct("<Q")
ENTRY = struct.Struct("<QII")


@dataclass(frozen=True)
class Entry:
    """A chunk as the index knows it."""

    offset: int  # of its section in the file
    length: int  # of the whole section
    count: int  # images


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
        if head.startswith(single.MAGICS):
            raise FormatError("it holds a single image, which decompress reads, and no archive")
        self.header, self.has_model = unpack_header(head)
        self.model_size = (
            records.section_length(self._read(HEADER_SIZE, 8)) if self.has_model else 0
        )
        self.index_offset, self.entries = self._index()
        self.starts = np.cumsum([0] + [entry.count for entry in self.entries])
        self._kept: dict[int, Chunk] = {}  # the one asked for last comes last
        self._kept_size = 0
        self._sizes: dict[int, Size | None] = {}  # of all chunks that were ever read

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

    def size_of(self, k: int) -> Size | None:
        """The size of the k-th chunk's images, None: the header's.  Raises as ``chunk``."""
        if k not in self._sizes:
            self.chunk(k)
        return self._sizes[k]

    def _read_chunk(self, k: int) -> Chunk:
        entry, first = self.entries[k], int(self.starts[k])
        try:
            chunk = records.unpack_chunk(self._section(entry.offset, entry.length, records.CHUNK))
            if (chunk.first, chunk.count) != (first, entry.count):
                raise FormatError("it is another chunk than the index says")
        except FormatError as error:
            last = first + entry.count - 1
            raise type(error)(
                f"chunk {k} (images {first} to {last}, byte {entry.offset}): {error}"
            ) from error
        self._sizes[k] = chunk.size
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

    @functools.cached_property
    def contexts(self) -> list[bytes]:
        """Digests of the context models that refined it, each once; of an honest file one at most.

        Raises:
          FormatError: a chunk is damaged.
        """
        chunks = (self.chunk(k) for k in range(len(self.entries)))
        return list(dict.fromkeys(c.refinement.model for c in chunks if c.refinement is not None))

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
        fixed = HEADER_SIZE + COUNT.size
        if len(body) < fixed or (len(body) - fixed) % ENTRY.size:
            raise FormatError("index: of an impossible size")
        if body[:HEADER_SIZE] != self._read(0, HEADER_SIZE):
            raise FormatError("index: it belongs to another header")
        entries = [Entry(*fields) for fields in ENTRY.iter_unpack(body[fixed:])]
        at = HEADER_SIZE + self.model_size
        for k, entry in enumerate(entries):
            room = entry.offset == at and entry.length > records.SECTION_ROOM
            if not room or not 1 <= entry.count <= records.MAX_CHUNK:
                raise FormatError(f"index: chunk {k} cannot be where it says, byte {entry.offset}")
            at += entry.length
        (images,) = COUNT.unpack_from(body, HEADER_SIZE)
        if at != offset or images != sum(entry.count for entry in entries):
            raise FormatError("index: it does not add up to the file")
        return offset, entries


def unpack_names(chunk: Chunk, meter: Meter) -> list[str] | None:
    """A chunk's names, if ``meter``, of budget.TEXT, lets them have the memory."""
    meter.spend(_NAME_ROOM * chunk.count)  # once too much is spent, nothing more is inflated
    joined = chunk.joined_names
    if joined is None:
        return None
    meter.spend(len(joined) * (1 if joined.isascii() else 4))
    return records.split_names(joined, chunk.count)
