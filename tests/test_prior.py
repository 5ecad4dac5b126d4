"""The prior of a map of latents is causal, its laws are laws, and what it draws follows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax import modules, prior
from cvae_jax.config import MAP_GROUPS, ModelConfig
from cvae_jax.prior import Laws, MapPrior

CHANNELS, EACH = 8, 8 // MAP_GROUPS
H, W = 4, 5
MODEL = ModelConfig(16, 20, 1, filters=(4, 8), latent_channels=CHANNELS)
PARAMS = modules.init_params(MODEL, jax.random.key(0))["prior"]


@jax.jit
def laws_of(z):
    return MapPrior(CHANNELS).apply({"params": PARAMS}, z, jnp.ones(len(z)))


def test_a_latent_changes_no_law_of_its_own_group_or_before_and_some_after():
    """What must not depend on it does not by a bit, and every place in reach does."""
    z = np.asarray(jax.random.normal(jax.random.key(1), (1, H, W, CHANNELS)) * 4)
    places = [(y, x, c) for y in range(H) for x in range(W) for c in range(0, CHANNELS, EACH)]
    changed = np.repeat(z, len(places), axis=0)
    for row, place in enumerate(places):
        changed[(row, *place)] += 3
    before, after = laws_of(np.repeat(z, len(places), axis=0)), laws_of(changed)
    for row, (y, x, c) in enumerate(places):
        differs = (before.mean[row] != after.mean[row]) | (
            before.log_scale[row] != after.log_scale[row]
        )
        expected = np.zeros((H, W), bool)
        expected[y + 1 : y + 3, max(x - 2, 0) : x + 3] = True
        expected[y, x + 1 : x + 3] = True
        expected[y, x] = c < CHANNELS - EACH
        np.testing.assert_array_equal(differs.any(-1), expected)
        assert not differs[y, x, : c + EACH].any()


def test_the_laws_depend_on_the_step():
    z = jnp.zeros((2, H, W, CHANNELS))
    laws = MapPrior(CHANNELS).apply({"params": PARAMS}, z, jnp.array([1.0, 0.5]))
    assert not np.array_equal(laws.mean[0], laws.mean[1])


@pytest.mark.parametrize("step", [1.0, 0.4])
def test_the_probabilities_of_all_bins_add_up_to_one(step):
    mean, log_scale = jnp.array([0.3, -7.9, 40.0]), jnp.array([0.0, 1.5, -2.0])
    bins = step * jnp.arange(-600, 601)[:, None]
    probability = prior.bin_probability(bins, Laws(mean, log_scale), jnp.float32(step))
    np.testing.assert_allclose(probability.sum(0), 1, atol=1e-5)


def test_the_probability_of_a_bin_is_accurate_on_both_sides_and_never_zero():
    z, law = jnp.array([-12.0, 12.0, 1000.0]), Laws(jnp.zeros(()), jnp.zeros(()))
    found = prior.bin_probability(z, law, jnp.float32(1))
    expected = 1 / (1 + np.exp(11.5)) - 1 / (1 + np.exp(12.5))
    np.testing.assert_allclose(found, [expected, expected, prior.LEAST], rtol=1e-5)


def test_what_is_drawn_has_the_laws_that_the_prior_gives_it():
    """Of each latent, how much of its law lies below it is evenly spread."""
    noise = jax.random.normal(jax.random.key(2), (400, H, W, CHANNELS))
    z = jax.jit(lambda n: MapPrior(CHANNELS).apply({"params": PARAMS}, n, method="draw"))(noise)
    mean, log_scale = laws_of(z)
    np.testing.assert_allclose(z - mean, np.rint(z - mean), atol=1e-4)
    edges = [jax.nn.sigmoid((z + side - mean) / jnp.exp(log_scale)) for side in (-0.5, 0.5)]
    quantile = jax.scipy.special.ndtr(noise)
    assert (edges[0] <= quantile + 1e-3).all()
    assert (quantile <= edges[1] + 1e-3).all()


def test_noise_becomes_uniform_and_steps():
    noise = jax.random.normal(jax.random.key(3), (20_000,))
    even = prior.uniform(noise)
    np.testing.assert_allclose(np.quantile(even, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    steps = prior.drawn_step(noise)
    least, greatest = prior.STEPS
    assert least <= float(steps.min()) < float(steps.max()) <= greatest
    np.testing.assert_allclose(np.median(steps), (least * greatest) ** 0.5, rtol=0.03)
