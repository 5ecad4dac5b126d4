"""The integer decoder compiled by JAX: the same levels as ``by_numpy``, on any device."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax.backend import microbatched, stream
from cvae_jax.batching import cores
from cvae_jax.bitstream import budget
from cvae_jax.conv import fold
from cvae_jax.exact.by_numpy import level_table
from cvae_jax.exact.integers import KERNEL, STRIDE, IntegerDecoder, Layer


def decoder(integers: IntegerDecoder) -> Callable[[np.ndarray], np.ndarray]:
    """``levels(inputs)``: int32 ``[N, L]`` of ``inputs_of`` -> uint8 ``[N, H, W, C]``."""
    # No more at once than a file's budget counts, also where the device would take thousands, and
    # on as many cores as have room in what it always allows.
    in_turn = jax.jit(microbatched(lambda inputs: levels(integers, inputs), budget.MICROBATCH))
    of_a_core = budget.MICROBATCH * integers.architecture.memory()
    room = max(budget.ACTIVATIONS.always // of_a_core, 1)
    at_once = room if room <= cores() else None
    return lambda inputs: stream(in_turn, inputs, at_once=at_once)


def levels(integers: IntegerDecoder, inputs: Array) -> Array:
    """Grey levels of the first layer's inputs: int32 ``[B, L]`` -> uint8 ``[B, H, W, C]``."""
    architecture = integers.architecture
    sizes = architecture.sizes
    first, *middle, last = integers.layers
    # Integers below 2**24 in float32 are exact, unless a device multiplies them in fewer bits.
    with jax.default_matmul_precision("highest"):
        sums = inputs.astype(jnp.float32) @ jnp.asarray(first.weights, jnp.float32)
        x = _shifted(sums, first, 0, first.top).reshape(len(inputs), *sizes[0], -1)
        for layer, larger in zip(middle, sizes[1:], strict=False):
            x = _shifted(_transposed(x, layer, STRIDE, larger), layer, 0, layer.top)
        lowest, highest = int(integers.thresholds[0]) - 1, int(integers.thresholds[-1])
        outputs = _shifted(_transposed(x, last, 1, sizes[-1]), last, lowest, highest)
    table = jnp.asarray(level_table(integers))
    return table.at[outputs.astype(jnp.int32) - lowest].get(mode="promise_in_bounds")


def _transposed(x: Array, layer: Layer, stride: int, size: tuple[int, int]) -> Array:
    weights = layer.weights.transpose(2, 0, 1, 3).reshape(x.shape[-1], -1)
    return fold(x @ jnp.asarray(weights, jnp.float32), (KERNEL, KERNEL), stride, size)


def _shifted(sums: Array, layer: Layer, low: int, high: int) -> Array:
    """``clip(sums + bias >> shift)``: every step exact, also where a compiler fuses two of them."""
    factor = np.float32(2) ** -np.tile(layer.shift, len(layer.bias) // len(layer.shift)).astype(
        np.float32
    )
    return jnp.clip(jnp.floor((sums + layer.bias.astype(np.float32)) * factor), low, high)
