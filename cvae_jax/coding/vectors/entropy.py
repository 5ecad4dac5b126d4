"""Integer symbols to bytes and back, with the integer arithmetic of ``tables``.

Many images share one ANS stream (Duda 2013), encoded here and decoded by the library constriction,
except for rows too long to be built for it.  A single image is coded by exact arithmetic coding
(Rissanen 1976), which ends on a byte.
"""

from __future__ import annotations

import numpy as np

from cvae_jax.coding.integers import escapes
from cvae_jax.coding.integers.frequencies import (
    BYTE,
    BYTE_FREQUENCY,
    PRECISION,
    TOTAL,
    ArithmeticDecoder,
    ArithmeticEncoder,
    ans_decoder,
    ans_words,
    categorical,
)
from cvae_jax.coding.vectors.tables import Book
from cvae_jax.errors import FormatError

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
    stack.push(np.frombuffer(escaped, np.uint8).astype(np.int64) * BYTE_FREQUENCY, BYTE_FREQUENCY)
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
    source = Stream(stream, book)
    tables = book.tables
    if tables.components > 1:
        component = source.coder.decode(categorical(tables.weights), n)
    else:
        component = np.zeros(n, np.int32)
    order, found, stops = _grouped(component)
    sizes = np.diff(stops, prepend=0)
    symbols = np.empty((n, tables.latent_dim), np.int32)
    escaped: list[tuple[int, int, int]] = []  # image, dimension, row
    for dimension in range(tables.latent_dim):
        rows = found.astype(np.int64) * tables.latent_dim + dimension
        column = source.indices(rows, sizes)
        of_image = np.repeat(rows, sizes)
        symbols[order, dimension] = column + book.first[of_image]
        outside = np.flatnonzero(column == book.count[of_image])
        source.make_room(len(outside))
        escaped += [(order[i], dimension, of_image[i]) for i in outside]
    for image, dimension, row in escaped:
        symbols[image, dimension] = source.escaped(int(row))
    source.end()
    return symbols


class Stream:
    """Takes indices from an ANS stream; raises FormatError where no encoder writes it."""

    def __init__(self, stream: bytes, book: Book):
        self._words = ans_words(stream, "a stream")
        self.coder, self._book = ans_decoder(self._words, "a stream"), book
        self._room = len(stream) // 2  # for escapes: each takes at least 3 bytes

    def indices(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The next indices, int32 ``[sum of sizes]``: of each row, int64 ``[r]``, so many."""
        book = self._book
        made = book.is_made(rows, sizes)
        models = iter(book.models(rows[made]))
        parts = [
            self.coder.decode(next(models), size) if by_model else self._bisected(row, size)
            for row, size, by_model in zip(
                rows.tolist(), sizes.tolist(), made.tolist(), strict=True
            )
        ]
        return np.concatenate(parts, dtype=np.int32) if parts else np.zeros(0, np.int32)

    def _bisected(self, row: int, n: int) -> list[int]:
        """The next n indices of a row without a model."""
        position, state = self.coder.pos()
        out = []
        for _ in range(n):
            slot = state % TOTAL
            index, start, stop = self._book.locate(row, slot)
            state = (state >> PRECISION) * (stop - start) + slot - start
            if state >> _WORD == 0 and position:
                position -= 1
                state = state << _WORD | int(self._words[position])
            out.append(index)
        self.coder.seek(position, state)
        return out

    def make_room(self, escapes: int) -> None:
        """Refuses more escapes than a stream of this length can hold."""
        self._room -= escapes
        if self._room < 0:
            raise FormatError("more escapes than the stream has room for")

    def escaped(self, row: int) -> int:
        """The symbol that an escape in this row stands for."""
        book = self._book
        return escapes.read(
            int(book.first[row]), int(book.count[row]), lambda: int(self.coder.decode(BYTE))
        )

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols and their escapes, int64 ``[m]``, of rows in rising order, ``[m]``."""
        found, sizes = np.unique(rows, return_counts=True)
        index = self.indices(found, sizes)
        symbols = index + self._book.first[rows]
        outside = np.flatnonzero(index == self._book.count[rows])
        self.make_room(len(outside))
        for i in outside.tolist():
            symbols[i] = self.escaped(int(rows[i]))
        return symbols

    def end(self) -> None:
        """Refuses a stream of which something is left."""
        if not self.coder.is_empty():
            raise FormatError("a stream with something left over")


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
    coder = ArithmeticEncoder()
    for start, stop in zip(starts, stops, strict=True):
        coder.add(start, stop)
    for byte in escaped:
        coder.add_byte(byte)
    return coder.to_bytes()


def decode_one(data: bytes, book: Book) -> np.ndarray:
    """The inverse of ``encode_one``: int32 ``[D]``.

    Raises:
      FormatError: the bytes are not ones that these tables can produce.
    """
    tables = book.tables
    if len(data) > 8 * (tables.latent_dim + 1):  # an escape takes 3 bytes and at most 5 more
        raise FormatError(f"a payload of {len(data)} bytes for {tables.latent_dim} symbols")
    source = Payload(data, book)
    component = source.component()
    rows = book.row(component, 0) + np.arange(tables.latent_dim)
    symbols = source.take(rows).astype(np.int32)
    if _encode_one(symbols[None], np.array([component]), book) != data:
        raise FormatError("a payload that no encoder writes")
    return symbols


class Payload:
    """Takes symbols from the payload of a single image."""

    def __init__(self, data: bytes, book: Book):
        self._coder, self._book = ArithmeticDecoder(data), book

    def component(self) -> int:
        """The component that the image belongs to."""
        weights = _sums(self._book.tables.weights)
        component = int(np.searchsorted(weights, self._coder.slot(), side="right")) - 1
        self._coder.take(int(weights[component]), int(weights[component + 1]))
        return component

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols, and then their escapes, int64 ``[m]``, of rows ``[m]``."""
        index = np.empty(len(rows), np.int64)
        for i, row in enumerate(rows.tolist()):
            index[i], start, stop = self._book.locate(row, self._coder.slot())
            self._coder.take(start, stop)
        first, count = self._book.first[rows], self._book.count[rows]
        symbols = first + index
        for at in np.flatnonzero(index == count):
            symbols[at] = escapes.read(int(first[at]), int(count[at]), self._coder.byte)
        return symbols


def _sums(frequencies: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(frequencies, dtype=np.int64)])
