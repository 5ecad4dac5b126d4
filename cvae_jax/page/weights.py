"""The encoder of a page: weights rounded to a few bits, in the project's own packing.

``web/src/codec/encoder.js`` reads it.  It is no part of the file format: whatever latents an
encoder finds, the file that is made of them decodes to the same pixels everywhere.
"""

from __future__ import annotations

import struct

import numpy as np

from cvae_jax.coding import packing
from cvae_jax.config import ModelConfig
from cvae_jax.modules import Params

# A channel's weights are rounded to multiples of so many of their standard deviations: of the dense
# layer, which nearly all weights belong to, and of the others.
DENSE_STEP, STEP = 0.25, 0.05
_HEADER = struct.Struct("<4sB3HIIB")
_MAGIC = b"CVEN"
_VERSION = 1
_TINY = 1e-12  # in place of the spread of weights that are all the same


def pack(params: Params, model: ModelConfig) -> bytes:
    """The part of an encoder that gives the posterior's means.

    A header (magic, version, image shape, latents, width of the dense layer, stages), the filters,
    packed; for each layer the float32 step and bias of each output, and the weights in steps,
    packed, inputs before outputs.
    """
    out = [
        _HEADER.pack(
            *(_MAGIC, _VERSION, *model.image_shape),
            *(model.latent_dim, model.dense_width, len(model.filters)),
        ),
        packing.pack(np.array(model.filters)),
    ]
    for name in layers(model):
        whole, step = rounded(np.asarray(params["encoder"][name]["kernel"]), name)
        bias = np.asarray(params["encoder"][name]["bias"])
        out += [step.astype("<f4").tobytes(), bias.astype("<f4").tobytes(), packing.pack(whole)]
    return b"".join(out)


def layers(model: ModelConfig) -> list[str]:
    return [*(f"conv_{i}" for i in range(len(model.filters))), "dense", "z_mean"]


def rounded(kernel: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights as whole multiples of their channel's step, ``[..., outputs]``, and the steps."""
    share = DENSE_STEP if name == "dense" else STEP
    by_output = kernel.reshape(-1, kernel.shape[-1])
    step = np.maximum(share * by_output.std(0), _TINY)
    return np.rint(kernel / step).astype(np.int32), step.astype(np.float32)
