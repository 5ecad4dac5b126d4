"""A decoder as bytes: what an archive carries to decode by itself, and what identifies a model.

The bytes are a safetensors file: the decoder's parameters by name, the coding tables, and the
architecture as JSON in its metadata.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np

from cvae_jax.coding.tables import Tables
from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.modules import Params, abstract_params, named_leaves

DTYPES = ("float16", "float32")
_TABLES = "tables"
_LIMIT = 1 << 14  # of any number in an architecture that comes with a file


def digest(params: Params) -> bytes:
    """SHA-256 of the decoder's parameters: names, shapes and float32 values, by name."""
    sha = hashlib.sha256()
    for name, array in sorted(named_leaves(params["decoder"]).items()):
        sha.update(f"{name}{list(array.shape)}".encode())
        sha.update(np.asarray(array, "<f4").tobytes())
    return sha.digest()


def pack(model: ModelConfig, params: Params, tables: Tables, dtype: str) -> bytes:
    """The decoder of ``params`` and the tables.

    Raises:
      ConfigError: a dtype other than float16 and float32, or one that these values do not fit.
    """
    from safetensors.numpy import save

    if dtype not in DTYPES:
        raise ConfigError(f"a model is embedded as {' or '.join(DTYPES)}, not {dtype}")
    with np.errstate(over="ignore"):  # infinity is refused next
        arrays = {
            n: np.asarray(a).astype(dtype) for n, a in named_leaves(params["decoder"]).items()
        }
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise ConfigError("the decoder's parameters do not fit float16: embed it as float32")
    arrays[_TABLES] = np.frombuffer(tables.to_bytes(), np.uint8)
    return save(arrays, {"model": json.dumps(dataclasses.asdict(model))})


def unpack(data: bytes) -> tuple[ModelConfig, Params, Tables]:
    """The inverse of ``pack``: architecture, ``{"decoder": float32 parameters}``, tables.

    Raises:
      FormatError: these bytes are no such model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)  # checks sizes and offsets before it copies anything
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        settings = json.loads(metadata["model"])
        model = ModelConfig(**{**settings, "filters": tuple(settings["filters"])})
        numbers = [*model.image_shape, model.latent_dim, model.dense_width, *model.filters]
        if len(model.filters) > 16 or not all(type(n) is int and n <= _LIMIT for n in numbers):
            raise FormatError("an embedded model of impossible dimensions")
        tables = Tables.from_bytes(arrays.pop(_TABLES).tobytes())
    except (SafetensorError, ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"the embedded model is damaged ({error})") from error
    wanted = named_leaves(abstract_params(model)["decoder"])
    shapes = {name: a.shape for name, a in arrays.items()}
    if shapes != {name: a.shape for name, a in wanted.items()}:
        raise FormatError("the embedded model's parameters are not those of its architecture")
    if tables.latent_dim != model.latent_dim:
        raise FormatError("the embedded model's tables are of another model")
    params: Params = {}
    for name, array in arrays.items():
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = array.astype(np.float32)
    return model, {"decoder": params}, tables
