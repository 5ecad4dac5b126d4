"""The integer decoder by whichever is faster: NumPy at once, or compiled code after a start.

Both give the same levels: nobody can tell but by the clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from cvae_jax.exact import by_numpy
from cvae_jax.exact.integers import IntegerDecoder

# Multiply-adds of all images from which on compiled code is faster.  Importing JAX and compiling
# take about 1.3 s; in that time NumPy does some 4e10 on two cores, and compiled code is then two
# to three times as fast.  Of the released models these are 9,000 images.
WORTH_COMPILING = 5 * 10**10

Levels = Callable[[np.ndarray], np.ndarray]


def compiled(integers: IntegerDecoder) -> Levels:
    """``by_jax.decoder``, imported when it is called.  Raises ImportError without JAX."""
    from cvae_jax.exact import by_jax

    return by_jax.decoder(integers)


class Quickest:
    """``levels(inputs)``, as ``by_numpy.decoder`` and ``by_jax.decoder`` make it."""

    def __init__(
        self,
        integers: IntegerDecoder,
        expected: int = 0,
        compiled: Callable[[IntegerDecoder], Levels] = compiled,
    ):
        """expected: so many images are to be decoded, or more; where that is not known, it turns
        out as they come.  compiled: makes the compiled decoder, or raises ImportError.
        """
        self._images = expected
        self._decoded = 0
        self._each = max(integers.architecture.multiply_adds(), 1)
        self._levels = by_numpy.decoder(integers)
        self._compile: Callable[[], Levels] | None = lambda: compiled(integers)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        self._decoded += len(inputs)
        images = max(self._images, self._decoded)
        if self._compile and images * self._each > WORTH_COMPILING:
            with contextlib.suppress(ImportError):  # there is none where files are only read
                self._levels = self._compile()
            self._compile = None
        return self._levels(inputs)
