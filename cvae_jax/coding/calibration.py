"""Calibration: a model's coding tables, and what a bit is worth to it."""

from __future__ import annotations

import dataclasses

import numpy as np

from cvae_jax.coding.mixture import fit_tables
from cvae_jax.coding.search import Decode, slope_per_step
from cvae_jax.coding.tables import Tables
from cvae_jax.modules import Posterior

SLOPE_IMAGES = 2048  # on which the slope is measured


def calibrate(decode: Decode, images: np.ndarray, posterior: Posterior) -> Tables:
    """A model's tables, measured on training images, uint8 ``[N, H, W, C]``.

    decode: from latents ``[B, D]`` to images in [0, 1]; posterior: the images', ``[N, D]`` twice.
    """
    sigma = np.exp(np.asarray(posterior.z_log_var, np.float64) / 2).mean(0)
    tables = fit_tables(np.asarray(posterior.z_mean), sigma)
    some = slice(SLOPE_IMAGES)
    slope = slope_per_step(decode, images[some], np.asarray(posterior.z_mean[some]), tables)
    return dataclasses.replace(tables, slope=slope)
