"""Latents to integer symbols and back, in units of the model's own precision.

A latent is measured in units, 1/256 of its dimension's mean posterior standard deviation: the
model's own measure of how precisely it needs to be known.  A quantiser step is a whole number of
units, the same for all dimensions.
"""

from __future__ import annotations

import numbers

import numpy as np

from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.prior import MapPrior
from cvae_jax.coding.streams import CodingTables
from cvae_jax.errors import ConfigError

UNITS_PER_SIGMA = 256
COARSEST = 4096  # units: 16 sigma, at quality 0
QUALITIES_PER_HALVING = 18
DEFAULT_QUALITY = 50


def step(quality: float) -> int:
    """The quantiser's step in units: from 4096 at quality 0 to 87 at quality 100.

    Raises:
      ConfigError: not a number from 0 to 100.
    """
    number = isinstance(quality, numbers.Real) and not isinstance(quality, bool)
    if not number or not 0 <= quality <= 100:
        shown = f"{quality:g}" if number else repr(quality)
        raise ConfigError(f"quality must be a number from 0 to 100, not {shown}")
    return round(COARSEST * 2 ** (-quality / QUALITIES_PER_HALVING))


def quality(step: int) -> float:
    """The quality that gives this step."""
    return QUALITIES_PER_HALVING * float(np.log2(COARSEST / step))


def quantize(z: np.ndarray, tables: CodingTables, step: int) -> np.ndarray:
    """The nearest symbols, of maps cheap ones near by: float32 ``[N, D]`` -> int32 ``[N, D]``."""
    if isinstance(tables, MapPrior):
        return coder.quantize(tables, z, step)
    symbols = np.rint(z.astype(np.float64) / (tables.unit.astype(np.float64) * step))
    return np.clip(symbols, -(2**31), 2**31 - 1).astype(np.int32)


def units(symbols: np.ndarray, tables: CodingTables, step: int) -> np.ndarray:
    """The latents that symbols stand for, in units: int32 ``[N, D]`` -> int64 ``[N, D]``."""
    if isinstance(tables, MapPrior):
        return coder.units(tables, symbols, step)
    return symbols.astype(np.int64) * step


def dequantize(symbols: np.ndarray, tables: CodingTables, step: int) -> np.ndarray:
    """The latents that symbols stand for: int32 ``[N, D]`` -> float32 ``[N, D]``."""
    return (units(symbols, tables, step) * tables.unit.astype(np.float64)).astype(np.float32)
