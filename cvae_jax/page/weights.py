"""The encoder of a page: weights rounded to a few bits, in the project's own packing.

As for the integer decoder (``exact.from_params``), each weight is rounded so that those after it
make up for its error.  What the layers see meanwhile are images of the model's own: symbols drawn
from its tables, decoded; so that no data is needed.  ``web/src/codec/encoder.js`` reads the result.
It is no part of the file format: whatever latents an encoder finds, the file that is made of them
decodes to the same pixels everywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cvae_jax import conv
from cvae_jax.codec import Codec
from cvae_jax.coding.integers import packing
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.vectors.tables import REACH, SUBUNIT, Tables
from cvae_jax.errors import ConfigError
from cvae_jax.exact.from_params import rounded_weights
from cvae_jax.layers import KERNEL, STRIDE
from cvae_jax.pixels import to_unit

# A channel's weights are rounded to multiples of so many of their standard deviations: of the dense
# layer, which nearly all weights belong to, and of the others.  On MNIST's held-out images at
# quality 50, the error grows by 0.3 % and the bytes by 0.1 %.
DENSE_STEP, STEP = 0.5, 0.05
IMAGES = 2000  # that weights are rounded for
ROWS = 20_000  # inputs of a layer that are looked at
_HEADER = struct.Struct("<4sB3HIIB")
_MAGIC = b"CVEN"
_VERSION = 1
_TINY = 1e-12  # in place of the spread of weights that are all the same


class Layer(NamedTuple):
    weights: np.ndarray  # int32 [inputs, outputs], in steps
    step: np.ndarray  # float32 [outputs]
    bias: np.ndarray  # float32 [outputs]


def pack(codec: Codec) -> bytes:
    """The part of an encoder that gives the posterior's means.

    A header (magic, version, image shape, latents, width of the dense layer, stages), the filters,
    packed; for each layer the float32 step and bias of each output, and the weights, packed.
    """
    model = codec.model
    sizes = model.latent_dim, model.dense_width, len(model.filters)
    out = [_HEADER.pack(_MAGIC, _VERSION, *model.image_shape, *sizes)]
    out.append(packing.pack(np.array(model.filters)))
    for layer in rounded(codec):
        floats = (layer.step, layer.bias)
        out += [x.astype("<f4").tobytes() for x in floats] + [packing.pack(layer.weights)]
    return b"".join(out)


def rounded(codec: Codec) -> Iterator[Layer]:
    """The convolutions, the dense layer, and that of the means."""
    rng = np.random.default_rng(0)
    tables = codec.tables
    if not isinstance(tables, Tables):
        raise ConfigError("a page cannot hold the encoder of a model whose latents form a map")
    symbols = _drawn(tables, IMAGES, rng)
    # Both encoders side by side: what comes out of the real one, and of the rounded one.
    real = found = to_unit(codec.decode_symbols(symbols, 1))
    for name, params in _layers(codec):
        if name.startswith("conv"):
            real, found = (np.asarray(conv.unfold(x, KERNEL, STRIDE)) for x in (real, found))
        else:
            real, found = (x.reshape(len(x), -1) for x in (real, found))
        kernel, bias = (np.asarray(params[part], np.float64) for part in ("kernel", "bias"))
        kernel = kernel.reshape(-1, kernel.shape[-1])
        share = DENSE_STEP if name == "dense" else STEP
        step = np.maximum(share * kernel.std(0), _TINY).astype(np.float32)
        rows = found.reshape(-1, found.shape[-1])
        some = rows[rng.permutation(len(rows))[:ROWS]]
        whole = rounded_weights(kernel / step, some).astype(np.int32)
        real, sums = real @ kernel + bias, found @ (whole * step.astype(np.float64))
        # The bias also takes back what rounding moves on average.
        moved = (real - sums).reshape(-1, len(bias)).mean(0)
        yield Layer(whole, step, moved.astype(np.float32))
        real, found = np.maximum(real, 0), np.maximum(sums + moved, 0)


def _layers(codec: Codec) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    names = [f"conv_{i}" for i in range(len(codec.model.filters))]
    for name in (*names, "dense", "z_mean"):
        yield name, codec.params["encoder"][name]


def _drawn(tables: Tables, n: int, rng: np.random.Generator) -> np.ndarray:
    """Symbols at a step of 1 as the tables expect them, int32 ``[n, D]``."""
    component = rng.choice(tables.components, n, p=tables.weights / TOTAL)
    below = rng.integers(0, tables.curve[-1], (n, tables.latent_dim))
    cell = np.searchsorted(tables.curve, below, side="right") - 1 - REACH
    units = tables.means[component] + (cell + 0.5) * tables.widths[component] / SUBUNIT
    return np.rint(units).astype(np.int32)
