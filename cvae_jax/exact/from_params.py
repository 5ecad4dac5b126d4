"""An integer decoder from a trained one: weights rounded, biases corrected, sums proved exact.

Post-training quantisation, layer by layer.  A channel's weights become whole multiples of a step
in proportion to their spread; each is rounded so that the ones after it can make up for its error
(Frantar et al. 2023, "GPTQ", algorithm 1); the bias takes back what is left on average (Nagel et
al. 2019, section 4.2); and each sum is shifted by what keeps the activations in range.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact.architecture import KERNEL, Architecture, Shape, low_padding
from cvae_jax.exact.integers import (
    EXACT,
    LEVELS,
    MAX_INPUT_SHIFT,
    MAX_SHIFT,
    IntegerDecoder,
    Layer,
    units_check,
)
from cvae_jax.modules import Params

# A latent is known to 8 units, 1/32 of its mean posterior standard deviation, or if sums could not
# be exact then, as closely as they can.
INPUT_SHIFT = 3
MOST_BITS, FEWEST_BITS = 12, 7  # between layers: as many as leave every sum exact
MARGIN = 0.9  # of what is exact: rounding moves sums a little
OUTPUT_SHIFT = 8  # thresholds are in 1/256 of a logit
# Steps of weights, in standard deviations of their channel's weights: of the dense layer, of the
# transposed convolutions after it, of those after a map of latents, and of the last, whose few
# weights are seen in every pixel.
DENSE_STEP, STEP, MAP_STEP, OUTPUT_STEP = 0.05, 0.07, 0.14, 0.008
UNUSED = 0.01  # variance over the images of a latent that says nothing (Burda et al. 2016)
HEADROOM = 4  # of an input, over the largest that calibration saw
IN_RANGE = 0.9999  # share of a channel's activations that is not cut
SKIP_SHARE = 0.25  # of what is exact: what a layer that skips may get from what it skips
PART = 16  # images whose windows are looked at together
_TINY = 1e-12  # in place of the spread of weights that are all the same
DAMPING = 0.01  # of the inputs' correlations, in their mean power


class _Made(NamedTuple):
    """What a layer makes of some images: both decoders side by side."""

    real: np.ndarray  # [N, h, w, C], of the trained decoder
    whole: np.ndarray  # [N, h, w, C], integers, of which one is worth `value`
    value: np.ndarray  # [C]


def quantize_decoder(
    params: Params, model: ModelConfig, unit: np.ndarray, latents: np.ndarray
) -> IntegerDecoder:
    """The integer decoder of trained parameters.

    unit: float ``[D]``, of the latents (``Tables.unit``), of a map the same at all places; latents:
    int ``[N, D]``, in units, of a few hundred images as files will hold them.

    Raises:
      ConfigError: a model with sums that could not be exact.
    """
    architecture = architecture_of(model)
    with _as_config_error():
        architecture.check()
    shapes = architecture.layers
    scale = unit.astype(np.float64)[: architecture.at_a_place]
    latents = latents.reshape(len(latents), *architecture.places, architecture.at_a_place)
    # Of a map all, as a channel may say something at a few places only.
    every = np.arange(architecture.at_a_place)
    inputs = every if architecture.latent_channels else _used(latents, scale)
    scale, latents = scale[inputs], latents[..., inputs]
    kernels = _kernels(params["decoder"], inputs, architecture)
    fine = [MAP_STEP if architecture.latent_channels else STEP] * (len(shapes) - 1) + [OUTPUT_STEP]
    if shapes[0].dense:
        fine[0] = DENSE_STEP
    # Refuses a model that is too wide before anything large is computed.
    bits = [
        _bits_into(kernel, shape, step)
        for shape, (kernel, _), step in list(zip(shapes, kernels, fine, strict=True))[1:]
    ] + [0]
    in_units = _times(kernels[0][0], scale)
    input_shift, limits = _input_range(latents, in_units / _steps(in_units, shapes[0], fine[0]))
    whole = np.clip((latents + (1 << input_shift >> 1)) >> input_shift, -limits, limits)
    before = made = _Made(latents * scale, whole, scale * 2.0**input_shift)
    layers: list[Layer] = []
    for shape, parameters, step, passed_on in zip(shapes, kernels, fine, bits, strict=True):
        skipped = before if shape.skips else None
        layer, after = _quantized(made, skipped, parameters, shape, step, passed_on)
        layers.append(layer)
        before, made = made, after
    decoder = IntegerDecoder(
        architecture,
        inputs.astype(np.uint32),
        limits.astype(np.uint16),
        input_shift,
        tuple(layers),
        thresholds(),
        units_check(unit),
    )
    with _as_config_error():
        decoder.validate()
    return decoder


def architecture_of(model: ModelConfig) -> Architecture:
    """Of the integer decoder of such models."""
    latent_dim = 0 if model.latent_channels else model.latent_dim
    of_map = model.latent_channels, model.blocks
    return Architecture(model.image_shape, latent_dim, model.filters, *of_map)


def _used(latents: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Which latents of ``[N, 1, 1, D]`` say anything."""
    variance = (latents * scale).var((0, 1, 2))
    return np.flatnonzero(variance >= min(UNUSED, variance.max()))  # one at least


