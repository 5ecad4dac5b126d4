"""A decoder as bytes: the same after the trip, and refused when it is not one."""

import json

import jax
import numpy as np
import pytest
from conftest import synthetic_tables
from safetensors.numpy import load, save

from cvae_jax.coding import embedded
from cvae_jax.coding.architecture import decoder_cost, decoder_shapes
from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.modules import abstract_params, init_params, named_leaves

MODEL = ModelConfig(height=9, width=8, latent_dim=3, filters=(4, 2), dense_width=8)
PARAMS = init_params(MODEL, jax.random.key(0))
TABLES = synthetic_tables(components=2, latent_dim=3)
BLOB = embedded.pack(MODEL, PARAMS, TABLES, "float32")
IDENTITY = (embedded.digest(PARAMS)[:16], TABLES.digest[:16])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 1e-3)])
def test_a_decoder_survives(dtype, tolerance):
    blob = embedded.pack(MODEL, PARAMS, TABLES, dtype)
    model, params, tables = embedded.unpack(blob, IDENTITY)
    assert model == MODEL
    assert tables.digest == TABLES.digest
    assert set(params) == {"decoder"}
    assert jax.tree.structure(params["decoder"]) == jax.tree.structure(PARAMS["decoder"])
    for ours, theirs in zip(
        jax.tree.leaves(params["decoder"]), jax.tree.leaves(PARAMS["decoder"]), strict=True
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_the_digest_is_of_the_decoder_alone():
    digest = embedded.digest(PARAMS)
    assert digest == embedded.digest({"decoder": PARAMS["decoder"]})
    other = jax.tree.map(lambda leaf: leaf, PARAMS)
    other["decoder"]["dense"]["bias"] = other["decoder"]["dense"]["bias"].at[0].set(1e-9)
    assert digest != embedded.digest(other)


def test_values_that_do_not_fit_are_refused():
    large = jax.tree.map(lambda leaf: leaf + 1e6, PARAMS)
    with pytest.raises(ConfigError, match="float32"):
        embedded.pack(MODEL, large, TABLES, "float16")
    with pytest.raises(ConfigError, match="float16 or float32"):
        embedded.pack(MODEL, PARAMS, TABLES, "float64")


def changed(arrays=None, **settings):
    held = {**load(BLOB), **(arrays or {})}
    model = {"height": 9, "width": 8, "channels": 1, "latent_dim": 3}
    model |= {"filters": [4, 2], "dense_width": 8, **settings}
    return save({k: v for k, v in held.items() if v is not None}, {"model": json.dumps(model)})


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        BLOB[:-1],
        BLOB + b"\0",
        b"\xff" * 8 + BLOB[8:],
        changed(latent_dim=4),
        changed(height=2**40),
        changed(height=-1),
        changed(filters=[2**14] * 40),
        changed(filters="ab"),
        changed(unknown=1),
        changed({"tables": None}),
        changed({"tables": np.zeros(5, np.uint8)}),
        changed({"dense/bias": None}),
        changed({"dense/bias": np.zeros(3, np.float32)}),
        changed({"more": np.zeros(3, np.float32)}),
    ],
)
def test_anything_else_is_refused(blob):
    with pytest.raises(FormatError):
        embedded.unpack(blob, IDENTITY)


DEEP = "[" * 100_000
LONG = "1" * 100_000


@pytest.mark.parametrize(
    "metadata",
    [
        DEEP,
        f'{{"height": {DEEP}',
        "[" * 5000,
        f'{{"height": {LONG}}}',
        f'{{"height": {LONG[:6000]}}}',
        '{"height": 1e999, "filters": [1]}',
        '{"height\\u001b[31m": 1, "filters": [1]}',
        "[1]",
        "null",
        '{"filters": 3}',
        '{"filters": ["a"]}',
        '{"filters": [true]}',
        "\ud800",
    ],
)
def test_json_that_is_no_architecture(metadata):
    blob = save(load(BLOB), {"model": metadata.encode(errors="replace").decode()})
    with pytest.raises(FormatError) as refused:
        embedded.unpack(blob, IDENTITY)
    assert len(str(refused.value)) < 200
    assert str(refused.value).isprintable()


def test_what_contradicts_the_header_is_damage():
    """Its checks may be right: the digests are of what the archive was made with."""
    other = synthetic_tables(components=2, latent_dim=3, seed=5)
    for blob, words in (
        (changed({"tables": np.frombuffer(other.to_bytes(), np.uint8)}), "tables"),
        (changed({"dense/bias": load(BLOB)["dense/bias"] + 1e-6}), "parameters"),
        (changed({"dense/bias": load(BLOB)["dense/bias"] * np.nan}), "no numbers"),
        (changed({"dense/bias": load(BLOB)["dense/bias"].astype(np.float64)}), "float16"),
    ):
        with pytest.raises(FormatError, match=words):
            embedded.unpack(blob, IDENTITY)
    rounded = embedded.pack(MODEL, PARAMS, TABLES, "float16")
    for identity in ((IDENTITY[0], bytes(16)), (bytes(16), bytes(16))):
        with pytest.raises(FormatError, match="tables"):
            embedded.unpack(rounded, identity)


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(),
        MODEL,
        ModelConfig(33, 7, 3, 2, (5, 3, 2), 4),
        ModelConfig(1, 1, 1, 1, (1,), 1),
    ],
)
def test_the_arithmetic_of_architectures_is_that_of_the_network(model):
    leaves = named_leaves(abstract_params(model)["decoder"])
    assert decoder_shapes(model) == {name: leaf.shape for name, leaf in leaves.items()}
    cost = decoder_cost(model)
    assert cost.memory >= 4 * model.height * model.width * model.channels
    if model == ModelConfig():
        assert cost.multiply_adds == 5_694_976


def test_an_unchanged_one_is_not():
    assert embedded.unpack(changed(), IDENTITY)[0] == MODEL
