"""Any number of rows goes through, in a handful of compiled sizes, and comes out in order."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax import backend, batching, modules
from cvae_jax.backend import microbatched, stream
from cvae_jax.config import ModelConfig


@pytest.mark.parametrize("n", [0, 1, 2, 31, 32, 33, 100, 1024, 1025, 3000])
def test_stream_is_the_function_row_by_row(n):
    rows = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    out = stream(jax.jit(microbatched(lambda x: {"double": 2 * x, "sum": x.sum(1)})), rows)
    np.testing.assert_array_equal(out["double"], 2 * rows)
    np.testing.assert_array_equal(out["sum"], rows.sum(1))


def test_memory_is_bounded_by_blocks():
    """However many rows go in, the function never sees more than one block of them."""
    seen = []

    def f(x):
        seen.append(len(x))
        return jnp.zeros((len(x), 1))

    stream(f, np.zeros((50_000, 2), np.float32))
    assert max(seen) == backend.microbatch_size() * backend.MICROBATCHES_PER_BLOCK


def test_the_number_of_cores_changes_no_bit(monkeypatch):
    model = ModelConfig(filters=(3,), dense_width=5, latent_dim=2)
    params = modules.init_params(model, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (301, *model.image_shape), np.uint8)
    encode = jax.jit(microbatched(lambda images: modules.encode(params, images, model)))
    found = []
    for cores in (1, 2, 5, 64):
        monkeypatch.setattr(backend, "cores", lambda n=cores: n)
        found.append(stream(encode, images).tobytes())
    assert len(set(found)) == 1


def test_in_a_thread_that_has_a_core_it_takes_no_other():
    threads = []

    def f(x):
        threads.append(threading.get_ident())
        return jnp.asarray(x)

    def inside(_):
        assert np.array_equal(stream(f, rows), rows)
        return threading.get_ident()

    rows = np.arange(3000, dtype=np.float32)[:, None]
    workers = set(batching.mapped(inside, range(5)))
    assert set(threads) == workers
    assert threading.get_ident() not in workers


def test_what_a_block_raises_comes_out():
    def f(x):
        if x[0, 0] >= 1000:
            raise ArithmeticError("too much")
        return jnp.asarray(x)

    with pytest.raises(ArithmeticError, match="too much"):
        stream(f, np.arange(3000, dtype=np.float32)[:, None])
