"""Turns the original Keras project's weights into a checkpoint of this one.

Read with h5py; neither Keras nor TensorFlow is needed.  Keras keeps a transposed
convolution's kernel as the kernel of the convolution that it transposes: ``[kh, kw, out, in]``
and not flipped, where ours is ``[kh, kw, in, out]`` and flipped.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.config import Config
from cvae_jax.errors import CheckpointError, needs
from cvae_jax.modules import Params, abstract_params
from cvae_jax.runs import checkpoint
from cvae_jax.runs.record import Dataset, Record

Weights = list[tuple[np.ndarray, np.ndarray]]  # (kernel, bias) of each layer, first to last


def read_weights(path: str | Path) -> tuple[Weights, list[int]]:
    """Kernel and bias of each layer that has them, and the shape of one input.

    Raises:
      CheckpointError: not a Keras model file.
      InstallError: h5py is missing.
    """
    if not Path(path).exists():
        raise CheckpointError(f"{path}: no such file")
    with needs("keras", "reading Keras weights"):
        import h5py
    try:
        with h5py.File(path) as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            stored = file["model_weights"]
            groups = [stored[name] for name in stored.attrs["layer_names"]]
            weights = []
            for group in groups:
                names = group.attrs["weight_names"]
                if len(names):
                    kernel, bias = (np.asarray(group[name]) for name in names)
                    weights.append((kernel, bias))
            return weights, layers[0]["config"]["batch_shape"][1:]
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a Keras model with weights in HDF5 ({error})"
        ) from error


def to_params(encoder: Weights, decoder: Weights, image_shape: list[int]) -> tuple[Config, Params]:
    """Our configuration and parameters of a Keras encoder and decoder."""
    filters = tuple(kernel.shape[-1] for kernel, _ in encoder if kernel.ndim == 4)
    height, width, channels = image_shape
    config = Config().replace(
        height=height,
        width=width,
        channels=channels,
        filters=filters,
        dense_width=encoder[len(filters)][0].shape[-1],
        latent_dim=encoder[-1][0].shape[-1],
    )
    stages = range(len(filters))
    names = {
        "encoder": [*(f"conv_{i}" for i in stages), "dense", "z_mean", "z_log_var"],
        "decoder": ["dense", *(f"deconv_{i}" for i in stages), "output"],
    }
    params = {
        "encoder": {
            name: {"kernel": kernel, "bias": bias}
            for name, (kernel, bias) in zip(names["encoder"], encoder, strict=True)
        },
        "decoder": {
            name: {"kernel": _untranspose(kernel), "bias": bias}
            for name, (kernel, bias) in zip(names["decoder"], decoder, strict=True)
        },
    }
    return config, params


def _untranspose(kernel: np.ndarray) -> np.ndarray:
    if kernel.ndim == 2:
        return kernel
    return np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))


def convert(encoder_file: str | Path, decoder_file: str | Path, out: str | Path) -> Config:
    """Writes the checkpoint ``out`` from the two Keras files.

    Raises:
      CheckpointError: a file is not what it should be, or ``out`` exists.
    """
    encoder, image_shape = read_weights(encoder_file)
    decoder, _ = read_weights(decoder_file)
    try:
        config, params = to_params(encoder, decoder, image_shape)
    except (ValueError, IndexError) as error:
        raise CheckpointError(
            f"{encoder_file} and {decoder_file} are not an encoder and a decoder of this "
            f"architecture (stride-2 convolutions, a dense layer, z_mean and z_log_var): {error}"
        ) from error
    _check(params, abstract_params(config.model), (encoder_file, decoder_file))
    digests = {Path(f).name: _sha256(Path(f)) for f in (encoder_file, decoder_file)}
    record = Record(config, Dataset("mnist", fingerprint=None), imported_from=digests)
    checkpoint.release(out, params, record.to_dict(), {})
    return config


def _check(params: dict[str, Any], expected: dict[str, Any], files: tuple) -> None:
    for part, file in zip(("encoder", "decoder"), files, strict=True):
        for layer, arrays in expected[part].items():
            for name, array in arrays.items():
                found = params[part][layer][name].shape
                if found != array.shape:
                    raise CheckpointError(
                        f"{file}: {layer} {name} has shape {list(found)}, expected "
                        f"{list(array.shape)}"
                    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
