"""Arrays of integers in few bytes: a histogram, and one ANS stream of all values.

Weights, biases and coding tables are stored like this.  The histogram is rough (each count has
three bits of mantissa), which costs about a thousandth of the stream; ``docs/FORMAT.md`` has the
arithmetic.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import constriction
import numpy as np

from cvae_jax.coding.integers.frequencies import TOTAL, ans_decoder, categorical
from cvae_jax.errors import FormatError

_HEADER = struct.Struct("<iHBI")  # lowest value, entries of the histogram, plain bits, words
MAX_ENTRIES = 1 << 15
MAX_PLAIN = 16
ALWAYS, PER_BYTE = 1 << 19, 8  # how many integers data may hold; of ours, a byte holds 1 to 2

Spend = Callable[[int], None]


def unlimited(integers: int) -> None:
    """The default: what is trusted may hold as many as its bytes allow."""


def pack(values: np.ndarray) -> bytes:
    """The bytes of an integer array, without its shape.

    Raises:
      ValueError: the values lie too far apart.
    """
    flat = np.ascontiguousarray(values, np.int64).ravel()
    low = int(flat.min()) if flat.size else 0
    # The lowest bits of widely spread values are nearly random, so they are stored plainly.
    candidates = (_packed(flat - low, low, plain) for plain in range(MAX_PLAIN + 1))
    best = min((packed for packed in candidates if packed), key=len, default=b"")
    if not best:
        raise ValueError(f"integers from {low} to {int(flat.max())} lie too far apart to pack")
    return best


def _packed(flat: np.ndarray, low: int, plain: int) -> bytes:
    """``pack`` with this many plain bits; empty if the histogram would be too long."""
    high = flat >> plain
    entries = int(high.max(initial=0)) + 1
    if entries > MAX_ENTRIES:
        return b""
    codes = _rough(np.bincount(high, minlength=entries))
    coder = constriction.stream.stack.AnsCoder()
    if plain:
        coder.encode_reverse((flat & (1 << plain) - 1).astype(np.int32), _uniform(plain))
    if entries > 1:
        coder.encode_reverse(high.astype(np.int32), categorical(_frequencies(codes)))
    words = coder.get_compressed().astype("<u4")
    return _HEADER.pack(low, entries, plain, len(words)) + codes.tobytes() + words.tobytes()


def unpack(data: bytes, at: int, count: int) -> tuple[np.ndarray, int]:
    """``count`` integers that begin at byte ``at``, ``[count]``, and where they end.

    They are int32 if the bytes can hold no larger ones, else int64.

    Raises:
      FormatError: these bytes do not hold that many packed integers.
    """
    try:
        low, entries, plain, words = _HEADER.unpack_from(data, at)
    except struct.error as error:
        raise FormatError("packed integers: shorter than their header") from error
    start = at + _HEADER.size
    end = start + entries + 4 * words
    if end > len(data) or not 1 <= entries <= MAX_ENTRIES or plain > MAX_PLAIN:
        raise FormatError("packed integers: sizes that contradict each other")
    codes = np.frombuffer(data, np.uint8, entries, start)
    stream = np.frombuffer(data, "<u4", words, start + entries).astype(np.uint32)
    coder = ans_decoder(stream, "packed integers: a stream")
    # There may be millions, so that one copy is made and changed in place.  -2**31 is left out: of
    # an int32, its size is none.
    narrow = low > -(1 << 31) and low + (entries << plain) <= 1 << 31
    values: np.ndarray = np.zeros(count, np.int32 if narrow else np.int64)
    if entries > 1:
        values += coder.decode(categorical(_frequencies(codes)), count)
    if plain:
        values <<= plain
        values += coder.decode(_uniform(plain), count)
    if not coder.is_empty():
        raise FormatError("packed integers: a stream with something left over")
    values += low
    return values, end


def header(
    layout: struct.Struct, data: bytes, magic: bytes, version: int, what: str
) -> tuple[Any, ...]:
    """The fields after magic and version of the header that packed integers follow.

    Raises:
      FormatError: the bytes are no ``what`` (a noun with its article), or of another version.
    """
    try:
        found, of_version, *fields = layout.unpack_from(data)
    except struct.error as error:
        raise FormatError(f"{what}: shorter than its header") from error
    if found != magic or of_version != version:
        raise FormatError(f"not {what}, or one of a newer version")
    return tuple(fields)


class Packed:
    """Unpacks consecutive arrays that ``pack`` made, from byte ``at`` of ``data``.

    Integers that are all the same take no bytes.  Their number is therefore bounded by the size of
    the data, so that a few bytes cannot claim any amount of memory.
    """

    def __init__(self, data: bytes, at: int, spend: Spend = unlimited):
        """spend: told the number of each array's integers before there is memory for them; raises
        FormatError if they are too many."""
        self._data, self._at, self._spend = data, at, spend
        self._left = ALWAYS + PER_BYTE * len(data)

    def take(self, *shape: int) -> np.ndarray:
        """The next array, int32 or int64; raises FormatError if it is damaged or too large."""
        count = math.prod(shape)
        self._left -= count
        if self._left < 0:
            raise FormatError(f"packed integers: {count} of them in {len(self._data)} bytes")
        self._spend(count)
        values, self._at = unpack(self._data, self._at, count)
        return values.reshape(shape)

    def end(self) -> None:
        """Raises FormatError if any bytes are left."""
        if self._at != len(self._data):
            raise FormatError("packed integers: followed by something else")


def _uniform(bits: int) -> object:
    return categorical(np.full(1 << bits, TOTAL >> bits))


def _rough(counts: np.ndarray) -> np.ndarray:
    """A byte for each count: that of the smallest weight not below the count."""
    codes = np.arange(256)
    return np.searchsorted(_weight(codes), np.maximum(counts, 1), side="left").astype(np.uint8)


def _weight(codes: np.ndarray) -> np.ndarray:
    """The weight that a byte of the histogram stands for: at least 1, increasing with the byte."""
    mantissa, exponent = codes.astype(np.int64) & 7, codes.astype(np.int64) >> 3
    return np.where(exponent == 0, mantissa + 1, (mantissa + 9) << np.maximum(exponent - 1, 0))


def _frequencies(codes: np.ndarray) -> np.ndarray:
    """Frequencies of at least 1, in proportion to the histogram, that add up to TOTAL."""
    sums = np.concatenate([[0], np.cumsum(_weight(codes))])
    total, room = int(sums[-1]), TOTAL - len(codes)
    # Python integers, which cannot overflow.
    scaled = [int(each) * room // total + i for i, each in enumerate(sums)]
    return np.diff(np.array(scaled, np.int64))
