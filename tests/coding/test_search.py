"""The search for better symbols: never worse by its own measure, and never needed to decode."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import synthetic_tables

from cvae_jax.coding import quantize, search
from cvae_jax.coding.search import Refiner, slope_per_step

RNG = np.random.default_rng(0)
TABLES = synthetic_tables(components=3, latent_dim=4)
MIXING = RNG.normal(size=(4, 36)).astype(np.float32) / 40
STEP = 500


def decode(z):
    """A decoder that is nearly linear: [B, 4] -> [B, 6, 6, 1]."""
    return (0.5 + jnp.tanh(z @ MIXING) / 2).reshape(-1, 6, 6, 1)


REFINER = Refiner(decode, TABLES)
Z = RNG.normal(size=(70, 4)).astype(np.float32) * 8
IMAGES = np.asarray(decode(Z + RNG.normal(size=Z.shape).astype(np.float32)))
SYMBOLS = quantize.quantize(Z, TABLES, STEP)


def cost(symbols):
    errors = REFINER.squared_errors(IMAGES, symbols, STEP)
    return errors + TABLES.slope * STEP**2 * TABLES.book(STEP).bits(symbols)


def test_no_image_gets_worse_and_most_get_better():
    once = REFINER.refine(IMAGES, SYMBOLS, STEP, rounds=1)
    more = REFINER.refine(IMAGES, SYMBOLS, STEP, rounds=5)
    assert once.dtype == np.int32
    assert (cost(once) <= cost(SYMBOLS)).all()
    assert (cost(more) <= cost(once)).all()
    assert (cost(more) < cost(SYMBOLS)).mean() > 0.5
    assert np.array_equal(REFINER.refine(IMAGES, SYMBOLS, STEP, rounds=0), SYMBOLS)


def test_images_in_several_blocks_are_refined_as_block_by_block(monkeypatch):
    """So that the very file is made whose size a search for a quality has found."""
    monkeypatch.setattr(search, "BLOCK", 32)
    monkeypatch.setattr(search, "PROBES", 2)
    monkeypatch.setattr(search, "MOVABLE", 1)  # so that it matters what the curvature is
    # Far out, what a move changes is another thing than near zero.
    symbols = SYMBOLS * np.where(np.arange(len(SYMBOLS)) < 32, 0, 3)[:, None].astype(np.int32)
    together = REFINER.refine(IMAGES, symbols, STEP, rounds=2)
    parts = [slice(start, start + 32) for start in range(0, len(IMAGES), 32)]
    apart = [REFINER.refine(IMAGES[part], symbols[part], STEP, rounds=2) for part in parts]
    assert np.array_equal(np.concatenate(apart), together)


def test_the_quadratic_model_predicts_what_moves_do():
    toward = RNG.choice(np.array([-1, 1], np.int32), SYMBOLS.shape)
    which = np.tile(np.array([2, 0, 3], np.int32), (len(SYMBOLS), 1))
    gradient, curvature = REFINER.quadratic_model(IMAGES, SYMBOLS, STEP, toward, which)
    before = REFINER.squared_errors(IMAGES, SYMBOLS, STEP)
    for m, d in enumerate(which[0]):
        moved = SYMBOLS.copy()
        moved[:, d] += toward[:, d]
        predicted = 2 * toward[:, d] * gradient[:, m] + curvature[:, m, m]
        after = REFINER.squared_errors(IMAGES, moved, STEP)
        np.testing.assert_allclose(predicted, after - before, atol=1e-4)


def test_bytes_or_floats_are_the_same_images():
    levels = np.rint(IMAGES * 255).astype(np.uint8)
    np.testing.assert_allclose(
        REFINER.squared_errors(levels, SYMBOLS, STEP),
        REFINER.squared_errors(levels / np.float32(255), SYMBOLS, STEP),
        rtol=1e-5,
    )


def test_the_slope_is_that_of_the_curve():
    slope = slope_per_step(decode, IMAGES, Z, TABLES)
    middle = quantize.step(50)
    errors, bits = [], []
    for step in (round(middle / 2**0.5), round(middle * 2**0.5)):
        symbols = quantize.quantize(Z, TABLES, step)
        errors.append(REFINER.squared_errors(IMAGES, symbols, step).sum())
        bits.append(TABLES.book(step).bits(symbols).sum())
    assert slope > 0
    assert slope == pytest.approx(
        (errors[1] - errors[0]) / (bits[0] - bits[1]) / middle**2, rel=1e-3
    )
