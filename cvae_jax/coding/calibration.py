"""Calibration: a model's coding tables, what a bit is worth to it, and its usual errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from cvae_jax.coding import usual
from cvae_jax.coding.quantize import quantize, step
from cvae_jax.coding.search import Decode, slope_per_step
from cvae_jax.coding.streams import CodingTables
from cvae_jax.coding.usual import UsualErrors
from cvae_jax.coding.vectors.mixture import fit_tables
from cvae_jax.coding.vectors.tables import Tables
from cvae_jax.metrics import mse_of_each
from cvae_jax.modules import Posterior

SLOPE_IMAGES = 2048  # on which the slope is measured


def calibrate(
    decode: Decode, images: np.ndarray, posterior: Posterior, sigma: np.ndarray | None = None
) -> Tables:
    """A model's tables, measured on training images, uint8 ``[N, H, W, C]``.

    decode: from latents ``[B, D]`` to images in [0, 1]; posterior: the images', ``[N, D]`` twice;
    sigma: the mean posterior standard deviation, ``[D]``, where more images than these have a part
    in it.
    """
    if sigma is None:
        sigma = np.exp(np.asarray(posterior.z_log_var, np.float64) / 2).mean(0)
    tables = fit_tables(np.asarray(posterior.z_mean), sigma)
    some = slice(SLOPE_IMAGES)
    slope = slope_per_step(decode, images[some], np.asarray(posterior.z_mean[some]), tables)
    return dataclasses.replace(tables, slope=slope)


def usual_errors(
    levels: Callable[[np.ndarray, int], np.ndarray],
    images: np.ndarray,
    z_mean: np.ndarray,
    tables: CodingTables,
) -> UsualErrors:
    """The usual errors of a model on images like its training data, uint8 ``[N, H, W, C]``, N >= 1.

    levels: from symbols ``[N, D]`` and the step to uint8 images; z_mean: the images' latents,
    ``[N, D]``.
    """
    steps = tuple(map(step, usual.QUALITIES))
    mse = []
    for at in steps:
        decoded = levels(quantize(z_mean, tables, at), at)
        quantiles = np.percentile(mse_of_each(decoded, images), usual.PERCENT)
        mse.append(tuple(float(f"{error:.6g}") for error in quantiles))
    return UsualErrors(len(images), steps, tuple(mse))
