"""The integer decoder in NumPy: for machines and for moments without JAX."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cvae_jax.exact.integers import KERNEL, STRIDE, IntegerDecoder, Layer, low_padding

MICROBATCH = 32  # images whose temporaries stay in the cache


def decoder(integers: IntegerDecoder) -> Callable[[np.ndarray], np.ndarray]:
    """``levels(inputs)``: int32 ``[N, L]`` of ``inputs_of`` -> uint8 ``[N, H, W, C]``."""
    architecture = integers.architecture
    first, *middle, last = [_as_float(layer) for layer in integers.layers]
    sizes = architecture.sizes
    lowest = int(integers.thresholds[0]) - 1
    highest = int(integers.thresholds[-1])
    table = level_table(integers)

    def shifted(sums: np.ndarray, layer: Layer, low: float, high: float) -> np.ndarray:
        channels = len(layer.shift)
        by_channel = sums.reshape(-1, len(layer.bias))
        by_channel += layer.bias
        by_channel = by_channel.reshape(-1, channels)
        by_channel *= layer.shift
        np.floor(by_channel, out=by_channel)
        np.clip(by_channel, low, high, out=by_channel)
        return by_channel

    def some(inputs: np.ndarray) -> np.ndarray:
        n = len(inputs)
        x = shifted(inputs @ first.weights, first, 0, first.top)
        for layer, size, larger in zip(middle, sizes, sizes[1:], strict=False):
            sums = _transposed(x.reshape(n, *size, -1), layer.weights, STRIDE, larger)
            x = shifted(sums, layer, 0, layer.top)
        sums = _transposed(x.reshape(n, *sizes[-2], -1), last.weights, 1, sizes[-1])
        return table[shifted(sums, last, lowest, highest).astype(np.int32) - lowest].reshape(
            n, *architecture.image_shape
        )

    def levels(inputs: np.ndarray) -> np.ndarray:
        out = np.empty((len(inputs), *architecture.image_shape), np.uint8)
        for start in range(0, len(inputs), MICROBATCH):
            rows = slice(start, start + MICROBATCH)
            out[rows] = some(inputs[rows].astype(np.float32))
        return out

    return levels


def level_table(integers: IntegerDecoder) -> np.ndarray:
    """The level of each output from just below the lowest threshold to the highest, uint8."""
    outputs = np.arange(int(integers.thresholds[0]) - 1, int(integers.thresholds[-1]) + 1)
    return np.searchsorted(integers.thresholds, outputs, side="right").astype(np.uint8)


def _as_float(layer: Layer) -> Layer:
    """A layer as float32 arrays; the shift as the power of two that it multiplies by."""
    weights = layer.weights.astype(np.float32)
    if weights.ndim == 4:  # [3, 3, inputs, channels] -> [inputs, 3 * 3 * channels]
        weights = np.ascontiguousarray(weights.transpose(2, 0, 1, 3).reshape(weights.shape[2], -1))
    factor = (np.float32(2) ** -layer.shift.astype(np.float32)).astype(np.float32)
    return Layer(weights, layer.bias.astype(np.float32), factor, layer.bits)


def _transposed(
    x: np.ndarray, weights: np.ndarray, stride: int, size: tuple[int, int]
) -> np.ndarray:
    """The sums of a transposed convolution, ``[N, h, w, inputs] -> [N, *size, channels]``.

    Tap (i, j) of input (y, x) lands on row ``stride * y + i - low_y`` and column
    ``stride * x + j - low_x``, where ``low`` is what SAME puts before the first row and column.
    """
    n, h, w, _ = x.shape
    windows = (x.reshape(n * h * w, -1) @ weights).reshape(n, h, w, KERNEL, KERNEL, -1)
    # One spare row and column on each side takes what lands outside.
    out = np.zeros((n, stride * h + 2, stride * w + 2, windows.shape[-1]), np.float32)
    low_y, low_x = low_padding((h, w), stride, size)
    for i in range(KERNEL):
        for j in range(KERNEL):
            y, z = 1 + i - low_y, 1 + j - low_x
            out[:, y : y + stride * h : stride, z : z + stride * w : stride] += windows[
                :, :, :, i, j
            ]
    return out[:, 1 : 1 + size[0], 1 : 1 + size[1]]
