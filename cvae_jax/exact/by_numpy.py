"""The integer decoder in NumPy: for machines and for moments without JAX.

Activations are ``[channels, rows, columns, images]``: what NumPy then goes through in one sweep is
long, and the bias of a channel is one number for all of it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cvae_jax.batching import cores, mapped, products_in_one_thread
from cvae_jax.bitstream import budget
from cvae_jax.exact.architecture import KERNEL, Architecture, Shape, low_padding
from cvae_jax.exact.integers import IntegerDecoder

MICROBATCH = 8  # images whose temporaries stay in the cache


class _ScaledLayer(NamedTuple):
    """A layer whose sums need no shift: all its numbers come times a power of two, exactly."""

    weights: np.ndarray  # float32 [outputs, inputs]; of a convolution [taps * channels, inputs]
    bias: np.ndarray  # float32 [outputs or channels]
    skip: np.ndarray | None  # float32 [channels]


class _Scratch(NamedTuple):
    """Memory that a transposed convolution works in, kept because asking for it anew is slow.

    The shapes are ``Shape.scratch``, for n images.
    """

    taps: np.ndarray  # [3, 3, channels, h, w, n], what each tap of the kernel makes of the inputs
    # [stride, stride, channels, h + 2 // stride, w + 2 // stride, n]: one plane per phase (row and
    # column modulo the stride), so that each tap adds a contiguous block.
    sums: np.ndarray
    out: np.ndarray  # [channels, H, W, n]


def decoder(integers: IntegerDecoder) -> Callable[[np.ndarray], np.ndarray]:
    """``levels(inputs)``: int32 ``[N, P * L]`` of ``inputs_of`` -> uint8 ``[N, H, W, C]``."""
    architecture, shapes = integers.architecture, integers.shapes
    layers = list(_layers(integers))
    lowest, highest = int(integers.thresholds[0]) - 1, int(integers.thresholds[-1])
    ranges = [(0, layer.top) for layer in integers.layers[:-1]] + [(lowest, highest)]
    table = level_table(integers)

    def decode_microbatch(inputs: np.ndarray, scratch: list[_Scratch]) -> np.ndarray:
        by_place = inputs.reshape(len(inputs), *shapes[0].before, shapes[0].inputs)
        x = before = by_place.transpose(3, 1, 2, 0).astype(np.float32, order="C")
        convolutions = iter(scratch)
        for shape, layer, limits in zip(shapes, layers, ranges, strict=True):
            if shape.dense:
                made = _dense(x, layer, shape, limits)
            else:
                made = _transposed(x, before, layer, shape, limits, next(convolutions))
            before, x = x, made
        x -= lowest
        return table[x.astype(np.intp)].transpose(3, 1, 2, 0)

    # Of large images so few at once that memory has room for them.
    most = budget.at_once(architecture.memory())
    size = min(MICROBATCH, most)

    def levels(inputs: np.ndarray) -> np.ndarray:
        out = np.empty((len(inputs), *architecture.image_shape), np.uint8)

        ended = threading.Event()

        def fill(starts: range) -> None:
            scratch: list[_Scratch] = []
            for start in starts:
                if ended.is_set():
                    return
                rows = slice(start, start + size)
                microbatch = inputs[rows]
                n = len(microbatch)
                if not scratch or scratch[0].out.shape[-1] != n:
                    scratch.clear()  # memory for one microbatch at once
                    scratch.extend(_scratch_for(architecture, n))
                out[rows] = decode_microbatch(microbatch, scratch)

        starts = range(0, len(inputs), size)
        threads = min(cores(), len(starts), most // size)
        with products_in_one_thread():
            for _ in mapped(fill, [starts[k::threads] for k in range(threads)], ended):
                pass
        return out

    return levels


def level_table(integers: IntegerDecoder) -> np.ndarray:
    """The level of each output from just below the lowest threshold to the highest, uint8."""
    outputs = np.arange(int(integers.thresholds[0]) - 1, int(integers.thresholds[-1]) + 1)
    return np.searchsorted(integers.thresholds, outputs, side="right").astype(np.uint8)


def _layers(integers: IntegerDecoder) -> Iterator[_ScaledLayer]:
    for layer, shape in zip(integers.layers, integers.shapes, strict=True):
        factor = np.float32(2) ** -layer.shift.astype(np.float32)
        # [inputs, outputs of all pixels or taps, channels], as the weights come.
        if shape.dense:  # [inputs, pixels * channels]
            weights = layer.weights.reshape(shape.inputs, math.prod(shape.size), shape.channels)
        else:  # [3, 3, inputs, channels]
            weights = layer.weights.reshape(KERNEL**2, -1, shape.channels).swapaxes(0, 1)
        scaled = weights.astype(np.float32) * factor
        bias = layer.bias.astype(np.float32).reshape(-1, shape.channels) * factor
        by_channel = (2, 1, 0) if shape.dense else (1, 2, 0)
        scaled = np.ascontiguousarray(scaled.transpose(by_channel))
        scaled = scaled.reshape(math.prod(scaled.shape[:2]), shape.inputs)
        skip = None if layer.skip is None else layer.skip.astype(np.float32) * factor
        yield _ScaledLayer(scaled, np.ascontiguousarray(bias.T).ravel(), skip)


def _scratch_for(architecture: Architecture, n: int) -> Iterator[_Scratch]:
    """Of each transposed convolution, for n images; two output buffers, used alternately."""
    shapes = [[(*shape, n) for shape in of_layer] for of_layer in architecture.scratch()]
    largest = [max(map(math.prod, part)) for part in zip(*shapes, strict=True)]
    taps_of, sums_of, out, other = (np.empty(m, np.float32) for m in (*largest, largest[-1]))
    for of_layer in shapes:
        memory = zip((taps_of, sums_of, out), of_layer, strict=True)
        yield _Scratch(*(whole[: math.prod(shape)].reshape(shape) for whole, shape in memory))
        out, other = other, out


def _dense(x: np.ndarray, layer: _ScaledLayer, shape: Shape, limits: tuple[int, int]) -> np.ndarray:
    """What a dense layer passes on: ``[inputs, 1, 1, n] -> [channels, *size, n]``."""
    sums = layer.weights @ x.reshape(shape.inputs, x.shape[-1])
    sums += layer.bias[:, None]
    np.floor(np.clip(sums, *limits, out=sums), out=sums)
    return sums.reshape(shape.channels, *shape.size, x.shape[-1])


def _transposed(
    x: np.ndarray,
    before: np.ndarray,
    layer: _ScaledLayer,
    shape: Shape,
    limits: tuple[int, int],
    scratch: _Scratch,
) -> np.ndarray:
    """What a transposed convolution passes on, cut to its limits, in ``scratch.out``.

    ``[inputs, h, w, n] -> [channels, H, W, n]``; before: what went into the layer before, which may
    lie in ``scratch.out``.  Tap i of input row y lands on row ``stride * y + i - low_y``, where
    ``low_y`` is what SAME puts before the first; columns alike.
    """
    stride, (h, w), size = shape.stride, shape.before, shape.size
    low_y, low_x = low_padding(shape.before, stride, size)
    taps, sums, out = scratch
    flat = x.reshape(shape.inputs, h * w * x.shape[-1])
    np.matmul(layer.weights, flat, out=taps.reshape(len(layer.weights), -1))
    sums[:] = layer.bias[:, None, None, None]
    for i in range(KERNEL):
        for j in range(KERNEL):
            y, z = i // stride, j // stride
            sums[i % stride, j % stride, :, y : y + h, z : z + w] += taps[i, j]
    if layer.skip is not None:
        skipped = np.multiply(before, layer.skip[:, None, None, None], out=taps[0, 0])
        sums[0, 0, :, low_y : low_y + h, low_x : low_x + w] += skipped
    np.clip(sums, *limits, out=sums)
    for i, (rows, from_rows) in enumerate(_places(stride, low_y, size[0])):
        for j, (columns, from_columns) in enumerate(_places(stride, low_x, size[1])):
            np.floor(sums[i, j, :, from_rows, from_columns], out=out[:, rows, columns])
    return out


def _places(stride: int, low: int, size: int) -> Iterator[tuple[slice, slice]]:
    """For each remainder: the rows of an image of that size, and where their sums are."""
    for remainder in range(stride):
        skipped = max(-((remainder - low) // stride), 0)
        first = stride * skipped + remainder - low
        yield slice(first, None, stride), slice(skipped, skipped + len(range(first, size, stride)))
