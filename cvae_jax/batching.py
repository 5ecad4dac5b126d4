"""Any number of images through a jitted function: few compilations, bounded memory.

``stream`` cuts a host array of any length into blocks of a few fixed sizes; ``microbatched`` makes
a compiled function go through such a block in microbatches that fit the cache; ``Batched`` is
both.  What comes out for an image does not depend on which block it fell into, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from cvae_jax import backend

# Blocks hold this many microbatches at most: enough that a dispatch costs next to nothing.
MICROBATCHES_PER_BLOCK = 32


def microbatched(f: Callable, most: int | None = None) -> Callable:
    """``f``, applied to ``backend.microbatch_size()`` rows of its arguments at a time.

    All arguments have the same leading size, at most that many or a multiple of it; most: rows at
    a time whatever the device, a power of two.
    """

    def g(*batched):
        size, micro = len(batched[0]), backend.microbatch_size()
        micro = min(micro, most or micro)
        if size <= micro:
            return f(*batched)
        pieces = tuple(a.reshape(size // micro, micro, *a.shape[1:]) for a in batched)
        out = lax.map(lambda piece: f(*piece), pieces)
        return jax.tree.map(lambda a: a.reshape(size, *a.shape[2:]), out)

    return g


def blocks(n: int) -> Iterator[tuple[int, int, int]]:
    """``(start, stop, size)`` of each block: rows start..stop, filled up to ``size`` rows.

    Sizes are powers of two (for one microbatch or more, a power of two of microbatches), so that a
    function is compiled for only a handful of sizes, whatever lengths occur.
    """
    micro = backend.microbatch_size()
    start = 0
    while start < n:
        left = n - start
        if left < micro:
            size = 1 << (left - 1).bit_length()
        else:
            size = micro * min(1 << (left // micro).bit_length() - 1, MICROBATCHES_PER_BLOCK)
        stop = min(start + size, n)
        yield start, stop, size
        start = stop


def stream(f: Callable, *arrays: np.ndarray) -> Any:
    """Calls ``f(*blocks)`` on blocks of the arrays' rows and joins what it returns.

    arrays: equal leading size N, 0 included.  Returns numpy arrays with leading size N, in
    the structure that ``f`` returns.  Besides them, memory holds two blocks: the next one is
    dispatched before the results of the last are copied out.
    """
    n = len(arrays[0])
    if n == 0:
        one = (jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for a in arrays)
        return jax.tree.map(lambda s: np.empty((0, *s.shape[1:]), s.dtype), jax.eval_shape(f, *one))

    def dispatch(start: int, stop: int, size: int) -> Any:
        rows = [a[start:stop] for a in arrays]
        if stop - start < size:
            rows = [np.concatenate([r, np.repeat(r[-1:], size - len(r), axis=0)]) for r in rows]
        return f(*rows)

    first, *rest = blocks(n)
    if not rest:  # nothing to join, so a single image takes the shortest way
        # Waiting first: np.asarray of an array that is not ready waits 50 us too long.
        return jax.tree.map(
            lambda block: np.array(np.asarray(block.block_until_ready())[:n]), dispatch(*first)
        )
    done = dispatch(*first)
    out = jax.tree.map(lambda part: np.empty((n, *part.shape[1:]), part.dtype), done)

    def copy_out(start: int, stop: int, done: Any) -> None:
        for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(done), strict=True):
            whole[start:stop] = np.asarray(part)[: stop - start]

    before = first
    for block in rest:
        following = dispatch(*block)
        copy_out(*before[:2], done)
        before, done = block, following
    copy_out(*before[:2], done)
    return out


class Batched:
    """A pure function of an array of rows, for any number of them.

    It is compiled, and goes through the rows of a host array block by block, as in ``stream``.
    On rows that JAX traces (under ``jit``, ``vmap`` or ``grad``) it is the function itself.
    """

    def __init__(self, f: Callable[[Array], Any]):
        self._f = f
        self.compiled = jax.jit(microbatched(f))

    def __call__(self, rows: Any) -> Any:
        traced = isinstance(rows, jax.core.Tracer)
        return self._f(rows) if traced else stream(self.compiled, rows)
