"""The records of the format, packed and unpacked: sections, chunks, checksums.

Everything that is read is checked against fixed limits before memory is taken for it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c
import numpy as np

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.budget import Budget
from cvae_jax.coding import streams
from cvae_jax.coding.streams import CodingTables
from cvae_jax.config import Size
from cvae_jax.errors import DataError, FormatError, VersionError

MAX_CHUNK = 8192  # images
MAX_IMAGES = 1 << 63  # of an archive
MAX_NAME = 1024  # bytes of UTF-8
MAX_ERROR = 63  # grey levels of a refined image's pixel
SPOT = 64  # images whose pixels a spot check is of: the first of a chunk
MODEL, CHUNK, INDEX = b"MODL", b"CHNK", b"INDX"  # tags of sections

FOOTER_SIZE = 16

_SECTION = struct.Struct("<4sI")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<QIHBIIII")
_SIZE = struct.Struct("<2H")
_REFINEMENT = struct.Struct("<B16sIII")
_FOOTER = struct.Struct("<QI4s")
_FOOTER_MAGIC = b"CVAZ"
_HAS_NAMES, _HAS_LABELS, _IS_REFINED, _SPOT_CHECK, _HAS_SIZE = 1, 2, 4, 8, 16
RAW, ALONE, BASED = 0, 1, 2  # how an image of a refined chunk is coded; only the last has symbols

CRC_SIZE = _CRC.size
SIZE_ROOM = _SIZE.size
SECTION_ROOM = _SECTION.size + CRC_SIZE  # of a section around its body


class Refinement(NamedTuple):
    """What makes a chunk's images of what its symbols decode to, its *base*."""

    max_error: int  # of any pixel of any image, in grey levels
    model: bytes  # 16, digest of the context model
    pixel_crc: int  # of the images
    modes: np.ndarray  # uint8 [count]: RAW, ALONE or BASED
    stream: bytes


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk as it is stored, its bytes checked, nothing unpacked before it is asked for."""

    first: int  # number of its first image in the archive
    count: int
    step: int  # of the quantiser, in units of the tables
    symbol_crc: int
    pixel_crc: int
    packed_names: bytes | None
    packed_labels: bytes | None
    stream: bytes
    refinement: Refinement | None = None
    spot: bool = False  # whether ``pixel_crc`` is of the first SPOT images with symbols alone
    size: Size | None = None  # height and width of its images where they are not the header's

    @property
    def based(self) -> int:
        """How many of its images have symbols."""
        return (
            self.count if self.refinement is None else int((self.refinement.modes == BASED).sum())
        )

    @property
    def names(self) -> list[str] | None:
        """Unpacked anew at each call.  Raises FormatError if they cannot be."""
        joined = self.joined_names
        return None if joined is None else split_names(joined, self.count)

    @property
    def joined_names(self) -> bytes | None:
        """What ``split_names`` takes; raises as ``names``."""
        if self.packed_names is None:
            return None
        return _inflate(self.packed_names, self.count * (MAX_NAME + 1), "names")

    @property
    def labels(self) -> np.ndarray | None:
        """uint32 ``[count]``, as ``names``."""
        if self.packed_labels is None:
            return None
        return unpack_labels(self.packed_labels, self.count)

    @property
    def names_size(self) -> int:
        return len(self.packed_names or b"")

    @property
    def labels_size(self) -> int:
        return len(self.packed_labels or b"")

    def work(self, tables: CodingTables) -> int:
        """What ``symbols`` takes, in lookups (``budget``)."""
        return streams.work(self.based, tables, self.step)

    def turns(self, tables: CodingTables) -> int:
        """The same in turns of a map's prior."""
        return streams.turns(tables) if self.based else 0

    def symbols(self, tables: CodingTables, allowed: Budget = budget.DEFAULT) -> np.ndarray:
        """The symbols of the images that have any, int32 ``[based, D]``.

        Raises:
          FormatError: they are not what was compressed, or more than is allowed.
        """
        try:
            allowed.require(budget.SYMBOLS, self.based * streams.room(tables), len(self.stream))
            allowed.require(budget.LOOKUPS, self.work(tables), len(self.stream))
            symbols = streams.decode(self.stream, self.based, tables, self.step)
        except FormatError as error:
            raise type(error)(f"{self.where}: {error}") from error
        if crc32c(symbol_bytes(symbols)) != self.symbol_crc:
            raise FormatError(f"{self.where}: its symbols are not those that were compressed")
        return symbols

    def check_pixels(self, levels: np.ndarray) -> None:
        """Raises FormatError unless this is what all symbols decode to, ``[based, H, W, C]``.

        Of a spot check, the first SPOT of them are compared.
        """
        self._check(levels[:SPOT] if self.spot else levels, self.pixel_crc)

    def check_refined(self, images: np.ndarray) -> None:
        """Raises FormatError unless these are the images that were compressed, ``[count, ...]``."""
        assert self.refinement is not None
        self._check(images, self.refinement.pixel_crc)

    def _check(self, levels: np.ndarray, crc: int) -> None:
        if crc32c(pixel_bytes(levels)) != crc:
            raise FormatError(
                f"{self.where}: its images decode to other pixels than when they were compressed"
            )

    @property
    def where(self) -> str:
        """For messages."""
        return f"chunk of images {self.first} to {self.first + self.count - 1}"


