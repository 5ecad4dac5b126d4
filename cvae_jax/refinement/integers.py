"""The context model in integers: from a pixel's neighbours to frequencies, the same everywhere.

As the integer decoder does (``exact.integers``), it multiplies small integers and adds them up in
float32, where sums below 2**24 are exact in any order; ``validate`` proves that none gets there.
Logits are in sixteenths of a bit, and a table of powers of two makes weights of them.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cvae_jax.coding import packing
from cvae_jax.coding.frequencies import TOTAL
from cvae_jax.errors import FormatError
from cvae_jax.exact.integers import EXACT, MAX_SHIFT, MAX_SIDE
from cvae_jax.refinement import neighbours
from cvae_jax.refinement.canvas import Place
from cvae_jax.refinement.grid import LEVELS, Grid
from cvae_jax.refinement.neighbours import AROUND, BASE_STEP, CAUSAL, ERROR_UNIT, FULL, HIGH

MAX_HIDDEN = 1 << 10
# 2**15 / 2**(k / 16), rounded: a logit is in sixteenths of a bit.
FRACTIONS = (
    *(32768, 31379, 30048, 28774, 27554, 26386, 25268, 24196),
    *(23170, 22188, 21247, 20347, 19484, 18658, 17867, 17109),
)
FAR = 16 * len(FRACTIONS)  # this far below the largest logit, a weight is 0
POWERS = np.array([FRACTIONS[d % 16] >> d // 16 for d in range(FAR)] + [0], np.float64)

_HEADER = struct.Struct("<4sB3HHHf")
_MAGIC = b"CVCX"
_VERSION = 1


class Layer(NamedTuple):
    """Sums of weights times inputs, plus a bias, then shifted right."""

    weights: np.ndarray  # int32 [outputs, inputs]
    bias: np.ndarray  # int32 [outputs]
    shift: np.ndarray  # uint8 [outputs]
    bits: int  # what it passes on is from 0 to 2**bits - 1; 0 for the last, whose sums are logits

    @property
    def top(self) -> int:
        """The largest number that it passes on."""
        return (1 << self.bits) - 1


@dataclass(frozen=True, eq=False)
class ContextModel:
    """What gives each level of a pixel its frequency."""

    image_shape: tuple[int, int, int]  # H, W, C
    first: Layer
    # What a pixel's row, column and channel add to the first layer's sums: int32 [H, h], [W, h],
    # [C, h].
    places: tuple[np.ndarray, np.ndarray, np.ndarray]
    second: Layer
    # Logits: of the expected level, of the 256 levels, of their 256 differences to it.
    output: Layer
    usual: float  # what nine in ten images take with a base, as a share of raw; for encoders

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of ``packed``."""
        return hashlib.sha256(self.packed).digest()

    @property
    def pixel_work(self) -> int:
        """Multiply-adds of one pixel value."""
        return sum(layer.weights.size for layer in (self.first, self.second, self.output))

    def validate(self) -> None:
        """Proves that every sum of every possible image is exact.

        Raises:
          FormatError: it is not, or a shape is not the architecture's.
        """
        inputs = neighbours.inputs(self.image_shape[2])
        h, second = len(self.first.bias), len(self.second.bias)
        shapes = ((h, inputs), (second, h), (1 + 2 * LEVELS, second))
        layers = (self.first, self.second, self.output)
        placed = sum(np.abs(place.astype(np.int64)).max(0) for place in self.places)
        most, added = FULL, placed
        for layer, shape in zip(layers, shapes, strict=True):
            outputs = shape[0]
            if layer.weights.shape != shape or not layer.bias.shape == layer.shift.shape == (
                outputs,
            ):
                raise FormatError("a context model whose weights are not of its architecture")
            sums = np.abs(layer.weights.astype(np.int64)).sum(1) * most
            largest = int((sums + np.abs(layer.bias.astype(np.int64)) + added).max())
            if largest >= EXACT:
                raise FormatError(
                    f"a context model with sums that could reach {largest}, beyond 2**24: "
                    "they would not be exact"
                )
            most, added = layer.top, 0
        for place, size in zip(self.places, self.image_shape, strict=True):
            if place.shape != (size, h):
                raise FormatError("a context model whose places are not those of its images")

    # Bytes

    @functools.cached_property
    def packed(self) -> bytes:
        """As a checkpoint and an archive hold it."""
        h, w, c = self.image_shape
        hidden = (len(self.first.bias), len(self.second.bias))
        head = _HEADER.pack(_MAGIC, _VERSION, h, w, c, *hidden, self.usual)
        bits = np.array([self.first.bits, self.second.bits])
        numbers = [bits, *self.places]
        for layer in (self.first, self.second, self.output):
            numbers += [layer.shift, layer.bias, layer.weights]
        return head + b"".join(packing.pack(array) for array in numbers)

    @classmethod
    def from_bytes(cls, data: bytes) -> ContextModel:
        """The inverse of ``packed``, proved exact.

        Raises:
          FormatError: these bytes are no context model, or one that could overflow.
        """
        try:
            magic, version, h, w, c, first, second, usual = _HEADER.unpack_from(data)
        except struct.error as error:
            raise FormatError("a context model: shorter than its header") from error
        if magic != _MAGIC or version != _VERSION:
            raise FormatError("not a context model, or one of a newer version")
        if not 0 <= usual <= 1:  # false for NaN too
            raise FormatError("a context model that is usual of nothing")
        sizes = (h, w, c, first, second)
        if not all(1 <= n <= MAX_SIDE for n in sizes) or max(first, second) > MAX_HIDDEN:
            raise FormatError("a context model of impossible dimensions")
        packed = packing.Packed(data, _HEADER.size)
        bits = packed.take(2)
        if bits.min() < 1 or bits.max() > 16:
            raise FormatError("a context model of impossible numbers")
        places = tuple(_small(packed.take(n, first)) for n in (h, w, c))
        layers = []
        widths = (neighbours.inputs(c), first, second, 1 + 2 * LEVELS)
        for inputs, outputs, each in zip(widths[:-1], widths[1:], (*bits, 0), strict=True):
            shift = packed.take(outputs)
            bias, weights = _small(packed.take(outputs)), _small(packed.take(outputs, inputs))
            if shift.min() < 0 or shift.max() > MAX_SHIFT:
                raise FormatError("a context model that shifts too far")
            layers.append(Layer(weights, bias, shift.astype(np.uint8), int(each)))
        packed.end()
        model = cls((h, w, c), layers[0], places, layers[1], layers[2], usual)  # type: ignore[arg-type]
        model.validate()
        vars(model)["packed"] = data  # as it came: packing it anew takes long
        return model


