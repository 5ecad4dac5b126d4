"""Fits coding tables to a model's latents: a mixture of diagonal Gaussians, in integers."""

from __future__ import annotations

import dataclasses

import numpy as np

from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.quantize import UNITS_PER_SIGMA, quantize
from cvae_jax.coding.vectors.tables import REACH, SUBUNIT, Tables

MAX_COMPONENTS = 256
IMAGES_PER_COMPONENT = 100
_POINTS_PER_SIGMA = 16  # of the curve
_SMALLEST_SPREAD = 0.1  # in sigmas; the finest step is a third of one
# What tables are rounded to, so that they take few bytes.
_MEAN_STEP = 64  # units
_WIDTHS_PER_OCTAVE = 8
_CURVE_BITS = 20
_PRIOR_IMAGES = 3  # how many images the overall spread counts for in a component


def fit_tables(z_mean: np.ndarray, sigma: np.ndarray) -> Tables:
    """Tables for latents like these.

    z_mean: ``[N, D]`` of training images; sigma: ``[D]``, the mean posterior standard deviation.
    A mixture of diagonal Gaussians is fitted (EM, Dempster et al. 1977; in the end each image
    belongs to one component, as in the coder) and its parameters are rounded to integers.  The
    curve that all dimensions share is the residuals' distribution.  The slope is left at 1.
    """
    unit = (sigma / UNITS_PER_SIGMA).astype(np.float32)
    x = z_mean.astype(np.float64) / (unit.astype(np.float64) * UNITS_PER_SIGMA)
    components = max(1, min(MAX_COMPONENTS, len(x) // IMAGES_PER_COMPONENT))
    weights, means, spreads = _fit(x, components)

    means = np.rint(means * (UNITS_PER_SIGMA / _MEAN_STEP)) * (_MEAN_STEP / UNITS_PER_SIGMA)
    spreads = 2 ** (np.rint(np.log2(spreads) * _WIDTHS_PER_OCTAVE) / _WIDTHS_PER_OCTAVE)
    widths = np.rint(spreads * (UNITS_PER_SIGMA * SUBUNIT / _POINTS_PER_SIGMA))
    tables = Tables(
        unit=unit,
        slope=1.0,
        weights=_frequencies(weights),
        means=np.rint(means * UNITS_PER_SIGMA).astype(np.int32),
        widths=np.maximum(widths, 1).astype(np.uint32),
        curve=_curve(np.zeros(2 * REACH)),
    )
    # Residuals come last, as only the tables say which component an image belongs to.
    component = tables.assign(quantize(z_mean, tables, 1), 1)
    residuals = (x - means[component]) / spreads[component]
    inside = np.clip((residuals + REACH / _POINTS_PER_SIGMA) * _POINTS_PER_SIGMA, 0, 2 * REACH - 1)
    counts = np.bincount(inside.astype(np.int64).ravel(), minlength=2 * REACH)
    tables = dataclasses.replace(tables, curve=_curve(counts.astype(np.float64)))
    tables.validate()
    return tables


def _fit(x: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights ``[K]``, means and standard deviations ``[K, D]`` of a mixture for ``[N, D]``."""
    overall = x.var(0)
    start = np.random.default_rng(0).permutation(len(x))[:components]
    means, variances = x[start], np.tile(overall + _SMALLEST_SPREAD**2, (components, 1))
    weights = np.full(components, 1 / components)
    soft, hard = 30, 10
    for iteration in range(soft + hard):
        counts, sums, squares = 0, 0, 0
        for rows in np.array_split(x, -(-len(x) // 8192)):
            log_p = (
                rows @ (means / variances).T
                - 0.5 * (rows**2 @ (1 / variances).T)
                - 0.5 * (means**2 / variances + np.log(variances)).sum(1)
                + np.log(weights)
            )
            if iteration < soft:
                share = np.exp(log_p - log_p.max(1, keepdims=True))
                share /= share.sum(1, keepdims=True)
            else:
                share = (log_p == log_p.max(1, keepdims=True)).astype(np.float64)
            counts = counts + share.sum(0)
            sums = sums + share.T @ rows
            squares = squares + share.T @ rows**2
        counts = np.maximum(counts, 1e-3)
        weights = counts / counts.sum()
        means = sums / counts[:, None]
        variances = np.maximum(squares / counts[:, None] - means**2, 0)
        # As if a few more images had been seen, spread as widely as all images are.
        variances = (counts[:, None] * variances + _PRIOR_IMAGES * overall) / (
            counts[:, None] + _PRIOR_IMAGES
        )
        variances += _SMALLEST_SPREAD**2
    return weights, means, np.sqrt(variances)


def _frequencies(weights: np.ndarray) -> np.ndarray:
    """Integers of at least 1, in proportion to the weights, that add up to TOTAL."""
    frequencies = np.floor(weights / weights.sum() * (TOTAL - len(weights))).astype(np.int64) + 1
    frequencies[frequencies.argmax()] += TOTAL - frequencies.sum()
    return frequencies.astype(np.uint32)


def _curve(counts: np.ndarray) -> np.ndarray:
    """A strictly increasing cumulative curve of these counts, with a little of a normal added."""
    points = (np.arange(2 * REACH) - REACH + 0.5) / _POINTS_PER_SIGMA
    normal = np.exp(-0.5 * points**2)
    density = counts / max(counts.sum(), 1) + 0.01 * normal / normal.sum() + 1e-9
    density = density + density[::-1]  # latents are as often positive as negative
    cumulative = np.concatenate([[0], np.cumsum(density / density.sum())])
    return (np.rint(cumulative * (1 << _CURVE_BITS)) + np.arange(2 * REACH + 1)).astype(np.uint32)
