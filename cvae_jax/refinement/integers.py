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

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cvae_jax.coding.integers import packing
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.integers.layers import EXACT, MAX_SHIFT, Layer
from cvae_jax.errors import FormatError
from cvae_jax.exact.architecture import MAX_SIDE
from cvae_jax.refinement import neighbours
from cvae_jax.refinement.canvas import Span
from cvae_jax.refinement.grid import LEVELS, Grid, running_sums
from cvae_jax.refinement.neighbours import AROUND, BASE_STEP, CAUSAL, ERROR_UNIT, FULL, HIGH

MAX_HIDDEN = 1 << 10
NO_BASE = 255  # in place of a quality
# 2**15 / 2**(k / 16), rounded: a logit is in sixteenths of a bit.
FRACTIONS = (
    *(32768, 31379, 30048, 28774, 27554, 26386, 25268, 24196),
    *(23170, 22188, 21247, 20347, 19484, 18658, 17867, 17109),
)
FAR = 16 * len(FRACTIONS)  # this far below the largest logit, a weight is 0
POWERS = np.array([FRACTIONS[d % 16] >> d // 16 for d in range(FAR)] + [0], np.float32)
# Of a level by its logit against all others, from -FAR to FAR: its weight, and its frequency.
_AGAINST = np.concatenate([POWERS[::-1], np.full(FAR, POWERS[0])]).astype(np.float64)
HITS = 1 + np.floor(_AGAINST * (TOTAL - 2) / (_AGAINST + _AGAINST[::-1]))
_NEVER = np.float32(-(1 << 26))  # far below all logits

_HEADER = struct.Struct("<4sB3HHHBf")
_MAGIC = b"CVCX"
_VERSION = 1


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
    # For encoders: the quality of the base that makes the smallest files, None if none does; and
    # what nine in ten images take then, as a share of raw.
    base_quality: int | None
    usual: float

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
        fits = all(
            layer.weights.shape == shape and layer.bias.shape == layer.shift.shape == shape[:1]
            for layer, shape in zip(layers, shapes, strict=True)
        )
        places = zip(self.places, self.image_shape, strict=True)
        if not fits or any(place.shape != (size, h) for place, size in places):
            raise FormatError("a context model whose weights are not of its architecture")
        most, added = FULL, sum(np.abs(place.astype(np.int64)).max(0) for place in self.places)
        for layer in layers:
            sums = np.abs(layer.weights.astype(np.int64)).sum(1) * most
            sums += np.abs(layer.bias.astype(np.int64)) + added
            _check_exact(int(sums.max()))
            most, added = layer.top, 0
        # A level's logit is two of the last sums, shifted.
        logits = (sums[1:] >> self.output.shift[1:]).reshape(2, LEVELS) + 1
        _check_exact(int(logits.max(1).sum()))

    # Bytes

    @functools.cached_property
    def packed(self) -> bytes:
        """As a checkpoint and an archive hold it."""
        h, w, c = self.image_shape
        hidden = (len(self.first.bias), len(self.second.bias))
        quality = NO_BASE if self.base_quality is None else self.base_quality
        head = _HEADER.pack(_MAGIC, _VERSION, h, w, c, *hidden, quality, self.usual)
        bits = np.array([self.first.bits, self.second.bits])
        numbers = [bits, *self.places]
        for layer in (self.first, self.second, self.output):
            numbers += [layer.shift, layer.bias, layer.weights]
        return head + b"".join(packing.pack(array) for array in numbers)

    @classmethod
    def from_bytes(cls, data: bytes, spend: packing.Spend = packing.unlimited) -> ContextModel:
        """The inverse of ``packed``, proved exact.

        spend: as for ``packing.Packed``.

        Raises:
          FormatError: these bytes are no context model, or one that could overflow.
        """
        h, w, c, *hidden, quality, usual = packing.header(
            _HEADER, data, _MAGIC, _VERSION, "a context model"
        )
        if not (quality <= 100 or quality == NO_BASE) or not 0 <= usual <= 1:  # also not for NaN
            raise FormatError("a context model of impossible numbers")
        sizes = (h, w, c, *hidden)
        too_wide = c > neighbours.MAX_CHANNELS or max(hidden) > MAX_HIDDEN
        if not all(1 <= n <= MAX_SIDE for n in sizes) or too_wide:
            raise FormatError("a context model of impossible dimensions")
        packed = packing.Packed(data, _HEADER.size, spend)
        bits = packed.take(2)
        if bits.min() < 1 or bits.max() > 16:
            raise FormatError("a context model of impossible numbers")
        row, column, channel = (_small(packed.take(n, hidden[0])) for n in (h, w, c))
        places = (row, column, channel)
        layers = []
        widths = (neighbours.inputs(c), *hidden, 1 + 2 * LEVELS)
        for inputs, outputs, each in zip(widths[:-1], widths[1:], (*bits, 0), strict=True):
            shift = packed.take(outputs)
            bias, weights = _small(packed.take(outputs)), _small(packed.take(outputs, inputs))
            if shift.min() < 0 or shift.max() > MAX_SHIFT:
                raise FormatError("a context model that shifts too far")
            layers.append(Layer(weights, bias, shift.astype(np.uint8), int(each)))
        packed.end()
        first, second, output = layers
        base_quality = None if quality == NO_BASE else quality
        model = cls((h, w, c), first, places, second, output, base_quality, usual)
        model.validate()
        vars(model)["packed"] = data  # as it came: packing it anew takes long
        return model


def _check_exact(largest: int) -> None:
    if largest >= EXACT:
        raise FormatError(
            f"a context model with sums that could reach {largest}, beyond 2**24: they would not "
            "be exact"
        )


def _small(numbers: np.ndarray) -> np.ndarray:
    if int(np.abs(numbers).max(initial=0)) >= EXACT:
        raise FormatError("a context model of impossible numbers")
    return numbers.astype(np.int32)


class Frequencies:
    """A context model, ready to be computed for files of one largest error.

    Each layer has an input more, which is 1, and whose weight is the bias.
    """

    def __init__(self, model: ContextModel, max_error: int):
        self._tops = model.first.top, model.second.top
        first, self._second, output = (
            layer.scaled() for layer in (model.first, model.second, model.output)
        )
        marks = 2 * neighbours.values(model.image_shape[2]) + 1  # 0 or 1 here, not FULL
        first[:, -marks - 1 : -1] *= FULL
        error = first[:, -marks - 2] * (max_error * ERROR_UNIT)
        self._first = np.delete(first[:, :-1], -marks - 1, axis=1)
        factor = model.first.factor
        self._at_row, self._at_column, self._at_channel = (
            place.astype(np.float32) * factor for place in model.places
        )
        self._everywhere = first[:, -1] + error
        self._hit, self._levels = output[0], output[1:].T.copy()

    def hidden(
        self,
        values: np.ndarray,
        expected: np.ndarray,
        based: np.ndarray,
        which: np.ndarray,
        span: Span,
    ) -> np.ndarray:
        """What the hidden layers make of n pixels in a span, and a 1: float32 ``[h + 1, n]``.

        values: uint8 ``[V, n]``, their neighbours; expected: uint8 ``[n]``; based: bool ``[n]``;
        which: int ``[n]``, of the span's places.
        """
        count, n = values.shape
        base = slice(len(CAUSAL), len(CAUSAL) + len(AROUND))
        marks = np.empty((2 * count + 1 + span.width, n), bool)
        zero, high = marks[: 2 * count].reshape(2, count, n)
        np.equal(values, 0, out=zero)
        zero[base] &= based
        np.greater_equal(values, HIGH, out=high)
        np.greater_equal(values[base], HIGH // BASE_STEP * BASE_STEP, out=high[base])
        marks[2 * count] = based
        np.equal(which, np.arange(span.width)[:, None], out=marks[2 * count + 1 :])
        inputs = np.empty((count + 1 + len(marks), n), np.float32)
        inputs[:count], inputs[count], inputs[count + 1 :] = values, expected, marks
        inputs[: len(CAUSAL)] -= inputs[count]
        return self._passed(self._second, self._passed(self._first_at(span), inputs, 0), 1)

    def _first_at(self, span: Span) -> np.ndarray:
        """Weights of the first layer, the last of them of each place."""
        columns = self._at_column[span.column : span.column + span.width]
        placed = columns + self._at_row[span.row] + self._at_channel[span.channel]
        return np.concatenate([self._first, (placed + self._everywhere).T], axis=1)

    def _passed(self, weights: np.ndarray, inputs: np.ndarray, layer: int) -> np.ndarray:
        """What a layer passes on, and a 1."""
        out = np.empty((len(weights) + 1, inputs.shape[1]), np.float32)
        np.matmul(weights, inputs, out=out[:-1])
        np.clip(out[:-1], 0, self._tops[layer], out=out[:-1])
        np.floor(out[:-1], out=out[:-1])
        out[-1] = 1
        return out

    def hit(self, hidden: np.ndarray) -> np.ndarray:
        """The expected level's frequency: float64 ``[n]``, whole numbers from 1 to TOTAL - 1."""
        logit = np.floor(self._hit @ hidden)
        return HITS.take(logit.astype(np.int32) + FAR, mode="clip")

    def others(self, hidden: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Weights of all levels but the expected one, whose own is 0: float32 ``[n, 256]``."""
        # Differences twice over: those of a pixel are then a run of them, from its first on.
        n = hidden.shape[1]
        sums = np.empty((n, 3 * LEVELS), np.float32)
        np.matmul(hidden.T, self._levels, out=sums[:, : 2 * LEVELS])
        np.floor(sums[:, : 2 * LEVELS], out=sums[:, : 2 * LEVELS])
        sums[:, 2 * LEVELS :] = sums[:, LEVELS : 2 * LEVELS]
        rows = np.arange(n)
        runs = as_strided(sums, (max(sums.size - LEVELS + 1, 0), LEVELS), 2 * sums.strides[-1:])
        logits = runs[3 * LEVELS * rows + 2 * LEVELS - expected]
        logits += sums[:, :LEVELS]
        logits[rows, expected] = _NEVER
        below = np.subtract(logits.max(1, keepdims=True), logits, out=logits)
        return POWERS.take(below.astype(np.int32), mode="clip")

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
        sums[sums.sum(1) == 0] = 1  # all that is likely is in that cell
        return hit + within, sums


def frequencies(weights: np.ndarray) -> np.ndarray:
    """In proportion to weights, at least 1, with the sum TOTAL, each less 1, as the coder takes
    them (``coding.frequencies.weights_of``): float64 ``[n, cells]``."""
    sums = running_sums(weights)
    shares = np.zeros((len(sums), sums.shape[1] + 1))
    shares[:, 1:] = _shares(sums, sums[:, -1:], sums.shape[1])
    return np.subtract(shares[:, 1:], shares[:, :-1])


def interval(weights: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one cell for each row, ``[n]``: the sum of the frequencies below it, and its own."""
    n, cells = weights.shape
    first = np.arange(n) * cells
    parts = np.add.reduceat(weights.ravel(), np.stack([first, first + cell], axis=1).ravel())
    # Exact in any order: whole numbers below 2**24.
    below, rest = parts.reshape(n, 2).astype(np.float64).T
    below = np.where(cell > 0, below, 0)
    total, upto = below + rest, below + weights[np.arange(n), cell]
    start = _shares(below, total, cells) + cell
    return start, _shares(upto, total, cells) + cell + 1 - start


def _shares(sums: np.ndarray, total: np.ndarray, cells: int) -> np.ndarray:
    """Sums of weights as sums of frequencies, without the 1 that every cell has.

    Exact: products stay below 2**53, and no quotient comes closer to a whole number than 1/total.
    """
    shares = np.multiply(sums, TOTAL - cells, dtype=np.float64)
    shares /= total
    return np.floor(shares, out=shares)
