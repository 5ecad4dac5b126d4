"""The context model: a small network from a pixel's neighbours to a distribution of its level.

The level is first said to be the expected one or not (``hit``).  If not, it has one of the other
255, with logits that are a sum of two: of the level, where images have peaks, and of its difference
to the expected level, where they are smooth.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cvae_jax.modules import Params
from cvae_jax.refinement import neighbours
from cvae_jax.refinement.grid import LEVELS
from cvae_jax.refinement.neighbours import AROUND, BASE_STEP, CAUSAL, FULL, HIGH


class Contexts(NamedTuple):
    """What the distributions of B pixels depend on."""

    values: Array  # uint8 [B, V]: causal pixels, the coarse base, earlier channels
    expected: Array  # uint8 [B], ``neighbours.expected``
    based: Array  # bool [B], whether there is a base; where not, its values are 0
    max_error: Array  # uint8 [B], of the pixels around: how much they may be off
    row: Array  # int32 [B], where the pixel is
    column: Array
    channel: Array


class Logits(NamedTuple):
    hit: Array  # [B], of the expected level against all others
    levels: Array  # [B, 256], of each level if it is not the expected one


class ContextNetwork(nn.Module):
    image_shape: tuple[int, int, int]
    hidden: tuple[int, int]

    @nn.compact
    def __call__(self, contexts: Contexts) -> Logits:
        first, second = self.hidden
        x = nn.Dense(first, name="first")(network_inputs(contexts))
        for name, size in zip(("row", "column", "channel"), self.image_shape, strict=True):
            x += self.param(name, nn.initializers.zeros, (size, first))[getattr(contexts, name)]
        x = nn.relu(x)
        x = nn.relu(nn.Dense(second, name="second")(x))
        hit = nn.Dense(1, name="hit")(x)[:, 0]
        levels = nn.Dense(LEVELS, name="levels")(x)
        differences = nn.Dense(LEVELS, use_bias=False, name="differences")(x)
        return Logits(hit, levels + _at_levels(differences, contexts.expected))


def _at_levels(differences: Array, expected: Array) -> Array:
    """Logits of differences modulo 256, moved to the levels that they make: ``[B, 256]`` both."""
    at = (jnp.arange(LEVELS) - expected[:, None].astype(jnp.int32)) % LEVELS
    return jnp.take_along_axis(differences, at, axis=1)


def network_inputs(contexts: Contexts) -> Array:
    """``[B, neighbours.inputs]``, 1/255 of the integers that files use."""
    causal, others = contexts.values[:, : len(CAUSAL)], contexts.values[:, len(CAUSAL) :]
    base, earlier = others[:, : len(AROUND)], others[:, len(AROUND) :]
    expected, based = contexts.expected[:, None].astype(jnp.int32), contexts.based[:, None]
    zero = (causal == 0, (base == 0) & based, earlier == 0)
    high = (causal >= HIGH, base >= HIGH // BASE_STEP * BASE_STEP, earlier >= HIGH)
    marks = jnp.concatenate([*zero, *high, based], axis=1) * FULL
    error = contexts.max_error[:, None].astype(jnp.int32) * neighbours.ERROR_UNIT
    levels = jnp.concatenate([causal - expected, base, earlier, expected, error], axis=1)
    return jnp.concatenate([levels, marks], axis=1).astype(jnp.float32) / FULL


def nats(logits: Logits, level: Array, contexts: Contexts) -> Array:
    """What each pixel costs: ``-log p`` of its level's cell; level: uint8 ``[B]`` -> ``[B]``."""
    levels, expected = jnp.arange(LEVELS), contexts.expected[:, None]
    others = jax.nn.log_softmax(jnp.where(levels == expected, -jnp.inf, logits.levels))
    hit = logits.hit[:, None]
    log_p = jnp.where(
        levels == expected, jax.nn.log_sigmoid(hit), jax.nn.log_sigmoid(-hit) + others
    )
    error = contexts.max_error.astype(jnp.int32)
    # As `grid.Grid` has it.
    pitch, expected = 2 * error + 1, contexts.expected.astype(jnp.int32)
    lowest = expected - (expected + error) // pitch * pitch
    middle = lowest + (level - lowest + error) // pitch * pitch
    in_cell = jnp.abs(levels - middle[:, None]) <= error[:, None]
    return -jax.nn.logsumexp(jnp.where(in_cell, log_p, -jnp.inf), axis=1)


def apply(network: ContextNetwork, params: Params, contexts: Contexts) -> Logits:
    """The distributions of B pixels."""
    logits: Any = network.apply({"params": params}, contexts)
    return logits


def init_params(network: ContextNetwork, key: Array) -> Params:
    """Fresh parameters, float32."""
    none = jnp.zeros(1, jnp.int32)
    values = jnp.zeros((1, neighbours.values(network.image_shape[2])), jnp.uint8)
    contexts = Contexts(values, none, none == 0, none, none, none, none)
    return jax.jit(network.init)(key, contexts)["params"]
