"""Integer symbols to bytes and back, with the integer arithmetic of ``tables``.

Many images share one ANS stream (Duda 2013), encoded here and decoded by the library constriction,
except for rows too long to be built for it.  A single image is coded by exact arithmetic coding
(Rissanen 1976), which ends on a byte.
"""

from __future__ import annotations

import numpy as np

from cvae_jax.coding import escapes
from cvae_jax.coding.frequencies import PRECISION, TOTAL, ans_decoder, ans_words, categorical
from cvae_jax.coding.tables import Book
from cvae_jax.errors import FormatError

_BYTE_FREQUENCY = TOTAL // 256
_BYTE = categorical(np.full(256, _BYTE_FREQUENCY))
_WORD = 32  # bits; the state is two words


# Many images, one stream


def encode(symbols: np.ndarray, book: Book) -> bytes:
    """The stream of int32 ``[N, D]`` symbols, a multiple of 4 bytes."""
    component = book.tables.assign(symbols, book.step)
    order, *_ = _grouped(component)
    rows, index = book.index(symbols[order], component[order])
    starts = book.cumulative(rows, index)
    frequencies = book.cumulative(rows, index + 1) - starts
    escaped = escapes.write(symbols[order], index, book.first[rows], book.count[rows])
    # A stack: what comes out first goes in last.
    stack = _Stack()
    stack.push(np.frombuffer(escaped, np.uint8).astype(np.int64) * _BYTE_FREQUENCY, _BYTE_FREQUENCY)
    for dimension in reversed(range(symbols.shape[1])):
        stack.push(starts[:, dimension], frequencies[:, dimension])
    if book.tables.components > 1:
        stack.push(_sums(book.tables.weights)[component], book.tables.weights[component])
    return stack.to_bytes()


