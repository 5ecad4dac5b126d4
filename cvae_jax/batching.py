"""Any number of images through a jitted function: few compilations, bounded memory.

``chunked`` is the inside view (one compiled function works off a block in cache-sized
pieces), ``stream`` the outside one (a host array of any length is cut into blocks of a few
fixed sizes).  What comes out for an image does not depend on which block it fell into, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import lax

from cvae_jax import backend

# Blocks hold this many chunks at most: large enough that a dispatch costs nothing beside it.
CHUNKS_PER_BLOCK = 32


def chunked(f: Callable) -> Callable:
    """``f``, applied to ``backend.chunk_size()`` rows of its arguments at a time.

    All arguments have the same leading size, below the chunk size or a multiple of it.
    """

    def g(*batched):
        size, chunk = len(batched[0]), backend.chunk_size()
        if size <= chunk:
            return f(*batched)
        pieces = tuple(a.reshape(size // chunk, chunk, *a.shape[1:]) for a in batched)
        out = lax.map(lambda piece: f(*piece), pieces)
        return jax.tree.map(lambda a: a.reshape(size, *a.shape[2:]), out)

    return g


def blocks(n: int) -> Iterator[tuple[int, int, int]]:
    """``(start, stop, size)`` of each block: rows start..stop, filled up to ``size`` rows.

    Sizes are powers of two (a power of two of chunks, from one chunk on), so that however many
    lengths are seen, a function is compiled for a handful of sizes.
    """
    chunk = backend.chunk_size()
    start = 0
    while start < n:
        left = n - start
        if left < chunk:
            size = 1 << (left - 1).bit_length()
        else:
            size = chunk * min(1 << (left // chunk).bit_length() - 1, CHUNKS_PER_BLOCK)
        stop = min(start + size, n)
        yield start, stop, size
        start = stop


def stream(f: Callable, *arrays: np.ndarray) -> Any:
    """Calls ``f(*blocks)`` on blocks of the arrays' rows and joins what it returns.

    arrays: equal leading size N, 0 included.  Returns numpy arrays with leading size N, in
    the structure that ``f`` returns.  Beside them, memory holds two blocks: the next one is
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
    if not rest:  # nothing to join: a single image is answered without any detour
        # Waiting first: np.asarray of an array that is not ready waits 50 us too long.
        return jax.tree.map(
            lambda block: np.array(np.asarray(block.block_until_ready())[:n]), dispatch(*first)
        )
    out, pending = None, None
    for block in (first, *rest, None):
        result = block and dispatch(*block)
        if pending:
            (start, stop, _), done = pending
            if out is None:
                out = jax.tree.map(lambda d: np.empty((n, *d.shape[1:]), d.dtype), done)
            for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(done), strict=True):
                whole[start:stop] = np.asarray(part)[: stop - start]
        pending = block, result
    return out
