"""The search for better symbols: never worse by its own measure, and never needed to decode."""

import itertools

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


def test_no_image_gets_worse_with_effort_and_most_get_better():
    found = [REFINER.refine(IMAGES, Z, STEP, effort) for effort in (0, 1, 2, 3, 9)]
    assert all(symbols.dtype == np.int32 for symbols in found)
    assert np.array_equal(found[0], SYMBOLS)
    costs = [cost(symbols) for symbols in found]
    for less, more in itertools.pairwise(costs):
        assert (more <= less).all()
    for searched in costs[1:]:
        assert (searched < costs[0]).mean() > 0.5
    assert costs[2].sum() < costs[1].sum()


def test_what_an_image_gets_depends_neither_on_its_block_nor_on_calls_before(monkeypatch):
    """So that the very file is made whose size a search for a quality has found."""
    together = REFINER.refine(IMAGES, Z, STEP, effort=3)
    monkeypatch.setattr(search, "BLOCK", 32)
    other = Refiner(decode, TABLES)
    other.refine(IMAGES[:3], Z[:3], 2 * STEP, effort=1)
    assert np.array_equal(other.refine(IMAGES, Z, STEP, effort=3), together)
    assert np.array_equal(other.refine(IMAGES[40:45], Z[40:45], STEP, 3), together[40:45])


def test_no_images_give_no_symbols():
    assert REFINER.refine(IMAGES[:0], Z[:0], STEP, effort=2).shape == (0, 4)


def test_the_average_curvature_is_that_of_single_moves():
    average = REFINER.average_curvature(STEP)
    np.testing.assert_allclose(average, average.T, rtol=1e-5)
    assert (np.linalg.eigvalsh(average) > -1e-6).all()
    z = search._typical(TABLES)
    symbols = quantize.quantize(z, TABLES, STEP)
    here = np.asarray(decode(quantize.dequantize(symbols, TABLES, STEP)))
    for d in range(4):
        moved = symbols + np.eye(4, dtype=np.int32)[d]
        change = REFINER.squared_errors(here, moved, STEP).mean()
        assert change == pytest.approx(average[d, d], rel=1e-4)


def test_descending_never_raises_what_it_descends_on():
    book, slope = TABLES.book(STEP), TABLES.slope * STEP**2
    changes = RNG.normal(size=(len(SYMBOLS), 3, 5))
    curvature = changes @ changes.transpose(0, 2, 1)
    gradient = RNG.normal(size=(len(SYMBOLS), 3)) * 3
    which = np.tile(np.array([2, 0, 3]), (len(SYMBOLS), 1))
    symbols = SYMBOLS.copy()
    symbols[0] = book.first[0] - 1000  # far outside any row: it has nowhere to go
    moved = search._descend(symbols, which, gradient, curvature, book, slope)
    moves = (moved - symbols)[:, which[0]]
    assert not (moved - symbols)[:, 1].any()
    assert not moves[0].any()
    assert 0 < np.abs(moves).max() <= search.SWEEPS
    rows = search._rows(book, symbols)
    bits = [book.prices(rows, s - book.first[rows]).sum(1)[1:] for s in (symbols, moved)]
    quadratic = np.einsum("nm,nmk,nk->n", moves, curvature, moves) + 2 * (gradient * moves).sum(1)
    change = quadratic[1:] + slope * (bits[1] - bits[0])
    assert (change <= 1e-9).all()
    assert (change < 0).mean() > 0.5


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