class _Stack:
    """An ANS encoder: a state of at most 64 bits, and the words that it has pushed out."""

    def __init__(self) -> None:
        self._state = 0
        self._words: list[int] = []

    def push(self, starts: np.ndarray, frequencies: np.ndarray | int) -> None:
        """Pushes symbols, last one first, given the sums below them and their frequencies."""
        state, words = self._state, self._words
        pairs = zip(
            starts[::-1].tolist(),
            np.broadcast_to(frequencies, starts.shape)[::-1].tolist(),
            strict=True,
        )
        for start, frequency in pairs:
            if state >> (2 * _WORD - PRECISION) >= frequency:
                words.append(state & 0xFFFFFFFF)
                state >>= _WORD
            state = (state // frequency << PRECISION) + state % frequency + start
        self._state = state

    def to_bytes(self) -> bytes:
        end = self._state.to_bytes(8, "little").rstrip(b"\0")
        end += bytes(-len(end) % 4)
        return np.array(self._words, "<u4").tobytes() + end


def decode(stream: bytes, n: int, book: Book) -> np.ndarray:
    """The inverse of ``encode``: int32 ``[n, D]``.

    Raises:
      FormatError: the stream is not one that these tables can produce.
    """
    words = ans_words(stream, "a stream")
    coder = ans_decoder(words, "a stream")
    tables = book.tables
    if tables.components > 1:
        component = coder.decode(categorical(tables.weights), n)
    else:
        component = np.zeros(n, np.int32)
    order, found, stops = _grouped(component)
    sizes = np.diff(stops, prepend=0)
    symbols = np.empty((n, tables.latent_dim), np.int32)
    escaped: list[tuple[int, int, int]] = []  # image, dimension, row
    for dimension in range(tables.latent_dim):
        rows = found.astype(np.int64) * tables.latent_dim + dimension
        made = book.is_made(rows, sizes)
        models = iter(book.models(rows[made]))
        column = np.empty(n, np.int32)
        for row, size, stop, by_model in zip(
            rows.tolist(), sizes.tolist(), stops.tolist(), made.tolist(), strict=True
        ):
            part = slice(stop - size, stop)
            if by_model:
                column[part] = coder.decode(next(models), size)
            else:
                column[part] = _bisected(coder, words, book, row, size)
        of_image = np.repeat(rows, sizes)
        symbols[order, dimension] = column + book.first[of_image]
        outside = np.flatnonzero(column == book.count[of_image])
        escaped += [(order[i], dimension, of_image[i]) for i in outside]
        if 2 * len(escaped) > len(stream):  # each takes at least 3 bytes
            raise FormatError("more escapes than the stream has room for")
    for image, dimension, row in escaped:
        symbols[image, dimension] = escapes.read(
            int(book.first[row]), int(book.count[row]), lambda: int(coder.decode(_BYTE))
        )
    if not coder.is_empty():
        raise FormatError("a stream with something left over")
    return symbols


def _bisected(coder, words: np.ndarray, book: Book, row: int, n: int) -> list[int]:
    """The next n indices, all from one row, taken from the coder without a model."""
    position, state = coder.pos()
    out = []
    for _ in range(n):
        slot = state % TOTAL
        index, start, stop = book.locate(row, slot)
        state = (state >> PRECISION) * (stop - start) + slot - start
        if state >> _WORD == 0 and position:
            position -= 1
            state = state << _WORD | int(words[position])
        out.append(index)
    coder.seek(position, state)
    return out


def _grouped(component: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of images by component, the components that occur, and where each one ends."""
    found, counts = np.unique(component, return_counts=True)
    return np.argsort(component, kind="stable"), found, np.cumsum(counts)


# One image


def encode_one(symbols: np.ndarray, book: Book) -> bytes:
    """The shortest encoding of one image's int32 ``[D]`` symbols in their component."""
    return _encode_one(symbols[None], book.tables.assign(symbols[None], book.step), book)


def _encode_one(symbols: np.ndarray, component: np.ndarray, book: Book) -> bytes:
    rows, index = book.index(symbols, component)
    weights = _sums(book.tables.weights)
    escaped = escapes.write(symbols, index, book.first[rows], book.count[rows])
    starts = [int(weights[component[0]]), *book.cumulative(rows[0], index[0]).tolist()]
    stops = [int(weights[component[0] + 1]), *book.cumulative(rows[0], index[0] + 1).tolist()]
    starts += [byte * _BYTE_FREQUENCY for byte in escaped]
    stops += [(byte + 1) * _BYTE_FREQUENCY for byte in escaped]
    low, width, scale = 0, 1, 0  # the interval [low, low + width) / 2**scale
    for start, stop in zip(starts, stops, strict=True):
        low = (low << PRECISION) + width * start
        width *= stop - start
        scale += PRECISION
    # The first multiple of 2**-8n in the interval, for the smallest n for which there is one.
    for n in range(scale // 8 + 1):
        value = -(-low >> (scale - 8 * n))
        if value << (scale - 8 * n) < low + width:
            return value.to_bytes(n, "big")
    raise AssertionError("the interval holds its own lower end")


def decode_one(data: bytes, book: Book) -> np.ndarray:
    """The inverse of ``encode_one``: int32 ``[D]``.

    Raises:
      FormatError: the bytes are not ones that these tables can produce.
    """
    tables = book.tables
    if len(data) > 8 * (tables.latent_dim + 1):  # an escape takes 3 bytes and at most 5 more
        raise FormatError(f"a payload of {len(data)} bytes for {tables.latent_dim} symbols")
    # The number's place in the current interval, as a fraction in [0, 1).
    position, width = int.from_bytes(data, "big"), 1 << 8 * len(data)

    def slot() -> int:
        return (position << PRECISION) // width

    def take(start: int, stop: int) -> None:
        nonlocal position, width
        position = (position << PRECISION) - start * width
        width *= stop - start

    def next_byte() -> int:
        byte = slot() // _BYTE_FREQUENCY
        take(byte * _BYTE_FREQUENCY, (byte + 1) * _BYTE_FREQUENCY)
        return byte

    weights = _sums(tables.weights)
    component = int(np.searchsorted(weights, slot(), side="right")) - 1
    take(int(weights[component]), int(weights[component + 1]))
    rows = book.row(component, 0) + np.arange(tables.latent_dim)
    index = np.empty(tables.latent_dim, np.int64)
    for dimension, row in enumerate(rows.tolist()):
        index[dimension], start, stop = book.locate(row, slot())
        take(start, stop)
    first, count = book.first[rows], book.count[rows]
    symbols = (first + index).astype(np.int32)
    for d in np.flatnonzero(index == count):
        symbols[d] = escapes.read(int(first[d]), int(count[d]), next_byte)
    if _encode_one(symbols[None], np.array([component]), book) != data:
        raise FormatError("a payload that no encoder writes")
    return symbols


def _sums(frequencies: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(frequencies, dtype=np.int64)])
