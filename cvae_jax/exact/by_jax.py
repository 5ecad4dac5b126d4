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
from cvae_jax.exact.architecture import KERNEL, Shape
from cvae_jax.exact.by_numpy import level_table
from cvae_jax.exact.integers import IntegerDecoder, Layer


def decoder(integers: IntegerDecoder) -> Callable[[np.ndarray], np.ndarray]:
    """``levels(inputs)``: int32 ``[N, P * L]`` of ``inputs_of`` -> uint8 ``[N, H, W, C]``."""
    # No more at once than a file's budget counts, also where the device would take thousands, and
    # on as many cores as have room in what it always allows.
    most = budget.at_once(integers.architecture.memory())
    in_turn = jax.jit(microbatched(lambda inputs: levels(integers, inputs), most))
    of_a_core = most * integers.architecture.memory()
    room = max(budget.ACTIVATIONS.always // of_a_core, 1)
    at_once = room if room <= cores() else None
    return lambda inputs: stream(in_turn, inputs, at_once=at_once)


def levels(integers: IntegerDecoder, inputs: Array) -> Array:
    """Grey levels of the first layer's inputs: int32 ``[B, P * L]`` -> uint8 ``[B, H, W, C]``."""
    n, shapes = len(inputs), integers.shapes
    lowest, highest = int(integers.thresholds[0]) - 1, int(integers.thresholds[-1])
    ranges = [(0, layer.top) for layer in integers.layers[:-1]] + [(lowest, highest)]
    # Integers below 2**24 in float32 are exact, unless a device multiplies them in fewer bits.
    with jax.default_matmul_precision("highest"):
        x = inputs.astype(jnp.float32).reshape(n, *shapes[0].before, shapes[0].inputs)
        before = x
        for shape, layer, (low, high) in zip(shapes, integers.layers, ranges, strict=True):
            sums = _dense(x, layer) if shape.dense else _transposed(x, layer, shape)
            if layer.skip is not None:
                sums += before * layer.skip.astype(np.float32)
            # Of a layer that skips, `before` is what went into the layer before it.
            before, x = x, _shifted(sums, layer, low, high)
            x = x.reshape(n, *shape.size, shape.channels)
    table = jnp.asarray(level_table(integers))
    return table.at[x.astype(jnp.int32) - lowest].get(mode="promise_in_bounds")


def _dense(x: Array, layer: Layer) -> Array:
    return x.reshape(len(x), -1) @ jnp.asarray(layer.weights, jnp.float32)


def _transposed(x: Array, layer: Layer, shape: Shape) -> Array:
    weights = layer.weights.transpose(2, 0, 1, 3).reshape(shape.inputs, KERNEL**2 * shape.channels)
    windows = x @ jnp.asarray(weights, jnp.float32)
    return fold(windows, (KERNEL, KERNEL), shape.stride, shape.size)


def _shifted(sums: Array, layer: Layer, low: int, high: int) -> Array:
    """``clip(sums + bias >> shift)``: every step exact, also where a compiler fuses two of them."""
    factor = np.float32(2) ** -np.tile(layer.shift, len(layer.bias) // len(layer.shift)).astype(
        np.float32
    )
    return jnp.clip(jnp.floor((sums + layer.bias.astype(np.float32)) * factor), low, high)