def _small(numbers: np.ndarray) -> np.ndarray:
    if int(np.abs(numbers).max(initial=0)) >= EXACT:
        raise FormatError("a context model of impossible numbers")
    return numbers.astype(np.int32)


class Frequencies:
    """A context model, ready to be computed."""

    def __init__(self, model: ContextModel):
        self.model = model
        self._first, self._second, self._output = (
            _scaled(layer) for layer in (model.first, model.second, model.output)
        )
        factor = np.float32(2) ** -model.first.shift.astype(np.float32)
        self._places = tuple(place.astype(np.float32) * factor for place in model.places)
        # Differences twice over: those of a pixel are then a run of them, from its first on.
        weights, bias = self._output
        self._levels = np.concatenate([weights[1:], weights[1 + LEVELS :]]).T.copy()
        self._levels_bias = np.concatenate([bias[1:], bias[1 + LEVELS :]]).T[0].copy()

    def hidden(
        self,
        values: np.ndarray,
        expected: np.ndarray,
        based: np.ndarray,
        place: Place,
        max_error: int,
    ) -> np.ndarray:
        """What the two hidden layers make of n pixels at one place: float32 ``[h, n]``.

        values: uint8 ``[V, n]``, their neighbours; expected: uint8 ``[n]``; based: bool ``[n]``;
        """
        count, causal = len(values), len(CAUSAL)
        base = slice(causal, causal + len(AROUND))
        inputs = np.empty((3 * count + 3, values.shape[1]), np.float32)
        inputs[:count] = values
        inputs[:causal] -= expected
        inputs[count] = expected
        inputs[count + 1] = max_error * ERROR_UNIT
        marks = inputs[count + 2 : -1].reshape(2, count, -1)
        marks[0] = values == 0
        marks[0, base] *= based
        marks[1] = values >= HIGH
        marks[1, base] = values[base] >= HIGH // BASE_STEP * BASE_STEP
        inputs[-1] = based
        inputs[count + 2 :] *= FULL
        weights, bias = self._first
        row, column, channel = (x[k] for x, k in zip(self._places, place, strict=True))
        sums = weights @ inputs
        sums += bias + (row + column + channel)[:, None]
        sums = self._second[0] @ _passed(sums, self.model.first.top)
        sums += self._second[1]
        return _passed(sums, self.model.second.top)

    def hit(self, hidden: np.ndarray) -> np.ndarray:
        """The expected level's frequency: float64 ``[n]``, whole numbers from 1 to TOTAL - 1."""
        weights, bias = self._output
        logit = np.floor(weights[0] @ hidden + bias[0])
        of_it, of_others = (POWERS[np.clip(x, 0, FAR).astype(np.intp)] for x in (-logit, logit))
        return 1 + np.floor(of_it * (TOTAL - 2) / (of_it + of_others))

    def others(self, hidden: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Weights of all levels but the expected one, whose own is 0: float64 ``[n, 256]``."""
        sums = hidden.T @ self._levels
        sums += self._levels_bias
        np.floor(sums, out=sums)
        rows, expected = np.arange(len(sums)), expected.astype(np.intp)
        logits = sums[:, :LEVELS]
        start = 3 * LEVELS * rows + 2 * LEVELS - expected
        logits += sums.ravel().take(start[:, None] + np.arange(LEVELS))
        logits[rows, expected] = -np.inf
        below = np.minimum(logits.max(1, keepdims=True) - logits, FAR)
        return POWERS.take(below.astype(np.intp))

    def cells_of(
        self, hit: np.ndarray, weights: np.ndarray, grid: Grid
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of cells: of the expected level's cell, and weights of the others.

        hit: of the expected level; weights: of all other levels, ``[n, 256]`` -> ``[n, cells]``.
        """
        sums = grid.sums(weights)
        at = np.arange(len(sums)), grid.of_expected
        within = np.floor(sums[at] * (TOTAL - 1 - hit) / sums.sum(1))
        sums[at] = 0
        return hit + within, sums


def cumulative(weights: np.ndarray) -> np.ndarray:
    """Sums of frequencies in proportion to weights, float64 ``[n, cells + 1]``, from 0 to TOTAL."""
    n, cells = weights.shape
    sums = np.zeros((n, cells + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    total = sums[:, -1:].copy()
    empty = total[:, 0] == 0
    if empty.any():
        sums[empty], total[empty] = np.arange(cells + 1), cells
    # Exact: products stay below 2**53, and no quotient comes closer to a whole number than 1/total.
    sums *= TOTAL - cells
    np.floor(sums / total, out=sums)
    sums += np.arange(cells + 1)
    return sums


def _scaled(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias ``[outputs, 1]`` whose sums come out shifted: powers of two are exact."""
    factor = np.float32(2) ** -layer.shift.astype(np.float32)[:, None]
    return layer.weights.astype(np.float32) * factor, layer.bias.astype(np.float32)[
        :, None
    ] * factor


def _passed(sums: np.ndarray, top: int) -> np.ndarray:
    """What a layer makes of its sums, in place."""
    np.clip(sums, 0, top, out=sums)
    return np.floor(sums, out=sums)
