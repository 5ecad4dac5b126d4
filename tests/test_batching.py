"""Any number of rows goes through, in a handful of compiled sizes, and comes out in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax import backend, batching


@pytest.mark.parametrize("n", [0, 1, 2, 31, 32, 33, 100, 1024, 1025, 3000])
def test_stream_is_the_function_row_by_row(n):
    rows = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    out = batching.stream(
        jax.jit(batching.microbatched(lambda x: {"double": 2 * x, "sum": x.sum(1)})), rows
    )
    np.testing.assert_array_equal(out["double"], 2 * rows)
    np.testing.assert_array_equal(out["sum"], rows.sum(1))


def test_blocks_cover_every_row_once_in_few_sizes():
    sizes = set()
    for n in range(2500):
        stop = 0
        for start, end, size in batching.blocks(n):
            assert start == stop
            assert 0 < end - start <= size
            stop = end
            sizes.add(size)
        assert stop == n
    assert sizes == {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}


def test_memory_is_bounded_by_blocks():
    """However many rows go in, the function never sees more than one block of them."""
    seen = []

    def f(x):
        seen.append(len(x))
        return jnp.zeros((len(x), 1))

    batching.stream(f, np.zeros((5000, 2), np.float32))
    assert max(seen) == backend.microbatch_size() * batching.MICROBATCHES_PER_BLOCK
