"""Quality to steps, latents to symbols and back, and tables from latents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvae_jax.coding import quantize
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.vectors import mixture
from cvae_jax.errors import ConfigError


def latents(n, seed=0):
    """Two clusters far apart, one latent that is always zero: [n, 3]."""
    rng = np.random.default_rng(seed)
    centre = np.where(rng.random(n) < 0.3, -2.0, 2.0)[:, None]
    noise = rng.normal(size=(n, 3)) * [1, 0.3, 1e-4]
    return np.float32(np.hstack([centre, -centre, 0 * centre]) + noise)


SIGMA = np.array([0.2, 0.1, 1.0])
TABLES = mixture.fit_tables(latents(4000), SIGMA)


def test_steps_shrink_with_every_quality():
    steps = [quantize.step(q) for q in range(101)]
    assert steps == sorted(set(steps), reverse=True)
    assert steps[0] / steps[100] > 40
    assert all(abs(quantize.quality(quantize.step(q)) - q) < 0.2 for q in range(101))


@pytest.mark.parametrize("quality", [-1, 100.5, float("nan")])
def test_impossible_qualities_are_refused(quality):
    with pytest.raises(ConfigError, match="0 to 100"):
        quantize.step(quality)


@given(step=st.integers(1, 65535), seed=st.integers(0, 9))
def test_quantising_is_off_by_half_a_step_at_most(step, seed):
    z = latents(20, seed)
    symbols = quantize.quantize(z, TABLES, step)
    error = np.abs(quantize.dequantize(symbols, TABLES, step) - z)
    assert (error <= 0.5001 * step * TABLES.unit + 1e-6).all()
    again = quantize.quantize(quantize.dequantize(symbols, TABLES, step), TABLES, step)
    assert np.array_equal(again, symbols)


def test_latents_beyond_32_bits_are_the_largest_there_are():
    z = np.array([[1e30, -1e30, 0]], np.float32)
    assert quantize.quantize(z, TABLES, 1).tolist() == [[2**31 - 1, -(2**31), 0]]


def test_units_are_a_fraction_of_the_posteriors_sigma():
    assert TABLES.unit == pytest.approx(SIGMA / 256)
    assert int(TABLES.weights.sum()) == TOTAL


def test_tables_fit_latents_that_they_have_not_seen():
    """Near the entropy of the law that they were drawn from, though 40 components for its two
    cost something: an image says which it belongs to.
    """
    step = 256
    symbols = quantize.quantize(latents(3000, seed=1), TABLES, step)
    spent = TABLES.book(step).bits(symbols).mean()
    which = -(0.3 * np.log2(0.3) + 0.7 * np.log2(0.7))
    # Differential entropies less the logarithms of the steps; the third latent costs nothing.
    spread, steps = np.array([1, 0.3]), SIGMA[:2] * step / 256
    law = (0.5 * np.log2(2 * np.pi * np.e * spread**2) - np.log2(steps)).sum()
    assert spent < 1.1 * (which + law)


def test_a_handful_of_images_is_enough():
    for n in (1, 2, 150):
        tables = mixture.fit_tables(latents(n), SIGMA)
        assert tables.components == max(1, n // mixture.IMAGES_PER_COMPONENT)
        tables.book(quantize.step(50))


def test_calibrating_twice_gives_the_same_tables():
    assert mixture.fit_tables(latents(4000), SIGMA).digest == TABLES.digest
