"""The integer decoder by whichever is faster: NumPy at once, or compiled code after a start.

Both give the same levels: nobody can tell but by the clock.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import numpy as np

from cvae_jax.exact import by_numpy
from cvae_jax.exact.integers import IntegerDecoder

# Multiply-adds of all images from which on compiled code is faster.  Importing JAX and compiling
# take about 1.3 s; in that time NumPy does some 4e10 on two cores, and compiled code is then two
# to three times as fast.  Of the released models these are 9,000 images.
WORTH_STARTING = 5 * 10**10
# The same where JAX is there already: it compiles in 0.05 s (kept from before) to 0.4 s, in which
# NumPy decodes some 1,000 images.
WORTH_COMPILING = 5 * 10**9

Levels = Callable[[np.ndarray], np.ndarray]


def compiled(integers: IntegerDecoder) -> Levels:
    """``by_jax.decoder``, imported when it is called.  Raises whatever JAX does where it is missing
    or cannot be used."""
    from cvae_jax.exact import by_jax

    return by_jax.decoder(integers)


class Quickest:
    """``levels(inputs)``, as ``by_numpy.decoder`` and ``by_jax.decoder`` make it."""

    def __init__(
        self,
        integers: IntegerDecoder,
        worth: int,
        compiled: Callable[[IntegerDecoder], Levels] = compiled,
    ):
        """worth: multiply-adds of all images from which on compiled code takes over; compiled:
        makes it, or raises what it likes."""
        self._integers, self._compiled, self._worth = integers, compiled, worth
        self._each = integers.architecture.multiply_adds()
        self._decoded = self._expected = 0
        self._levels = by_numpy.decoder(integers)
        self._decided = False
        self._counting = threading.Lock()

    def expect(self, images: int) -> None:
        """So many more images are to be decoded; where nobody says so, it turns out in time."""
        self._expected = self._decoded + images

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        with self._counting:
            self._decoded += len(inputs)
            images = max(self._decoded, self._expected)
            mine = not self._decided and images * self._each > self._worth
            self._decided |= mine
        if mine:
            # Without the lock: others decode by NumPy meanwhile.  JAX may be missing, broken, or
            # set to a device that is not there: reading goes on.
            with contextlib.suppress(Exception):
                made = self._compiled(self._integers)
                levels = made(inputs)  # compiles
                self._levels = made
                return levels
        return self._levels(inputs)
