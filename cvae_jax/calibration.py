"""Gives a checkpoint its coding tables, once, from the images that it was trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cvae_jax import checkpoint, codec, quantize, rdo
from cvae_jax.entropy import Tables

SLOPE_IMAGES = 2048


def calibrate(path: str | Path, images: np.ndarray) -> Tables:
    """Measures the tables on training images, uint8 ``[N, H, W, C]``, and adds them to the
    checkpoint, in place of ones that it may have.

    Files are tied to the tables: with new ones, what was compressed before is refused.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be written.
      DataError: the images are not the model's.
    """
    found = checkpoint.find(path)
    c = codec.load(found)
    posterior = c.posterior(images)
    sigma = np.exp(posterior.z_log_var.astype(np.float64) / 2).mean(0)
    tables = quantize.calibrate(posterior.z_mean, sigma)
    some = slice(SLOPE_IMAGES)
    slope = rdo.slope_per_step(
        lambda z: codec.decode(c.params, z, c.model), images[some], posterior.z_mean[some], tables
    )
    tables = dataclasses.replace(tables, slope=slope)
    checkpoint.attach(found, codec.TABLES, tables.to_bytes())
    return tables
