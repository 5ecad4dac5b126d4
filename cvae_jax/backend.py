"""All choices that depend on the machine, and how many rows go through a compiled function.

``stream`` cuts host arrays of any length into blocks of a few fixed sizes, and has all cores, or
the accelerator, work on them; ``microbatched`` makes a compiled function go through such a block in
microbatches that fit the cache; ``Batched`` is both.  What comes out for an image does not depend
on which block it fell into, up to rounding, and not at all on the number of cores.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh

from cvae_jax.batching import blocks, cores, mapped

# Blocks hold this many microbatches at most: enough that a dispatch costs next to nothing.
MICROBATCHES_PER_BLOCK = 32
BATCH = "batch"  # the mesh's axis, along which a batch is shared out


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def microbatch_size() -> int:
    """How many images go through the network at once.

    On CPU the temporaries of 32 images stay in the cache; with 128 at once, training was half as
    fast.  The size for accelerators has not been measured.
    """
    return 32 if on_cpu() else 4096


def gradient_microbatch_size(batch: int) -> int:
    """How many images of a batch the gradient is taken of at once.

    On CPU an eighth of the batch, within 16 and 32, which measured about the same: up to eight
    devices then add up the same microbatches as one.
    """
    return max(16, min(batch // 8, microbatch_size())) if on_cpu() else microbatch_size()


def epoch_is_one_dispatch() -> bool:
    """Whether an epoch runs as one compiled loop or as a Python loop over steps.

    One dispatch keeps an accelerator busy.  On CPU both measured the same (2,100 to 2,400
    images/s, batch 128), and a Python loop can show progress and stop between steps.
    """
    return not on_cpu()


def mesh() -> Mesh:
    """All devices, of this process and of those that it has joined, in one row."""
    return jax.make_mesh((jax.device_count(),), (BATCH,), axis_types=(AxisType.Auto,))


def dispatch_inline() -> None:
    """Makes JAX run CPU computations in the thread that calls them.

    Handing them to another thread, JAX's default, takes longer than encoding an image does.
    Has no effect once JAX has started, and on accelerators.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def use_compilation_cache() -> None:
    """Keeps compiled functions between runs, in the user's cache directory.

    The cache holds executable code: the directory is the user's own and closed to others.
    ``JAX_COMPILATION_CACHE_DIR`` chooses another place.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = base / "cvae_jax" / "xla"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache.stat().st_uid != os.getuid():
            return
        cache.chmod(0o700)
    except (OSError, RuntimeError):
        return  # no home, or a read-only one: compile every time
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def microbatched(f: Callable, most: int | None = None) -> Callable:
    """``f``, applied to ``microbatch_size()`` rows of its arguments at a time.

    All arguments have the same leading size, at most that many or a multiple of it; most: rows at
    a time whatever the device, a power of two.
    """

    def g(*batched):
        size, micro = len(batched[0]), microbatch_size()
        micro = min(micro, most or micro)
        if size <= micro:
            return f(*batched)
        pieces = tuple(a.reshape(size // micro, micro, *a.shape[1:]) for a in batched)
        out = lax.map(lambda piece: f(*piece), pieces)
        return jax.tree.map(lambda a: a.reshape(size, *a.shape[2:]), out)

    return g


def stream(f: Callable, *arrays: np.ndarray, at_once: int | None = None) -> Any:
    """Calls ``f(*blocks)`` on blocks of the arrays' rows and joins what it returns.

    f: compiled; arrays: equal leading size N, 0 included; at_once: how many blocks memory holds at
    most, if not one more than there are cores, or on an accelerator two, of which one is computed
    while the other comes or goes.  Returns numpy arrays with leading size N, in the structure that
    ``f`` returns.
    """
    n = len(arrays[0])
    if n == 0:
        one = (jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for a in arrays)
        return jax.tree.map(lambda s: np.empty((0, *s.shape[1:]), s.dtype), jax.eval_shape(f, *one))

    def call(block: tuple[int, int, int]) -> Any:
        start, stop, size = block
        rows = [a[start:stop] for a in arrays]
        if stop - start < size:
            rows = [np.concatenate([r, np.repeat(r[-1:], size - len(r), axis=0)]) for r in rows]
        # Waiting first: np.asarray of an array that is not ready waits 50 us too long.
        return jax.tree.map(lambda part: np.asarray(part.block_until_ready()), f(*rows))

    micro = microbatch_size()
    if n <= micro:  # nothing to join, so a single image takes the shortest way
        (block,) = blocks(n, micro, 1)
        return jax.tree.map(lambda part: np.array(part[:n]), call(block))
    most = MICROBATCHES_PER_BLOCK
    if on_cpu():
        # A block for each core, of whole microbatches, so that the split changes no result.
        most = max(min(n // micro // (at_once or cores()), most), 1)
    else:
        at_once = at_once or 2
    bounds = list(blocks(n, micro, most))
    out = None
    with contextlib.closing(mapped(call, bounds, at_once=at_once)) as results:
        for (start, stop, _), done in zip(bounds, results, strict=True):
            if out is None:
                out = jax.tree.map(lambda part: np.empty((n, *part.shape[1:]), part.dtype), done)
            for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(done), strict=True):
                whole[start:stop] = part[: stop - start]
    return out


class Batched:
    """A pure function of an array of rows, for any number of them.

    It is compiled, and goes through the rows of a host array block by block, as in ``stream``.
    On rows that JAX traces (under ``jit``, ``vmap`` or ``grad``) it is the function itself.
    """

    def __init__(self, f: Callable[[Array], Any]):
        self._f = f
        self._compiled = jax.jit(microbatched(f))

    def __call__(self, rows: Any) -> Any:
        traced = isinstance(rows, jax.core.Tracer)
        return self._f(rows) if traced else stream(self._compiled, rows)
