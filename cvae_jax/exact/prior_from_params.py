"""The integer prior of a trained map model: weights rounded, sums proved exact, curve measured."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from cvae_jax.coding.integers.layers import MAX_SHIFT, Layer, rounded_layer
from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.network import BORDER
from cvae_jax.coding.maps.prior import (
    LARGEST_INPUT,
    MEAN_UNIT,
    NEIGHBOURS,
    WIDTH,
    Group,
    MapPrior,
    log_of_step,
)
from cvae_jax.coding.vectors.tables import REACH, SUBUNIT
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact.from_params import rounded_weights
from cvae_jax.modules import Params
from cvae_jax.prior import SCALE

INPUT_SHIFT = 6  # a neighbour is known to 64 units, about a fourteenth of the usual step
HEADROOM = 2  # of an input, over the largest that calibration saw
MOST_BITS, FEWEST_BITS = 10, 6  # between layers: as many as leave every sum exact
STEP = 0.05  # of weights, in standard deviations of their output's weights
IN_RANGE = 0.9999  # share of activations that is not cut
SAMPLE = 8192  # places that rounding is fitted to
POINTS = 8  # of the curve, to the scale of a distribution
CURVE_BITS = 20
_TINY = 1e-12  # in place of the spread of weights that are all the same


Latents = dict[int, np.ndarray]  # by the step of the quantiser: float [N, D], in units


class _Known(NamedTuple):
    """A layer's inputs: as the network has them, and as the integers, one of which is worth
    ``value``."""

    real: np.ndarray  # float64 [n, K]
    whole: np.ndarray  # float64 [n, K]
    value: np.ndarray  # float64 [K]

    def __add__(self, other: object) -> _Known:
        assert isinstance(other, _Known)
        parts = zip(self, other, strict=True)
        return _Known(*(np.concatenate(pair, axis=-1) for pair in parts))


def quantize_prior(
    params: Params, grid: tuple[int, int, int], unit: float, latents: Latents, slope: float = 1.0
) -> MapPrior:
    """The integer prior of trained parameters, ``params["prior"]``.

    unit: latent value of one unit; latents: of training images; slope: as ``MapPrior`` has it.

    Raises:
      ConfigError: sums could not be exact, with any number of bits.
    """
    sample = _sampled(latents, grid)
    for bits in range(MOST_BITS, FEWEST_BITS - 1, -1):
        made = _quantized(params, grid, float(np.float32(unit)), sample, slope, bits)
        try:
            made.validate()
            return _with_curve(made, latents)
        except FormatError as error:
            fault = error
    raise ConfigError(f"{fault}; train it again, with another seed")


class _Sample(NamedTuple):
    """Places of maps, as latents in units."""

    around: np.ndarray  # float64 [n, neighbours * c]
    here: np.ndarray  # float64 [n, c]
    steps: np.ndarray  # int64 [n]


def _sampled(latents: Latents, grid: tuple[int, int, int]) -> _Sample:
    """About SAMPLE places, with noise as wide as each step, as the network was trained."""
    rng = np.random.default_rng(0)
    h, w, c = grid
    parts = []
    for step, z in latents.items():
        maps = z.reshape(-1, h, w, c)
        maps = maps + step * (rng.random(maps.shape) - 0.5)
        canvas = np.pad(maps, ((0, 0), (BORDER, 0), (BORDER, BORDER), (0, 0)))
        count = max(SAMPLE // len(latents), 1)
        n, y, x = (rng.integers(0, size, count) for size in maps.shape[:3])
        around = [canvas[n, y + BORDER + i, x + BORDER + j] for i, j in NEIGHBOURS]
        parts.append(_Sample(np.concatenate(around, 1), maps[n, y, x], np.full(count, step)))
    return _Sample(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def _quantized(
    params: Params,
    grid: tuple[int, int, int],
    unit: float,
    sample: _Sample,
    slope: float,
    bits: int,
) -> MapPrior:
    largest = np.abs(sample.here).max(0)
    limits = np.ceil(largest * HEADROOM / 2**INPUT_SHIFT).clip(1, LARGEST_INPUT).astype(np.int64)
    logs = np.array([[log_of_step(int(step))] for step in sample.steps], np.float64)
    # The network has the step's logarithm in latents, the integers in units: a bias apart.
    step = _Known(np.log(sample.steps * unit)[:, None], logs, np.array([math.log(2) / 16]))
    around = _inputs(sample.around, np.tile(limits, len(NEIGHBOURS)), unit)
    context, seen = _hidden(params["context"], around + step, bits)
    groups = []
    count = sum(name.startswith("output_") for name in params)
    for k in range(count):
        earlier = slice(0, k * grid[2] // count)
        known = seen + _inputs(sample.here[:, earlier], limits[earlier], unit)
        first, known = _hidden(params[f"first_{k}"], known, bits)
        second, known = _hidden(params[f"second_{k}"], known, bits)
        groups.append(Group(first, second, _output(params[f"output_{k}"], known, unit)))
    return MapPrior(
        grid=grid,
        unit_size=unit,
        slope=slope,
        curve=_curve(_logistic()),
        input_shift=INPUT_SHIFT,
        limits=limits.astype(np.uint16),
        context=context,
        groups=tuple(groups),
    )


def _inputs(units: np.ndarray, limits: np.ndarray, unit: float) -> _Known:
    """Latents as inputs; the network has them divided by ``SCALE``."""
    whole = np.floor((units + (1 << INPUT_SHIFT >> 1)) / 2**INPUT_SHIFT)
    value = np.full(units.shape[1], unit * 2**INPUT_SHIFT / SCALE)
    return _Known(units * unit / SCALE, np.clip(whole, -limits, limits), value)


def _kernel(layer: Params) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)


def _hidden(params: Params, known: _Known, bits: int) -> tuple[Layer, _Known]:
    """A hidden layer in integers, and what comes out of it."""
    kernel, real_bias = _kernel(params)
    weights = kernel * known.value[:, None]
    step = np.maximum(STEP * weights.std(0), _TINY)
    rounded = rounded_weights(weights / step, known.whole)
    real, found = known.real @ kernel + real_bias, known.whole @ rounded
    bias = (real / step - found).mean(0)  # also takes back what rounding moves on average
    largest = np.maximum(np.quantile(np.maximum(found + bias, 0), IN_RANGE, axis=0), 1)
    shift = np.clip(np.ceil(np.log2(largest / (2**bits - 1))), 0, MAX_SHIFT)
    layer = rounded_layer(rounded, bias, shift, bits)
    whole = np.floor(np.clip((found + layer.bias) * layer.factor, 0, layer.top))
    return layer, _Known(np.maximum(real, 0), whole, step * 2.0**shift)


def _output(params: Params, known: _Known, unit: float) -> Layer:
    """The last layer of a group: means in MEAN_UNIT, and numbers of widths."""
    kernel, bias = _kernel(params)
    g = len(bias) // 2
    # The network has means divided by SCALE, and scales as logarithms.
    scale = np.repeat([SCALE / (unit * MEAN_UNIT), 8 / math.log(2)], g)
    points = math.log2(SUBUNIT / (unit * POINTS * int(WIDTH[0])))
    wanted = (known.real @ kernel + bias) * scale + np.repeat([0, 8 * points], g)
    weights = kernel * known.value[:, None] * scale
    shift = np.clip(np.floor(-np.log2(STEP * weights.std(0) + _TINY)), 0, MAX_SHIFT)
    rounded = rounded_weights(weights * 2.0**shift, known.whole)
    return rounded_layer(rounded, (wanted * 2.0**shift - known.whole @ rounded).mean(0), shift, 0)


def _with_curve(prior: MapPrior, latents: Latents) -> MapPrior:
    """The prior with the curve that its own predictions leave of latents."""
    counts = np.zeros(2 * REACH)
    for step, z in latents.items():
        residuals, widths = coder.residuals(prior, z, step)
        cells = np.floor(residuals * SUBUNIT / WIDTH[widths]) + REACH
        inside = (cells >= 0) & (cells < 2 * REACH)
        counts += np.bincount(cells[inside].astype(np.int64), minlength=2 * REACH)
    return dataclasses.replace(prior, curve=_curve(counts / counts.sum() + 0.01 * _logistic()))


def _logistic() -> np.ndarray:
    """The share of each of the curve's pieces in a logistic distribution."""
    points = np.arange(-REACH, REACH + 1) / POINTS
    return np.diff(1 / (1 + np.exp(-points)))


def _curve(shares: np.ndarray) -> np.ndarray:
    """A strictly increasing cumulative curve; latents lie as often above a mean as below."""
    shares = shares + shares[::-1]
    cumulative = np.concatenate([[0], np.cumsum(shares / shares.sum())])
    return (np.rint(cumulative * (1 << CURVE_BITS)) + np.arange(2 * REACH + 1)).astype(np.uint32)
