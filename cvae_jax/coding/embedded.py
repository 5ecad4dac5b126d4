"""A decoder as bytes: what an archive carries to decode by itself, and what identifies a model.

The bytes are a safetensors file: the decoder's parameters by name, the coding tables, and the
architecture as JSON in its metadata.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np

from cvae_jax.coding.architecture import decoder_shapes
from cvae_jax.coding.tables import Tables
from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.modules import Params, named_leaves

DTYPES = ("float16", "float32")
_TABLES = "tables"
_LIMIT = 1 << 14  # of any number in an architecture that comes with a file
_HEADER_LIMIT = 1 << 14  # bytes of JSON; a decoder's takes 1,000
# What reading something else than a model ends in.
_NOT_ONE = (ConfigError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


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


def unpack(data: bytes, identity: tuple[bytes, bytes]) -> tuple[ModelConfig, Params, Tables]:
    """The inverse of ``pack``: architecture, ``{"decoder": float32 parameters}``, tables.

    identity: the starts of the digests that decoder and tables must have.  Of a decoder in
    float16 nothing but its section's check can tell: the digest is of what was rounded.

    Raises:
      FormatError: these bytes are no such model.
    """
    model, arrays, tables = _read(data)
    stored = {array.dtype.name for array in arrays.values()}
    if len(stored) != 1 or stored.pop() not in DTYPES:
        raise FormatError(f"the embedded model's parameters are not {' or '.join(DTYPES)}")
    if {name: a.shape for name, a in arrays.items()} != decoder_shapes(model):
        raise FormatError("the embedded model's parameters are not those of its architecture")
    if tables.latent_dim != model.latent_dim:
        raise FormatError("the embedded model's tables are of another model")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FormatError("the embedded model has parameters that are no numbers")
    params: Params = {"decoder": {}}
    for name, array in arrays.items():
        *folders, leaf = name.split("/")
        node = params["decoder"]
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = array.astype(np.float32)
    of_decoder, of_tables = identity
    if not tables.digest.startswith(of_tables):
        raise FormatError("the embedded model's tables are not those that the header names")
    exact = next(iter(arrays.values())).dtype == np.float32
    if exact and not digest(params).startswith(of_decoder):
        raise FormatError("the embedded model's parameters are not those that the header names")
    return model, params, tables


def _read(data: bytes) -> tuple[ModelConfig, dict[str, np.ndarray], Tables]:
    """What a safetensors file holds of a model, the decoder's arrays as they are stored."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(data[:8], "little")
    if length > _HEADER_LIMIT:
        raise FormatError(f"the embedded model has a header of {length} bytes")
    try:
        arrays = load(data)  # checks sizes and offsets before it copies anything
        settings = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["model"])
        model = ModelConfig(**{**settings, "filters": tuple(settings["filters"])})
        numbers = [*model.image_shape, model.latent_dim, model.dense_width, *model.filters]
        tables = arrays.pop(_TABLES).tobytes()
    except (*_NOT_ONE, SafetensorError) as error:
        reason = ascii(str(error))[1:-1][:80]  # of what the file says, nothing is printed as it is
        raise FormatError(f"the embedded model is damaged ({reason})") from error
    if len(model.filters) > 16 or not all(type(n) is int and n <= _LIMIT for n in numbers):
        raise FormatError("an embedded model of impossible dimensions")
    return model, arrays, Tables.from_bytes(tables)