def _input_range(latents: np.ndarray, weights: np.ndarray) -> tuple[int, np.ndarray]:
    """By how much latents in units are shifted, as little as leaves the first layer's sums exact;
    and the largest size of each as an input.

    weights: of the first layer, ``[inputs, outputs]``, in steps, whatever the shift.
    """
    largest = np.abs(latents).max((0, 1, 2), initial=0) * HEADROOM
    sizes = np.abs(weights).reshape(-1, len(largest), weights.shape[1]).sum(0)
    for shift in range(INPUT_SHIFT, MAX_INPUT_SHIFT + 1):
        limits = np.clip(np.ceil(largest / 2**shift), 1, 0xFFFF)
        if (limits @ sizes).max() < MARGIN * EXACT:
            break
    return shift, limits


def _quantized(
    made: _Made,
    skipped: _Made | None,
    parameters: tuple[np.ndarray, np.ndarray],
    shape: Shape,
    fine: float,
    bits: int,
) -> tuple[Layer, _Made]:
    """A layer and what it makes of what it is given.

    skipped: what it also adds, of a layer that skips; parameters: of ``_kernels``; fine: the step
    of its weights, in deviations; bits: of what it passes on, 0 of the last layer.
    """
    (kernel, real_bias), last, c = parameters, bits == 0, shape.channels
    weights = _times(kernel, made.value)
    repeat = shape.outputs // c  # a channel's outputs share step and shift
    skip = None
    if last:
        # A power of two, from OUTPUT_STEP to twice as much.
        spread = weights.std(0).mean()
        shift = np.floor(-np.log2(fine * spread + _TINY)) - OUTPUT_SHIFT
        shift = np.full(c, np.clip(shift, 0, MAX_SHIFT))
        each_step = step = 2.0 ** -(OUTPUT_SHIFT + shift)
    else:
        each_step = _steps(weights, shape, fine)
        step = each_step[:c]
    if skipped is not None:
        each_step, skip = _skip(step, skipped)
        step = each_step
    rounded = rounded_by(_gram(made.whole, shape), weights / each_step)
    real = _sums(made.real, kernel, shape) + real_bias
    found = _sums(made.whole, rounded, shape)
    if skipped is not None:
        real += skipped.real.reshape(real.shape)
        found += (skipped.whole * skip).reshape(found.shape)
    # The bias also takes back what rounding moves on average.
    bias = (real / each_step - found).mean(0)
    if not last:
        outputs = np.maximum(found + bias, 0).reshape(-1, c)
        largest = np.maximum(np.quantile(outputs, IN_RANGE, axis=0), 1)
        shift = np.clip(np.ceil(np.log2(largest / (2**bits - 1))), 0, MAX_SHIFT)
        bias += np.tile(np.floor(2.0 ** (shift - 1)), repeat)  # to the nearest, not down
    layer = Layer(
        rounded.reshape(*shape.weights[:-2], -1, shape.outputs).astype(np.int32),
        bias.astype(np.int64),
        shift.astype(np.uint8),
        bits,
        skip,
    )
    layer = layer._replace(bias=np.rint(bias / layer.grain).astype(np.int64) * layer.grain)
    size = (-1, *shape.size, c)
    whole = np.floor((found + layer.bias) * np.tile(2.0**-shift, repeat))
    whole = np.clip(whole, 0, layer.top).reshape(size)
    return layer, _Made(np.maximum(real, 0).reshape(size), whole, step * 2.0**shift)


