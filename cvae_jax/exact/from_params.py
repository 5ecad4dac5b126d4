"""An integer decoder from a trained one: weights rounded, biases corrected, sums proved exact.

Post-training quantisation, layer by layer.  A channel's weights become whole multiples of a step
in proportion to their spread; each is rounded so that the ones after it can make up for its error
(Frantar et al. 2023, "GPTQ", algorithm 1); the bias takes back what is left on average (Nagel et
al. 2019, section 4.2); and each sum is shifted by what keeps the activations in range.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact.integers import (
    EXACT,
    KERNEL,
    LEVELS,
    MAX_SHIFT,
    STRIDE,
    Architecture,
    IntegerDecoder,
    Layer,
    low_padding,
    units_check,
)
from cvae_jax.modules import Params

INPUT_SHIFT = 3  # a latent is known to 8 units, 1/32 of its mean posterior standard deviation
MOST_BITS, FEWEST_BITS = 12, 7  # between layers: as many as leave every sum exact
MARGIN = 0.9  # of what is exact: rounding moves sums a little
OUTPUT_SHIFT = 8  # thresholds are in 1/256 of a logit
# Steps of weights, in standard deviations of their channel's weights: of the dense layer, of the
# transposed convolutions, and of the last, whose few weights are seen in every pixel.
DENSE_STEP, STEP, OUTPUT_STEP = 0.05, 0.07, 0.008
UNUSED = 0.01  # variance over the images of a latent that says nothing (Burda et al. 2016)
HEADROOM = 4  # of an input, over the largest that calibration saw
IN_RANGE = 0.9999  # share of a channel's activations that is not cut
_TINY = 1e-12  # in place of the spread of weights that are all the same
DAMPING = 0.01  # of the inputs' correlations, in their mean power


def quantize_decoder(
    params: Params, model: ModelConfig, unit: np.ndarray, latents: np.ndarray
) -> IntegerDecoder:
    """The integer decoder of trained parameters.

    unit: float ``[D]``, of the latents (``Tables.unit``); latents: int ``[N, D]``, in units, of
    a few hundred images as files will hold them.

    Raises:
      ConfigError: a model with sums that could not be exact.
    """
    architecture = Architecture(model.image_shape, model.latent_dim, model.filters)
    with _as_config_error():
        architecture.check()
    scale = unit.astype(np.float64)
    variance = (latents * scale).var(0)
    inputs = np.flatnonzero(variance >= min(UNUSED, variance.max()))  # one at least
    limits = np.ceil(np.abs(latents[:, inputs]).max(0, initial=0) * HEADROOM / 2**INPUT_SHIFT)
    limits = np.clip(limits, 1, 0xFFFF)
    # Both decoders side by side: real activations, and integers of which one is worth `value`.
    real = latents[:, inputs] * scale[inputs]
    whole = np.clip((latents[:, inputs] + (1 << INPUT_SHIFT >> 1)) >> INPUT_SHIFT, -limits, limits)
    value = scale[inputs] * 2.0**INPUT_SHIFT
    kernels = _kernels(params["decoder"], inputs)
    sizes, channels = architecture.sizes, architecture.channels
    # Refuses a model that is too wide before anything large is computed.
    bits_into = [
        _bits_into(kernel, last=k == len(kernels) - 1) for k, (kernel, _) in enumerate(kernels) if k
    ]
    layers: list[Layer] = []
    for k, (kernel, real_bias) in enumerate(kernels):
        last = k == len(kernels) - 1
        if k:
            stride = 1 if last else STRIDE
            real, whole = (_columns(x, stride, sizes[k]) for x in (real, whole))
            value = np.tile(value, KERNEL**2)
        weights = kernel * value[:, None]
        repeat = weights.shape[1] // channels[k]  # a channel's outputs share step and shift
        spread = weights.reshape(len(weights), repeat, -1).std((0, 1))
        if last:
            # A power of two, from OUTPUT_STEP to twice as much.
            shift = np.floor(-np.log2(OUTPUT_STEP * spread.mean() + _TINY)) - OUTPUT_SHIFT
            shift = np.full(channels[k], np.clip(shift, 0, MAX_SHIFT))
            step = 2.0 ** -(OUTPUT_SHIFT + shift)
        else:
            step = np.maximum((STEP if k else DENSE_STEP) * spread, _TINY)
        each_step = np.tile(step, repeat)
        rounded = rounded_weights(weights / each_step, whole)
        real, found = real @ kernel + real_bias, whole @ rounded
        # The bias also takes back what rounding moves on average.
        bias = (real / each_step - found).mean(0)
        if last:
            layers.append(_layer(rounded, bias, shift, architecture, k, bits=0))
            break
        bits = bits_into[k]
        outputs = np.maximum(found + bias, 0).reshape(-1, channels[k])
        largest = np.maximum(np.quantile(outputs, IN_RANGE, axis=0), 1)
        shift = np.clip(np.ceil(np.log2(largest / (2**bits - 1))), 0, MAX_SHIFT)
        bias += np.tile(np.floor(2.0 ** (shift - 1)), repeat)  # to the nearest, not down
        layers.append(_layer(rounded, bias, shift, architecture, k, bits))
        shifted = np.floor((found + layers[k].bias) * np.tile(2.0**-shift, repeat))
        shape = (len(latents), *sizes[k], channels[k])
        whole = np.clip(shifted, 0, layers[k].top).reshape(shape)
        real = np.maximum(real, 0).reshape(shape)
        value = step * 2.0**shift
    decoder = IntegerDecoder(
        architecture,
        inputs.astype(np.uint32),
        limits.astype(np.uint16),
        INPUT_SHIFT,
        tuple(layers),
        thresholds(),
        units_check(unit),
    )
    with _as_config_error():
        decoder.validate()
    return decoder


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


def _kernels(params: Params, inputs: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights ``[inputs, outputs]`` and biases of each layer; of a convolution, tap by tap."""
    stages = sum(name.startswith("deconv_") for name in params)
    out = []
    for name in ("dense", *(f"deconv_{i}" for i in range(stages)), "output"):
        kernel = np.asarray(params[name]["kernel"], np.float64)
        # Linen's kernels are flipped.
        kernel = kernel[inputs] if kernel.ndim == 2 else kernel[::-1, ::-1]
        bias = np.asarray(params[name]["bias"], np.float64)
        out.append((kernel.reshape(-1, kernel.shape[-1]), bias))
    return out


