"""Escapes: symbols outside their row, coded as their distance from it.

A distance is written as LEB128 bytes.  Escapes are ordered by dimension, and within a dimension by
image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cvae_jax.errors import FormatError


def write(symbols: np.ndarray, index: np.ndarray, first: np.ndarray, count: np.ndarray) -> bytes:
    """The bytes of all escapes; every argument is ``[N, D]``.

    index: the symbol's index in its row, ``count`` for an escape; first: the row's first symbol.
    """
    out = bytearray()
    for d, n in np.argwhere((index == count).T):
        above = int(symbols[n, d]) - int(first[n, d]) - int(count[n, d])
        below = int(first[n, d]) - int(symbols[n, d]) - 1
        value = 2 * above if above >= 0 else 2 * below + 1
        while value >= 128:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def read(first: int, count: int, next_byte: Callable[[], int]) -> int:
    """The symbol that an escape stands for, in a row of ``count`` symbols from ``first``.

    Raises:
      FormatError: the distance takes more than 5 bytes, or leads beyond 32 bits.
    """
    value = 0
    for shift in range(0, 36, 7):
        if shift == 35:
            raise FormatError("an escape of more than 5 bytes")
        byte = next_byte()
        value |= (byte & 127) << shift
        if byte < 128:
            break
    distance, below = divmod(value, 2)
    symbol = first - 1 - distance if below else first + count + distance
    if not -(1 << 31) <= symbol < 1 << 31:
        raise FormatError("a symbol beyond 32 bits")
    return symbol
