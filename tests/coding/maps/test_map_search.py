"""The search for better symbols of maps."""

import numpy as np
import pytest
from coding.maps.prior_samples import random_prior, typical_latents

from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.search import MapRefiner
from cvae_jax.metrics import mse_of_each

PRIOR = random_prior((4, 4, 4))
STEP = 500
N = 24
Z = typical_latents(PRIOR, N)


def levels(symbols, step):
    """Images of 8 x 8 pixels, of which each is a latent."""
    latents = coder.units(PRIOR, symbols, step) * PRIOR.unit_size
    return np.clip(128 + 8 * latents, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 1)


IMAGES = np.clip(128 + 8 * Z, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 1)
REFINER = MapRefiner(PRIOR, levels)


def costs(symbols):
    errors = mse_of_each(levels(symbols, STEP), IMAGES) * 64
    return errors + PRIOR.slope * STEP**2 * coder.bits(PRIOR, symbols, STEP)


@pytest.fixture(scope="module")
def found():
    return [REFINER.refine(IMAGES, Z, STEP, effort) for effort in (0, 1, 2)]


def test_no_image_costs_more_with_effort_and_most_cost_less(found):
    none, one, two = map(costs, found)
    assert (one <= none).all()
    assert (two <= one).all()
    assert (one < none).mean() > 0.5


def test_without_effort_the_symbols_are_the_quantisers(found):
    assert np.array_equal(found[0], coder.quantize(PRIOR, Z, STEP))


def test_an_image_does_not_depend_on_those_beside_it(found):
    some = slice(3, 7)
    assert np.array_equal(REFINER.refine(IMAGES[some], Z[some], STEP, 1), found[1][some])
    assert REFINER.refine(IMAGES[:0], Z[:0], STEP, 1).shape == (0, Z.shape[1])