# Sections, and what follows the last one


def pack_footer(offset: int) -> bytes:
    """The end of an archive; offset: of its index."""
    packed = struct.pack("<Q", offset)
    return packed + pack_crc(packed) + _FOOTER_MAGIC


def unpack_footer(data: bytes) -> int:
    """The inverse of ``pack_footer``.  Raises FormatError if these bytes are none."""
    if len(data) == FOOTER_SIZE:
        offset, crc, magic = _FOOTER.unpack(data)
        if magic == _FOOTER_MAGIC and crc32c(data[:8]) == crc:
            return int(offset)
    raise FormatError("truncated or damaged: its last bytes are not an archive's end")


def pack_section(tag: bytes, body: bytes) -> bytes:
    section = _SECTION.pack(tag, len(body)) + body
    return section + pack_crc(section)


def section_length(data: bytes) -> int:
    """Bytes of the whole section that starts with these 8, if nothing is damaged."""
    return _SECTION.unpack(data)[1] + SECTION_ROOM


def unpack_section(data: bytes, tag: bytes) -> bytes:
    """The body of a section, its check and its length verified."""
    name = tag.decode()
    if len(data) < SECTION_ROOM:
        raise FormatError(f"{name} section: of {len(data)} bytes, too short")
    found, length = _SECTION.unpack_from(data)
    if pack_crc(data[:-CRC_SIZE]) != data[-CRC_SIZE:]:
        raise FormatError(f"{name} section: damaged (its check does not match)")
    if found != tag or length != len(data) - SECTION_ROOM:
        raise FormatError(f"{name} section: not where it should be")
    return data[_SECTION.size : -CRC_SIZE]


# Chunks


def pack_chunk(chunk: Chunk) -> bytes:
    names, labels = chunk.packed_names, chunk.packed_labels
    flags = _HAS_NAMES * (names is not None) | _HAS_LABELS * (labels is not None)
    flags |= _IS_REFINED * (chunk.refinement is not None) | _SPOT_CHECK * chunk.spot
    flags |= _HAS_SIZE * (chunk.size is not None)
    head = _CHUNK.pack(
        *(chunk.first, chunk.count, chunk.step, flags),
        *(chunk.symbol_crc, chunk.pixel_crc, chunk.names_size, chunk.labels_size),
    )
    size = b"" if chunk.size is None else pack_size(chunk.size)
    refinement = _pack_refinement(chunk.refinement) if chunk.refinement else b""
    return head + (names or b"") + (labels or b"") + size + refinement + chunk.stream


def unpack_chunk(body: bytes) -> Chunk:
    if len(body) < _CHUNK.size:
        raise FormatError("shorter than its header")
    first, count, step, flags, symbols, pixels, names_size, labels_size = _CHUNK.unpack_from(body)
    start = _CHUNK.size + names_size
    if not 1 <= count <= MAX_CHUNK or step < 1 or start + labels_size > len(body):
        raise FormatError("an impossible header")
    if first + count > MAX_IMAGES:
        raise FormatError(f"an impossible header: its first image is number {first}")
    if flags & ~(_HAS_NAMES | _HAS_LABELS | _IS_REFINED | _SPOT_CHECK | _HAS_SIZE):
        raise VersionError("it uses features that this program does not know: update it")
    if (names_size and not flags & _HAS_NAMES) or (labels_size and not flags & _HAS_LABELS):
        raise FormatError("an impossible header")
    names = body[_CHUNK.size : start] if flags & _HAS_NAMES else None
    labels = body[start : start + labels_size] if flags & _HAS_LABELS else None
    rest = body[start + labels_size :]
    refinement, size = None, None
    if flags & _HAS_SIZE:
        if flags & _IS_REFINED:
            raise FormatError("refined images of another size than the header's")
        size, rest = unpack_size(rest)
    if flags & _IS_REFINED:
        refinement, rest = _unpack_refinement(rest, count)
    spot = bool(flags & _SPOT_CHECK)
    return Chunk(first, count, step, symbols, pixels, names, labels, rest, refinement, spot, size)


