"""The integer context model of a trained network: weights rounded, sums proved exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.coding.integers.layers import EXACT, MAX_SHIFT, rounded_layer
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact.from_params import rounded_weights
from cvae_jax.modules import Params
from cvae_jax.refinement.grid import LEVELS
from cvae_jax.refinement.integers import ContextModel
from cvae_jax.refinement.neighbours import FULL
from cvae_jax.refinement.network import Contexts, network_inputs

STEP = 0.06  # of weights, in standard deviations of their output's weights
MOST_BITS, FEWEST_BITS = 11, 6  # between layers: as many as leave every sum exact
IN_RANGE = 0.9999  # share of activations that is not cut
UNITS = 16 / np.log(2)  # of a logit, per nat
_TINY = 1e-12  # in place of the spread of weights that are all the same


def quantize_context(
    params: Params, image_shape: tuple[int, int, int], sample: Contexts
) -> ContextModel:
    """The integer context model of trained parameters.

    sample: of some thousand pixels, to which the rounding is fitted.  What is for
    encoders is still to be measured.

    Raises:
      ConfigError: sums could not be exact, with any number of bits.
    """
    for bits in range(MOST_BITS, FEWEST_BITS - 1, -1):
        model = _quantized(jax.device_get(params), image_shape, sample, bits)
        try:
            model.validate()
            return model
        except FormatError as error:
            fault = error
    raise ConfigError(f"{fault}; train it again, with another seed")


def _quantized(
    params: Params,
    image_shape: tuple[int, int, int],
    sample: Contexts,
    bits: int,
) -> ContextModel:
    inputs = np.asarray(network_inputs(Contexts(*map(jnp.asarray, sample))), np.float64)
    # Of the decoder as it is, and of its integers, of which one is worth `value`.
    real, whole, value = inputs, np.rint(inputs * FULL), np.full(inputs.shape[1], 1 / FULL)
    layers, places = [], []
    for name in ("first", "second"):
        kernel, bias = (np.asarray(params[name][part], np.float64) for part in ("kernel", "bias"))
        kernel_units = kernel * value[:, None]
        step = np.maximum(STEP * kernel_units.std(0), _TINY)
        weights = rounded_weights(kernel_units / step, whole)
        added = np.zeros(len(bias))
        real = real @ kernel + bias
        if name == "first":
            for place in ("row", "column", "channel"):
                of_place = np.asarray(params[place], np.float64)
                at = np.asarray(getattr(sample, place))
                places.append(_whole(of_place / step))
                real = real + of_place[at]
                added = added + places[-1][at]
        found = whole @ weights + added
        bias = (real / step - found).mean(0)  # also takes back what rounding moves on average
        outputs = np.maximum(found + bias, 0)
        largest = np.maximum(np.quantile(outputs, IN_RANGE, axis=0), 1)
        shift = np.clip(np.ceil(np.log2(largest / (2**bits - 1))), 0, MAX_SHIFT)
        layer = rounded_layer(weights, bias, shift, bits)
        layers.append(layer)
        whole = np.clip((found.astype(np.int64) + layer.bias) >> layer.shift, 0, layer.top)
        real, value = np.maximum(real, 0), step * 2.0**shift
    kernel = np.concatenate(
        [params[name]["kernel"] for name in ("hit", "levels", "differences")], 1
    )
    bias = np.concatenate([params["hit"]["bias"], params["levels"]["bias"], np.zeros(LEVELS)])
    units = kernel.astype(np.float64) * value[:, None] * UNITS
    spread = units.std(0)
    shift = np.clip(np.floor(-np.log2(STEP * spread + _TINY)), 0, MAX_SHIFT)
    weights = rounded_weights(units * 2.0**shift, whole)
    wanted = (real @ kernel + bias) * UNITS * 2.0**shift
    layers.append(rounded_layer(weights, (wanted - whole @ weights).mean(0), shift, 0))
    first, second, output = layers
    row, column, channel = places
    return ContextModel(
        image_shape, first, (row, column, channel), second, output, base_quality=None, usual=1.0
    )


def _whole(numbers: np.ndarray) -> np.ndarray:
    """int32; what is too large stays so."""
    return np.rint(np.clip(numbers, -EXACT, EXACT)).astype(np.int32)
