"""Integer symbols to bytes and back, by the integer arithmetic of ``tables``.

Many images share one ANS stream (Duda 2013, coded by the library constriction); one image
alone is coded by exact arithmetic coding (Rissanen 1976) that ends on the byte.
"""

from __future__ import annotations

import constriction
import numpy as np

from cvae_jax.coding import escapes
from cvae_jax.coding.tables import PRECISION, TOTAL, Book, categorical
from cvae_jax.errors import FormatError

_BYTE = categorical(np.full(256, TOTAL // 256))


# Many images, one stream


def encode(symbols: np.ndarray, book: Book) -> bytes:
    """The stream of int32 ``[N, D]`` symbols, a multiple of 4 bytes."""
    component = book.tables.assign(symbols, book.step)
    order, slices = _grouped(component)
    rows, index = book.index(symbols[order], component[order])
    coder = constriction.stream.stack.AnsCoder()
    # A stack: what is to come out first goes in last.
    escaped = escapes.write(symbols[order], index, book.first[rows], book.count[rows])
    coder.encode_reverse(np.frombuffer(escaped, np.uint8).astype(np.int32), _BYTE)
    columns = np.ascontiguousarray(index.T, np.int32)
    for dimension in reversed(range(len(columns))):
        for k, start, stop in reversed(slices):
            coder.encode_reverse(columns[dimension, start:stop], book.model(book.row(k, dimension)))
    if book.tables.components > 1:
        coder.encode_reverse(component, categorical(book.tables.weights))
    return coder.get_compressed().astype("<u4").tobytes()


def decode(stream: bytes, n: int, book: Book) -> np.ndarray:
    """The inverse of ``encode``: int32 ``[n, D]``.

    Raises:
      FormatError: no symbols of these tables have this stream.
    """
    if len(stream) % 4:
        raise FormatError(f"a stream of {len(stream)} bytes; expected a multiple of 4")
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(stream, "<u4").astype(np.uint32))
    except ValueError as error:
        raise FormatError("a stream that ends in zeros") from error
    tables = book.tables
    if tables.components > 1:
        component = coder.decode(categorical(tables.weights), n)
    else:
        component = np.zeros(n, np.int32)
    order, slices = _grouped(component)
    columns = np.empty((tables.latent_dim, n), np.int32)
    for dimension, column in enumerate(columns):
        for k, start, stop in slices:
            model = book.model(book.row(k, dimension))
            column[start:stop] = coder.decode(model, stop - start)
    d = np.arange(tables.latent_dim)
    rows = component[order].astype(np.int64)[:, None] * tables.latent_dim + d
    symbols = escapes.read(
        columns.T, book.first[rows], book.count[rows], lambda: int(coder.decode(_BYTE))
    )
    if not coder.is_empty():
        raise FormatError("a stream with something left over")
    out = np.empty_like(symbols)
    out[order] = symbols
    return out


def _grouped(component: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The images' order by component, and ``(component, start, stop)`` of each that occurs."""
    order = np.argsort(component, kind="stable")
    found, counts = np.unique(component, return_counts=True)
    stops = np.cumsum(counts)
    return order, list(zip(found.tolist(), (stops - counts).tolist(), stops.tolist(), strict=True))


# One image


def encode_one(symbols: np.ndarray, book: Book) -> bytes:
    """The shortest bytes that one image's int32 ``[D]`` symbols can have in their component."""
    return _encode_one(symbols[None], book.tables.assign(symbols[None], book.step), book)


def _encode_one(symbols: np.ndarray, component: np.ndarray, book: Book) -> bytes:
    rows, index = book.index(symbols, component)
    events = [(_sums(book.tables.weights), int(component[0]))]
    events += [(book.sums(r), i) for r, i in zip(rows[0], index[0], strict=True)]
    low, width, scale = 0, 1, 0  # the interval [low, low + width) / 2**scale
    escaped = escapes.write(symbols, index, book.first[rows], book.count[rows])
    taken = [(int(s[i]), int(s[i + 1]) - int(s[i])) for s, i in events]
    taken += [(byte * (TOTAL // 256), TOTAL // 256) for byte in escaped]
    for start, frequency in taken:
        low = (low << PRECISION) + width * start
        width *= frequency
        scale += PRECISION
    # The first multiple of 2**-8n in the interval, for the smallest n that has one.
    for n in range(scale // 8 + 1):
        value = -(-low >> (scale - 8 * n))
        if value << (scale - 8 * n) < low + width:
            return value.to_bytes(n, "big")
    raise AssertionError("the interval holds its own lower end")


def decode_one(data: bytes, book: Book) -> np.ndarray:
    """The inverse of ``encode_one``: int32 ``[D]``.

    Raises:
      FormatError: no symbols of these tables have these bytes.
    """
    tables = book.tables
    if len(data) > 8 * (tables.latent_dim + 1):  # an escape takes 3 bytes and 5 more at most
        raise FormatError(f"a payload of {len(data)} bytes for {tables.latent_dim} symbols")
    # Where in the current interval the number lies, as a fraction in [0, 1).
    position, width = int.from_bytes(data, "big"), 1 << 8 * len(data)

    def take(sums: np.ndarray) -> int:
        nonlocal position, width
        slot = (position << PRECISION) // width
        index = int(np.searchsorted(sums, slot, side="right")) - 1
        start, stop = int(sums[index]), int(sums[index + 1])
        position = (position << PRECISION) - start * width
        width *= stop - start
        return index

    component = take(_sums(tables.weights))
    rows = np.arange(tables.latent_dim)[None] + book.row(component, 0)
    index = np.array([[take(book.sums(r)) for r in rows[0]]])
    byte_sums = np.arange(257) * (TOTAL // 256)
    symbols = escapes.read(index, book.first[rows], book.count[rows], lambda: take(byte_sums))
    if _encode_one(symbols, np.array([component]), book) != data:
        raise FormatError("a payload that no encoder writes")
    return symbols[0]


def _sums(frequencies: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(frequencies, dtype=np.int64)])