def _bits_into(kernel: np.ndarray, last: bool) -> int:
    """The most bits that a layer's inputs may have for all its sums to be exact."""
    whole = np.abs(kernel) / ((OUTPUT_STEP if last else STEP) * (kernel.std(0) + _TINY))
    room = MARGIN * EXACT / max(whole.sum(0).max(), _TINY)
    if room < 1 << FEWEST_BITS:
        raise ConfigError(
            f"a decoder whose sums could get beyond 2**24: a layer of {len(kernel)} inputs leaves "
            f"them {room:.0f} levels, {1 << FEWEST_BITS} are needed; use fewer filters"
        )
    return min(int(np.log2(room)), MOST_BITS)


def _layer(
    weights: np.ndarray,
    bias: np.ndarray,
    shift: np.ndarray,
    architecture: Architecture,
    k: int,
    bits: int,
) -> Layer:
    if k:
        weights = weights.reshape(KERNEL, KERNEL, architecture.channels[k - 1], -1)
    layer = Layer(weights.astype(np.int32), bias.astype(np.int64), shift.astype(np.uint8), bits)
    return layer._replace(bias=np.rint(bias / layer.grain).astype(np.int64) * layer.grain)


def _columns(x: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """What a transposed convolution adds up at each output pixel, tap by tap.

    ``[N, h, w, C] -> [N * H * W, 9 * C]``; zero where a tap has no input there.
    """
    n, h, w, c = x.shape
    top, left = low_padding((h, w), stride, size)
    out = np.zeros((n, stride * h + 2, stride * w + 2, KERNEL**2, c), np.float32)
    for tap in range(KERNEL**2):
        i, j = 1 + tap // KERNEL - top, 1 + tap % KERNEL - left
        out[:, i : i + stride * h : stride, j : j + stride * w : stride, tap] = x
    return out[:, 1 : 1 + size[0], 1 : 1 + size[1]].reshape(-1, KERNEL**2 * c)


def rounded_weights(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Whole weights ``[K, M]`` for inputs ``[n, K]``: each rounding's error is made up for by the
    weights that are still to be rounded, as far as their inputs go together."""
    gram = inputs.T.astype(np.float64) @ inputs.astype(np.float64)
    gram += np.eye(len(gram)) * (DAMPING * np.trace(gram) / len(gram) + 1e-9)
    factor = np.linalg.cholesky(np.linalg.inv(gram)).T  # upper
    left, whole = weights.copy(), np.empty_like(weights)
    for k, row in enumerate(factor):
        whole[k] = np.rint(left[k])
        left[k + 1 :] -= np.outer(row[k + 1 :], (left[k] - whole[k]) / row[k])
    return whole
