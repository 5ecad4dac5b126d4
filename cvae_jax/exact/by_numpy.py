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
from cvae_jax.exact.integers import KERNEL, STRIDE, Architecture, IntegerDecoder, low_padding

MICROBATCH = 8  # images whose temporaries stay in the cache


class _ScaledLayer(NamedTuple):
    """A layer whose sums need no shift: all its numbers come times a power of two, exactly."""

    weights: np.ndarray  # float32 [outputs, inputs]; of a convolution [taps * channels, inputs]
    bias: np.ndarray  # float32 [outputs or channels]


class _Scratch(NamedTuple):
    """Memory that a transposed convolution works in, kept because asking for it anew is slow.

    The shapes are ``Architecture.scratch``, for n images.
    """

    taps: np.ndarray  # [3, 3, channels, h, w, n], what each tap of the kernel makes of the inputs
    # [stride, stride, channels, h + 2 // stride, w + 2 // stride, n]: one plane per phase (row and
    # column modulo the stride), so that each tap adds a contiguous block.
    sums: np.ndarray
    out: np.ndarray  # [channels, H, W, n]


def decoder(integers: IntegerDecoder) -> Callable[[np.ndarray], np.ndarray]:
    """``levels(inputs)``: int32 ``[N, L]`` of ``inputs_of`` -> uint8 ``[N, H, W, C]``."""
    architecture = integers.architecture
    sizes = architecture.sizes
    first, *middle, last = _layers(integers)
    tops = [layer.top for layer in integers.layers]
    lowest, highest = int(integers.thresholds[0]) - 1, int(integers.thresholds[-1])
    table = level_table(integers)

    def decode_microbatch(inputs: np.ndarray, scratch: list[_Scratch]) -> np.ndarray:
        sums = first.weights @ inputs.T
        sums += first.bias[:, None]
        np.floor(np.clip(sums, 0, tops[0], out=sums), out=sums)
        x = sums.reshape(-1, *sizes[0], len(inputs))
        for layer, top, arrays in zip(middle, tops[1:], scratch, strict=False):
            x = _transposed(x, layer, STRIDE, (0, top), arrays)
        outputs = _transposed(x, last, 1, (lowest, highest), scratch[-1])
        outputs -= lowest
        return table[outputs.astype(np.intp)].transpose(3, 1, 2, 0)

    def levels(inputs: np.ndarray) -> np.ndarray:
        out = np.empty((len(inputs), *architecture.image_shape), np.uint8)

        ended = threading.Event()

        def fill(starts: range) -> None:
            scratch: list[_Scratch] = []
            for start in starts:
                if ended.is_set():
                    return
                rows = slice(start, start + MICROBATCH)
                microbatch = inputs[rows].astype(np.float32)
                n = len(microbatch)
                if not scratch or scratch[0].out.shape[-1] != n:
                    scratch.clear()  # memory for one microbatch at once
                    scratch.extend(_scratch_for(architecture, n))
                out[rows] = decode_microbatch(microbatch, scratch)

        starts = range(0, len(inputs), MICROBATCH)
        threads = min(cores(), len(starts), budget.MICROBATCH // MICROBATCH)
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
    for layer in integers.layers:
        factor = np.float32(2) ** -layer.shift.astype(np.float32)
        # [..., inputs, outputs of all pixels or taps, channels], as the weights come.
        if layer.weights.ndim == 2:  # [inputs, pixels * channels]
            pixels = len(layer.bias) // len(factor)  # not inferred: there may be no inputs
            weights = layer.weights.reshape(len(layer.weights), pixels, len(factor))
        else:  # [3, 3, inputs, channels]
            weights = layer.weights.reshape(KERNEL**2, -1, len(factor)).swapaxes(0, 1)
        scaled = weights.astype(np.float32) * factor
        bias = layer.bias.astype(np.float32).reshape(-1, len(factor)) * factor
        by_channel = (2, 1, 0) if layer.weights.ndim == 2 else (1, 2, 0)
        scaled = np.ascontiguousarray(scaled.transpose(by_channel))
        scaled = scaled.reshape(math.prod(scaled.shape[:2]), len(weights))
        yield _ScaledLayer(scaled, np.ascontiguousarray(bias.T).ravel())


def _scratch_for(architecture: Architecture, n: int) -> Iterator[_Scratch]:
    """Of each transposed convolution, for n images; two output buffers, used alternately."""
    shapes = [[(*shape, n) for shape in of_layer] for of_layer in architecture.scratch()]
    largest = [max(map(math.prod, part)) for part in zip(*shapes, strict=True)]
    taps_of, sums_of, out, other = (np.empty(m, np.float32) for m in (*largest, largest[-1]))
    for of_layer in shapes:
        memory = zip((taps_of, sums_of, out), of_layer, strict=True)
        yield _Scratch(*(whole[: math.prod(shape)].reshape(shape) for whole, shape in memory))
        out, other = other, out


def _transposed(
    x: np.ndarray, layer: _ScaledLayer, stride: int, limits: tuple[int, int], scratch: _Scratch
) -> np.ndarray:
    """What a transposed convolution passes on, cut to its limits, in ``scratch.out``.

    ``[inputs, h, w, n] -> [channels, H, W, n]``.  Tap i of input row y lands on row
    ``stride * y + i - low_y``, where ``low_y`` is what SAME puts before the first; columns alike.
    """
    inputs, h, w, _ = x.shape
    taps, sums, out = scratch
    np.matmul(layer.weights, x.reshape(inputs, -1), out=taps.reshape(len(layer.weights), -1))
    sums[:] = layer.bias[:, None, None, None]
    for i in range(KERNEL):
        for j in range(KERNEL):
            y, z = i // stride, j // stride
            sums[i % stride, j % stride, :, y : y + h, z : z + w] += taps[i, j]
    np.clip(sums, *limits, out=sums)
    size = out.shape[1:3]
    low_y, low_x = low_padding((h, w), stride, size)
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
