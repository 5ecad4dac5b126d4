"""Better symbols of maps, for squared error + slope * bits: the best of many that are nearly alike.

A symbol changes what is expected of all after it, so that a few that are close calls, taken the
other way, change an image's cost by a few per cent, up or down.  Noise on the latents, too small to
harm, turns such calls; what costs an image less is kept, and noise added to that.  The decoder of a
file neither knows nor pays.
"""

from __future__ import annotations

import numpy as np

from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.prior import MapPrior
from cvae_jax.coding.search import Levels
from cvae_jax.metrics import mse_of_each
from cvae_jax.pixels import to_levels

TRIES = 8  # of each round of effort
NOISE = 0.03  # its standard deviation, in steps of the quantiser


class MapRefiner:
    """The search, for one decoder and its prior."""

    block = 128  # images that are refined together: it takes seconds, and can stop in between

    def __init__(self, prior: MapPrior, levels: Levels):
        """levels: of files, whose errors and bits count."""
        self._prior, self._levels = prior, levels

    def prepare(self, step: int, effort: int) -> None:
        """As ``coding.search.Refiner``; there is nothing to prepare."""

    def refine(self, images: np.ndarray, z_mean: np.ndarray, step: int, effort: int) -> np.ndarray:
        """Symbols of a low squared error + slope * bits: int32 ``[N, D]``.

        images: ``[N, H, W, C]``, uint8 or in [0, 1]; z_mean: their latents, ``[N, D]``; effort:
        rounds, from 0, which gives the codec's own.  No image's cost rises with effort, and the
        noise is the same for all: what an image gets does not depend on those beside it.
        """
        images, z = to_levels(images), np.array(z_mean)
        best = coder.quantized(self._prior, z, step)
        if not effort or not len(images):
            return best.symbols
        cost = self._cost(images, best, step)
        for number in range(TRIES * effort):
            noise = np.random.default_rng(number).standard_normal(z.shape[1], np.float32)
            moved = z + np.float32(NOISE * step * self._prior.unit_size) * noise
            found = coder.quantized(self._prior, moved, step)
            cost_found = self._cost(images, found, step)
            better = cost_found < cost
            z[better], cost[better] = moved[better], cost_found[better]
            best.symbols[better] = found.symbols[better]
        return best.symbols

    def _cost(self, images: np.ndarray, made: coder.Quantized, step: int) -> np.ndarray:
        """Squared error + slope * bits of each image, ``[N]``, as a file has them."""
        levels = self._levels(made.symbols, step)
        errors = mse_of_each(levels, images) * images[0].size
        bits = self._prior.book(step).bits_in(made.rows, made.symbols)
        return errors + self._prior.slope * step**2 * bits