def _times(kernel: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Weights ``[inputs, outputs]`` times what each input is worth, the same at each tap."""
    return kernel * np.tile(value, len(kernel) // len(value))[:, None]


def _steps(weights: np.ndarray, shape: Shape, fine: float) -> np.ndarray:
    """Of each output, what its weights become multiples of: the same for a channel's outputs.

    fine: in deviations of its weights.
    """
    repeat = shape.outputs // shape.channels
    spread = weights.reshape(len(weights), repeat, shape.channels).std((0, 1))
    return np.tile(np.maximum(fine * spread, _TINY), repeat)


def _skip(step: np.ndarray, skipped: _Made) -> tuple[np.ndarray, np.ndarray]:
    """Steps of weights, at least these, and what is skipped is multiplied by, int64.

    A whole number of steps is worth what one of the skipped integers is, so that adding them takes
    no rounding, except in a channel that hardly ever says anything.
    """
    most = np.floor(SKIP_SHARE * EXACT / np.maximum(skipped.whole.max((0, 1, 2)), 1))
    skip = np.clip(np.floor(skipped.value / step), 0, most)
    return np.where(skip > 0, skipped.value / np.maximum(skip, 1), step), skip.astype(np.int64)


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    """What is wrong here is the model's settings, and no file."""
    try:
        yield
    except FormatError as error:
        raise ConfigError(f"{error}; use fewer filters or latents") from error


def thresholds() -> np.ndarray:
    """The lowest output, in 1/256 of a logit, that each grey level from 1 on is nearest to."""
    half = (np.arange(1, LEVELS + 1) - 0.5) / LEVELS
    return np.ceil(np.log(half / (1 - half)) * 2**OUTPUT_SHIFT).astype(np.int32)


def _kernels(
    params: Params, inputs: np.ndarray, architecture: Architecture
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights ``[inputs, outputs]`` and biases of each layer; of a convolution, tap by tap."""
    blocks = (params[f"block_{i}"] for i in range(architecture.blocks))
    inner = [block[name] for block in blocks for name in ("first", "second")]
    first = params["input" if architecture.latent_channels else "dense"]
    stages = [params[f"deconv_{i}"] for i in range(len(architecture.filters))]
    out = []
    for k, layer in enumerate([first, *inner, *stages, params["output"]]):
        kernel = np.asarray(layer["kernel"], np.float64)
        kernel = kernel[..., inputs, :] if k == 0 else kernel
        # Linen's kernels are flipped.
        kernel = kernel if kernel.ndim == 2 else kernel[::-1, ::-1]
        bias = np.asarray(layer["bias"], np.float64)
        out.append((kernel.reshape(-1, kernel.shape[-1]), bias))
    return out


def _bits_into(kernel: np.ndarray, shape: Shape, fine: float) -> int:
    """The most bits that a layer's inputs may have for all its sums to be exact."""
    whole = np.abs(kernel) / (fine * (kernel.std(0) + _TINY))
    share = MARGIN - SKIP_SHARE * shape.skips
    room = share * EXACT / max(whole.sum(0).max(), _TINY)
    if room < 1 << FEWEST_BITS:
        raise ConfigError(
            f"a decoder whose sums could get beyond 2**24: a layer of {len(kernel)} inputs leaves "
            f"them {room:.0f} levels, {1 << FEWEST_BITS} are needed; use fewer filters"
        )
    return min(int(np.log2(room)), MOST_BITS)


def _parts(x: np.ndarray, shape: Shape) -> Iterator[np.ndarray]:
    """What goes into a layer's sums, some images at a time: ``[N, h, w, C] -> [n, inputs]``."""
    for start in range(0, len(x), PART):
        part = x[start : start + PART]
        yield part.reshape(len(part), -1) if shape.dense else _columns(part, shape)


def _gram(x: np.ndarray, shape: Shape) -> np.ndarray:
    """How a layer's inputs go together: sums of their products, ``[inputs, inputs]``."""
    gram = np.zeros((1, 1))
    for part in _parts(x, shape):
        exact = part.astype(np.float64)
        gram = gram + exact.T @ exact
    return gram


def _sums(x: np.ndarray, kernel: np.ndarray, shape: Shape) -> np.ndarray:
    """What a layer of these weights adds up: ``[N, h, w, C] -> [N or N * H * W, outputs]``."""
    return np.concatenate([part @ kernel for part in _parts(x, shape)])


def _columns(x: np.ndarray, shape: Shape) -> np.ndarray:
    """What a transposed convolution adds up at each output pixel, tap by tap.

    ``[N, h, w, C] -> [N * H * W, 9 * C]``; zero where a tap has no input there.
    """
    n, h, w, c = x.shape
    stride, size = shape.stride, shape.size
    top, left = low_padding((h, w), stride, size)
    out = np.zeros((n, stride * h + 2, stride * w + 2, KERNEL**2, c), np.float32)
    for tap in range(KERNEL**2):
        i, j = 1 + tap // KERNEL - top, 1 + tap % KERNEL - left
        out[:, i : i + stride * h : stride, j : j + stride * w : stride, tap] = x
    return out[:, 1 : 1 + size[0], 1 : 1 + size[1]].reshape(-1, KERNEL**2 * c)


def rounded_weights(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Whole weights ``[K, M]`` for inputs ``[n, K]``: each rounding's error is made up for by the
    weights that are still to be rounded, as far as their inputs go together."""
    return rounded_by(inputs.T.astype(np.float64) @ inputs.astype(np.float64), weights)


def rounded_by(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``rounded_weights`` for inputs with these sums of products, ``[K, K]``."""
    gram = gram + np.eye(len(gram)) * (DAMPING * np.trace(gram) / len(gram) + 1e-9)
    factor = np.linalg.cholesky(np.linalg.inv(gram)).T  # upper
    left, whole = weights.copy(), np.empty_like(weights)
    for k, row in enumerate(factor):
        whole[k] = np.rint(left[k])
        left[k + 1 :] -= np.outer(row[k + 1 :], (left[k] - whole[k]) / row[k])
    return whole
