"""What all frequencies have in common: their total, and what codes by them.

Many images share an ANS stream (Duda 2013), by the library constriction.  A single image is coded
by exact arithmetic coding (Rissanen 1976), which ends on a byte.
"""

from __future__ import annotations

import constriction
import numpy as np

from cvae_jax.errors import FormatError

PRECISION = 24
TOTAL = 1 << PRECISION  # every table's frequencies add up to this


BYTE_FREQUENCY = TOTAL // 256

# Takes the weights of each symbol's own distribution, ``[n, symbols]``.
EACH_ITS_OWN = constriction.stream.model.Categorical(perfect=False)


def weights_of(frequencies: np.ndarray) -> np.ndarray:
    """What constriction makes exactly these frequencies of (at least 1 each, sum TOTAL): float64.

    Its rule is floor(sum of the weights so far * scale) + one for each symbol, where scale
    brings the weights to TOTAL less the number of symbols.  With each frequency less one as its
    weight, the scale is 1 and all numbers are small integers, which float64 holds exactly.
    """
    return frequencies.astype(np.float64) - 1


def categorical(frequencies: np.ndarray) -> object:
    """A constriction model of exactly these frequencies, as for ``weights_of``."""
    return constriction.stream.model.Categorical(weights_of(frequencies), perfect=False)


def ans_words(stream: bytes, what: str) -> np.ndarray:
    """The words of an ANS stream, uint32; raises FormatError, naming ``what``, if it has no whole
    number of them."""
    if len(stream) % 4:
        raise FormatError(f"{what} of {len(stream)} bytes; expected a multiple of 4")
    return np.frombuffer(stream, "<u4").astype(np.uint32)


def ans_decoder(words: np.ndarray, what: str) -> constriction.stream.stack.AnsCoder:
    """Reads from words, uint32; raises FormatError, naming ``what``, if no encoder ends so."""
    try:
        return constriction.stream.stack.AnsCoder(words)
    except ValueError as error:
        raise FormatError(f"{what} that ends in zeros") from error


BYTE = categorical(np.full(256, BYTE_FREQUENCY))
# Of two symbols, the first or the last has all but 1 of TOTAL.
_FIRST, _LAST = (categorical(np.array(two)) for two in ([TOTAL - 1, 1], [1, TOTAL - 1]))


def push(
    coder: constriction.stream.stack.AnsCoder, start: np.ndarray, frequency: np.ndarray
) -> None:
    """Pushes symbols of given sums below and frequencies, float64 ``[n]``, the last one first.

    frequency: below TOTAL each.
    """
    # One of two, where the other has a frequency of 1 and cannot be parted; else one of three.
    nearly_sure = np.where(frequency == TOTAL - 1, 1 + start, 0)
    changes = np.flatnonzero(np.diff(nearly_sure)) + 1
    for part in reversed(np.split(np.arange(len(start)), changes)):
        kind = nearly_sure[part[0]] if len(part) else 0
        if kind:
            symbol = np.full(len(part), kind - 1, np.int32)
            coder.encode_reverse(symbol, _FIRST if kind == 1 else _LAST)
        else:
            _push_one_of_three(coder, start[part], frequency[part])


def _push_one_of_three(
    coder: constriction.stream.stack.AnsCoder, start: np.ndarray, frequency: np.ndarray
) -> None:
    """What is below each symbol, itself, and what is above; none of the three may be empty, so that
    two are where one would."""
    below, above = start, TOTAL - start - frequency
    symbol = np.where(below == 0, 0, np.where(above == 0, 2, 1))
    columns = [
        np.where(symbol == 0, frequency, np.where(symbol == 2, below - 1, below)),
        np.where(symbol == 0, 1, np.where(symbol == 2, 1, frequency)),
        np.where(symbol == 0, above - 1, np.where(symbol == 2, frequency, above)),
    ]
    weights = weights_of(np.stack(columns, axis=1))
    coder.encode_reverse(symbol.astype(np.int32), EACH_ITS_OWN, weights)


class ArithmeticEncoder:
    """An interval in [0, 1) that every symbol narrows."""

    def __init__(self) -> None:
        self._low, self._width, self._scale = 0, 1, 0  # [low, low + width) / 2**scale

    def add(self, start: int, stop: int) -> None:
        """A symbol of these sums, below it and with it."""
        self._low = (self._low << PRECISION) + self._width * start
        self._width *= stop - start
        self._scale += PRECISION

    def add_byte(self, byte: int) -> None:
        """A byte of an escape."""
        self.add(byte * BYTE_FREQUENCY, (byte + 1) * BYTE_FREQUENCY)

    def to_bytes(self) -> bytes:
        """The fewest bytes of a number in the interval, and of those the lowest."""
        # The first multiple of 2**-8n in the interval, for the smallest n for which there is one.
        for n in range(self._scale // 8 + 1):
            value = -(-self._low >> (self._scale - 8 * n))
            if value << (self._scale - 8 * n) < self._low + self._width:
                return value.to_bytes(n, "big")
        raise AssertionError("the interval holds its own lower end")


class ArithmeticDecoder:
    """The inverse: a number's place in an interval that every symbol narrows."""

    def __init__(self, data: bytes):
        # As a fraction in [0, 1).
        self._position, self._width = int.from_bytes(data, "big"), 1 << 8 * len(data)

    def slot(self) -> int:
        """Below TOTAL; the next symbol's sums are around it."""
        return (self._position << PRECISION) // self._width

    def take(self, start: int, stop: int) -> None:
        """Goes on behind a symbol of these sums."""
        self._position = (self._position << PRECISION) - start * self._width
        self._width *= stop - start

    def byte(self) -> int:
        """The next byte of an escape."""
        byte = self.slot() // BYTE_FREQUENCY
        self.take(byte * BYTE_FREQUENCY, (byte + 1) * BYTE_FREQUENCY)
        return byte