def pack_size(size: Size) -> bytes:
    """Raises DataError for a size that no file holds."""
    if not all(1 <= n < 1 << 16 for n in size):
        raise DataError(f"images of {size[0]}x{size[1]}; from 1 to 65535 fit a file, each way")
    return _SIZE.pack(*size)


def unpack_size(data: bytes) -> tuple[Size, bytes]:
    """A size, and what follows it."""
    if len(data) < _SIZE.size:
        raise FormatError("shorter than the size of its images")
    h, w = _SIZE.unpack_from(data)
    if not h or not w:
        raise FormatError(f"images of {h}x{w}")
    return (h, w), data[_SIZE.size :]


def _pack_refinement(refinement: Refinement) -> bytes:
    error, model, crc, modes, stream = refinement
    packed = zlib.compress(modes.tobytes(), 9)
    return _REFINEMENT.pack(error, model, crc, len(packed), len(stream)) + packed + stream


def _unpack_refinement(data: bytes, count: int) -> tuple[Refinement, bytes]:
    """A refinement, and what follows it."""
    if len(data) < _REFINEMENT.size:
        raise FormatError("a refinement shorter than its header")
    max_error, model, crc, modes_size, stream_size = _REFINEMENT.unpack_from(data)
    start = _REFINEMENT.size + modes_size
    end = start + stream_size
    if max_error > MAX_ERROR or end > len(data):
        raise FormatError("a refinement with an impossible header")
    modes = np.frombuffer(_inflate(data[_REFINEMENT.size : start], count, "modes"), np.uint8)
    if len(modes) != count or modes.max() > BASED:
        raise FormatError(f"a refinement that does not say how {count} images are coded")
    return Refinement(max_error, model, crc, modes, data[start:end]), data[end:]


# Names and labels


def pack_names(names: Sequence[str]) -> bytes:
    """Raises DataError for a name that cannot be stored."""
    return zlib.compress(join_names(names), 9)


def join_names(names: Sequence[str]) -> bytes:
    """What ``split_names`` takes; raises as ``pack_names``."""
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"a name must be text, not {type(name).__name__}")
        if not name or "\0" in name or len(name.encode(errors="replace")) > MAX_NAME:
            raise DataError(f"cannot store the name {name[:40]!r}: empty, with NUL, or too long")
    try:
        return "\0".join(names).encode()
    except UnicodeEncodeError as error:
        wrong = next(name for name in names if name.encode(errors="ignore").decode() != name)
        raise DataError(f"cannot store the name {wrong[:40]!r}: it is not Unicode") from error


def split_names(joined: bytes, count: int) -> list[str]:
    try:
        names = [name.decode() for name in joined.split(b"\0", count)]
    except UnicodeDecodeError as error:
        raise FormatError("names: not UTF-8") from error
    if len(names) != count or not all(names):
        raise FormatError(f"names: not {count} of them, as there are images, or an empty one")
    return names


def pack_labels(labels: np.ndarray) -> bytes:
    return zlib.compress(labels.astype("<u4").tobytes(), 9)


def unpack_labels(data: bytes, count: int) -> np.ndarray:
    unpacked = _inflate(data, 4 * count, "labels")
    if len(unpacked) != 4 * count:
        raise FormatError(f"labels: {len(unpacked)} bytes for {count} images")
    return np.frombuffer(unpacked, "<u4").astype(np.uint32)


def _inflate(data: bytes, limit: int, what: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise FormatError(f"{what}: damaged ({error})") from error
    if len(out) > limit or not inflater.eof or inflater.unused_data:
        raise FormatError(f"{what}: longer or shorter than they can be")
    return out


# Checks


def pack_crc(data: bytes) -> bytes:
    return _CRC.pack(crc32c(data))


def crc32c(data: bytes, before: int = 0) -> int:
    """before: the check of what comes before this."""
    return google_crc32c.extend(before, data)


def pixel_bytes(levels: np.ndarray) -> bytes:
    """The pixels, uint8, as their check sees them."""
    return levels.astype(np.uint8, casting="no", copy=False).tobytes()


def symbol_bytes(symbols: np.ndarray) -> bytes:
    """The symbols as their check sees them."""
    return symbols.astype("<i4", copy=False).tobytes()
