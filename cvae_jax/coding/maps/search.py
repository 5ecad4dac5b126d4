"""Better latents of maps: a descent on squared error + slope * bits, before they are rounded.

Rounding moves each latent by up to half a step, so the error is taken under noise of that width, in
opposite pairs, which cancels most of what noise adds to a gradient (Yang et al. 2020,
arXiv:2006.04240, refine latents at the encoder in the same spirit).  The noise is the same for all
images: what an image gets does not depend on the images beside it, up to the rounding of floats.
The decoder of a file neither knows nor pays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae_jax.backend import microbatched, stream
from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.prior import MapPrior
from cvae_jax.coding.search import Decode, Levels
from cvae_jax.metrics import mse_of_each
from cvae_jax.pixels import to_levels, to_unit

DESCENTS = 8  # of each round of effort
RATE = 0.075  # Adam's first learning rate in one round, in steps of the quantiser
DECAYS = 0.9, 0.99  # of Adam's two moments
TINY = 1e-8

Nats = Callable[[Array, Array], Array]  # [B, D], steps [B] -> [B], of coding the latents


class MapRefiner:
    """The search, for one decoder and its prior."""

    block = 128  # images that are refined together: it takes seconds, and can stop in between

    def __init__(self, decode: Decode, nats: Nats, prior: MapPrior, levels: Levels):
        """levels: of files, whose errors and bits count in the end."""
        self._decode, self._nats, self._prior, self._levels = decode, nats, prior, levels
        self._descended = functools.cache(self._descent)

    def prepare(self, step: int, effort: int) -> None:
        """What is compiled, once, before there are threads."""
        self._descended(effort)

    def refine(self, images: np.ndarray, z_mean: np.ndarray, step: int, effort: int) -> np.ndarray:
        """Symbols of a low squared error + slope * bits: int32 ``[N, D]``.

        images: ``[N, H, W, C]``, uint8 or in [0, 1]; z_mean: their latents, ``[N, D]``; effort:
        rounds, from 0, which gives the codec's own.  No image's cost is above theirs.
        """
        own = coder.quantize(self._prior, z_mean, step)
        if not effort or not len(images):
            return own
        wide = np.full(len(images), step * self._prior.unit_size, np.float32)
        z = stream(self._descended(effort), images, np.asarray(z_mean), wide)
        found = coder.quantize(self._prior, z, step)
        better = self._cost(images, found, step) < self._cost(images, own, step)
        return np.where(better[:, None], found, own)

    def _cost(self, images: np.ndarray, symbols: np.ndarray, step: int) -> np.ndarray:
        """Squared error + slope * bits of each image, ``[N]``, as a file has them."""
        levels = self._levels(symbols, step)
        errors = mse_of_each(levels, to_levels(images)) * levels[0].size
        return errors + self._prior.slope * step**2 * coder.bits(self._prior, symbols, step)

    def _descent(self, rounds: int) -> Callable[..., Array]:
        """From images, latents ``[B, D]`` and the width of a step ``[B]`` to better latents."""
        count, rate = DESCENTS * rounds, RATE / math.sqrt(rounds)
        # Squared error that a nat is worth, over the squared width of a step.
        nat = self._prior.slope / self._prior.unit_size**2 / math.log(2)

        def cost(z: Array, images: Array, wide: Array) -> Array:
            errors = jnp.sum((self._decode(z) - images).reshape(len(z), -1) ** 2, axis=1)
            return jnp.sum(errors / (nat * wide**2) + self._nats(z, wide))

        def descended(images: Array, z_mean: Array, wide: Array) -> Array:
            images, each = to_unit(images), wide[:, None]

            def step(number: Array, state: tuple[Array, Array, Array]) -> tuple[Array, ...]:
                z, mean, square = state
                key = jax.random.fold_in(jax.random.key(0), number)
                noise = each * (jax.random.uniform(key, z.shape[1:]) - 0.5)
                sides = [jax.grad(cost)(z + side * noise, images, wide) for side in (1, -1)]
                slope = (sides[0] + sides[1]) / 2 * each  # in steps of the quantiser
                (first, second), t = DECAYS, number + 1
                mean = first * mean + (1 - first) * slope
                square = second * square + (1 - second) * slope**2
                lowered = rate * 0.5 * (1 + jnp.cos(math.pi * number / count))
                move = mean / (1 - first**t) / (jnp.sqrt(square / (1 - second**t)) + TINY)
                return z - lowered * move * each, mean, square

            zero = jnp.zeros_like(z_mean)
            return lax.fori_loop(0, count, step, (z_mean, zero, zero))[0]

        return jax.jit(microbatched(descended))
