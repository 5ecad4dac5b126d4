"""The prior of a map of latents: what each of them is likely to be, given those before it.

Latents come row by row; at a place, their channels come in ``MAP_GROUPS`` groups.  A group's law
takes the places before it, up to two rows above and two columns to the left and the right, and the
earlier groups at its own place.  A latent's law is logistic.  Files hold by how many *steps* a
latent differs from its mean; the probability of one is that of its bin, as wide as the step.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import log_ndtr, ndtr
from jax.typing import DTypeLike

from cvae_jax.config import MAP_GROUPS
from cvae_jax.layers import Dense, at_least_float32

STEPS = 0.3, 1.8  # the least and the greatest that training draws; 1 is what the model is made for
ROWS, COLUMNS = 2, 2  # how far a place looks up, and to either side
NEIGHBOURS = ROWS * (2 * COLUMNS + 1) + COLUMNS
SCALE = 4  # latents are divided by, to be about 1
CONTEXT, FIRST, SECOND = 96, 64, 48  # widths of the layers
LOG_SCALES = -5.0, 6.0
LEAST = 1e-9  # probability of a bin


class Laws(NamedTuple):
    """Logistic laws of latents, given those before them; arrays of one shape."""

    mean: Array
    log_scale: Array


class Coded(NamedTuple):
    """Latents as files hold them, and what the prior makes of them."""

    z: Array  # [B, h, w, C], a step apart up to noise
    step: Array  # [B]
    laws: Laws  # of [B, h, w, C]


class MapPrior(nn.Module):
    """Latents ``[B, h, w, C]`` and steps ``[B]`` to the latents' laws, ``[B, h, w, C]`` too."""

    channels: int  # C
    dtype: DTypeLike = jnp.float32

    def setup(self):
        groups, each = range(MAP_GROUPS), self.channels // MAP_GROUPS
        self.context = Dense(CONTEXT, self.dtype)
        self.first = [Dense(FIRST, self.dtype) for _ in groups]
        self.second = [Dense(SECOND, self.dtype) for _ in groups]
        self.output = [Dense(2 * each, self.dtype, 0.1) for _ in groups]

    def __call__(self, z: Array, step: Array) -> Laws:
        context = self.context_of(_before(_framed(z)), step)
        return self.laws_of(context, z)

    def context_of(self, before: Array, step: Array) -> Array:
        """What the places before make of each place: ``[B, h, w, CONTEXT]``.

        before: their latents, ``[B, h, w, NEIGHBOURS * C]``.
        """
        log_step = jnp.broadcast_to(jnp.log(step)[:, None, None, None], (*before.shape[:3], 1))
        inputs = jnp.concatenate([before / SCALE, log_step], axis=-1)
        return nn.relu(self.context(inputs.astype(self.dtype)))

    def laws_of(self, context: Array, z: Array) -> Laws:
        """The laws of all groups at their places, ``[B, h, w, C]``."""
        laws = [self.group(k, context, z) for k in range(MAP_GROUPS)]
        return Laws(*(jnp.concatenate(parts, axis=-1) for parts in zip(*laws, strict=True)))

    def group(self, k: int, context: Array, z: Array) -> Laws:
        """The laws of group ``k``, ``[B, h, w, C / MAP_GROUPS]``, of which z has those before."""
        each = self.channels // MAP_GROUPS
        earlier = (z[..., : k * each] / SCALE).astype(self.dtype)
        x = jnp.concatenate([context, earlier], axis=-1)
        x = self.output[k](nn.relu(self.second[k](nn.relu(self.first[k](x)))))
        x = at_least_float32(x)
        return Laws(x[..., :each] * SCALE, jnp.clip(x[..., each:], *LOG_SCALES))

    def draw(self, noise: Array) -> Array:
        """Latents at a step of 1, drawn from the prior: ``[B, h, w, C]`` of N(0, 1) to the same."""
        n, h, w, channels = noise.shape
        each, step = channels // MAP_GROUPS, jnp.ones(n, noise.dtype)
        standard = log_ndtr(noise) - log_ndtr(-noise)  # logistic where the noise is normal

        def place(number, canvas):
            y, x = number // w, number % w
            window = (n, ROWS + 1, 2 * COLUMNS + 1, channels)
            around = lax.dynamic_slice(canvas, (0, y, x, 0), window)
            context = self.context_of(_before(around), step)
            drawn = lax.dynamic_slice(standard, (0, y, x, 0), (n, 1, 1, channels))
            for k in range(MAP_GROUPS):
                group = slice(k * each, (k + 1) * each)
                mean, log_scale = self.group(k, context, drawn)
                latents = mean + jnp.rint(jnp.exp(log_scale) * drawn[..., group])
                drawn = drawn.at[..., group].set(latents)
            return lax.dynamic_update_slice(canvas, drawn, (0, y + ROWS, x + COLUMNS, 0))

        canvas = lax.fori_loop(0, h * w, place, _framed(jnp.zeros_like(noise)))
        return canvas[:, ROWS:, COLUMNS:-COLUMNS]


def kernel_shapes(channels: int) -> dict[str, tuple[int, int]]:
    """The shapes of the kernels of ``MapPrior``, by the names of its layers."""
    each = channels // MAP_GROUPS
    shapes = {"context": (NEIGHBOURS * channels + 1, CONTEXT)}
    for k in range(MAP_GROUPS):
        shapes[f"first_{k}"] = (CONTEXT + k * each, FIRST)
        shapes[f"second_{k}"] = (FIRST, SECOND)
        shapes[f"output_{k}"] = (SECOND, 2 * each)
    return shapes


def _framed(z: Array) -> Array:
    """``[B, h, w, C]`` with the zeros around that places at the edge see."""
    return jnp.pad(z, ((0, 0), (ROWS, 0), (COLUMNS, COLUMNS), (0, 0)))


def _before(framed: Array) -> Array:
    """The latents at the places before each: ``[B, h, w, NEIGHBOURS * C]``, the highest row first,
    each from the left."""
    h, w = framed.shape[1] - ROWS, framed.shape[2] - 2 * COLUMNS
    offsets = [divmod(i, 2 * COLUMNS + 1) for i in range(NEIGHBOURS)]
    return jnp.concatenate([framed[:, i : i + h, j : j + w] for i, j in offsets], axis=-1)


def uniform(noise: Array) -> Array:
    """Numbers from 0 to 1, evenly spread, of noise ~ N(0, 1)."""
    return ndtr(noise)


def drawn_step(noise: Array) -> Array:
    """A step from ``STEPS``, on an even logarithmic scale, of noise ~ N(0, 1)."""
    least, greatest = STEPS
    return least * (greatest / least) ** uniform(noise)


def nats(coded: Coded) -> Array:
    """What coding the latents of each image takes, ``[B]``: minus the logarithm of the
    probability of their bins."""
    step = coded.step[:, None, None, None]
    return -jnp.sum(jnp.log(bin_probability(coded.z, coded.laws, step)), axis=(1, 2, 3))


def bin_probability(z: Array, laws: Laws, step: Array) -> Array:
    """The probability of the bins around latents, at least ``LEAST``; arrays that go together."""
    scale = jnp.exp(laws.log_scale)
    away = jnp.abs(z - laws.mean)  # by symmetry, and on this side differences stay accurate
    inner, outer = (jax.nn.sigmoid((side * step / 2 - away) / scale) for side in (1, -1))
    return jnp.maximum(inner - outer, LEAST)
