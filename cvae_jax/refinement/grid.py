"""The levels that stand for others when every pixel may be off by a few.

Around the level that is expected of a pixel, and as far apart as can be: one in 2 E + 1, for a
largest error E.  Each stands for the *cell* of levels that are nearest to it.  (JPEG-LS's near-
lossless mode does the same: Weinberger et al. 2000, section III-D.)
"""

from __future__ import annotations

import numpy as np

from cvae_jax.bitstream.records import MAX_ERROR
from cvae_jax.errors import ConfigError

LEVELS = 256


def checked(max_error: int) -> int:
    """A largest error of a pixel, in grey levels, that a file can have; raises ConfigError if it is
    none."""
    whole = isinstance(max_error, int | np.integer) and not isinstance(max_error, bool)
    if not whole or not 0 <= max_error <= MAX_ERROR:
        raise ConfigError(
            f"the largest error of a pixel is a whole number of grey levels from 0 to {MAX_ERROR}, "
            f"not {max_error!r}"
        )
    return int(max_error)


class Grid:
    """The cells of n pixels, each of its own expected level."""

    def __init__(self, expected: np.ndarray, max_error: int):
        """expected: uint8 ``[n]``."""
        self._error, self._pitch = max_error, 2 * max_error + 1
        expected = expected.astype(np.int64)
        self.of_expected = (expected + max_error) // self._pitch  # int64 [n], its cell
        self._lowest = expected - self._pitch * self.of_expected  # that stands for cell 0, or less

    @property
    def cells(self) -> int:
        """How many there can be; the last may be empty."""
        return cells(self._error)

    def cell(self, levels: np.ndarray) -> np.ndarray:
        """The number of each level's cell: uint8 ``[n]`` -> int64 ``[n]``."""
        return (levels - self._lowest + self._error) // self._pitch

    def level(self, cell: np.ndarray) -> np.ndarray:
        """The level that stands for each cell, uint8 ``[n]``."""
        return np.clip(self._lowest + self._pitch * cell, 0, LEVELS - 1).astype(np.uint8)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """The weights of the levels in each cell: float32 ``[n, 256]`` -> ``[n, cells]``."""
        below = np.zeros((len(weights), LEVELS + 1), np.float32)
        below[:, 1:] = running_sums(weights)
        first = (self._lowest - self._error)[:, None] + self._pitch * np.arange(self.cells + 1)
        return np.diff(np.take_along_axis(below, np.clip(first, 0, LEVELS), axis=1), axis=1)


def cells(max_error: int) -> int:
    """How many cells a pixel has at most."""
    return (LEVELS - 1 + 2 * max_error) // (2 * max_error + 1) + 1


_RUN = 16
_UP_TO = np.triu(np.ones((_RUN, _RUN), np.float32))  # adds up a run


def running_sums(weights: np.ndarray) -> np.ndarray:
    """``np.cumsum`` of each row, float32 ``[n, k]``, of whole numbers with sums below 2**24."""
    n, k = weights.shape
    if k % _RUN:
        return np.cumsum(weights, axis=1)
    # A third quicker, for 256 levels.
    sums = (weights.reshape(-1, _RUN) @ _UP_TO).reshape(n, -1, _RUN)
    sums[:, 1:] += np.cumsum(sums[:, :-1, -1], axis=1)[:, :, None]
    return sums.reshape(n, k)
