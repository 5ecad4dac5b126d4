"""The original's weights give the original's outputs."""

import json

import h5py
import jax
import numpy as np
import pytest
from conftest import seed_dir

from cvae_jax import codec
from cvae_jax.cli import parser
from cvae_jax.config import Config
from cvae_jax.errors import CheckpointError
from cvae_jax.modules import init_params
from cvae_jax.runs import keras_import


def test_imported_weights_reproduce_keras(tmp_path):
    seed = seed_dir()
    files = seed / "CVAE_encoder_train.h5", seed / "CVAE_decoder_train.h5"
    keras_import.convert(*files, tmp_path / "out")
    c = codec.load(tmp_path / "out")
    reference = np.load(seed / "keras_reference_outputs.npz")
    posterior = c.posterior(reference["images"])
    np.testing.assert_allclose(posterior.z_mean, reference["z_mean"], atol=1e-4)
    np.testing.assert_allclose(posterior.z_log_var, reference["z_log_var"], atol=1e-4)
    np.testing.assert_allclose(
        c.decode(c.encode(reference["images"])), reference["reconstruction"], atol=1e-4
    )


def test_refuses_what_is_no_keras_model(tmp_path):
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"not hdf5")
    with pytest.raises(CheckpointError, match=r"bad\.h5: not a Keras model"):
        keras_import.convert(bad, bad, tmp_path / "out")
    with h5py.File(bad, "w") as file:
        file["x"] = 1
    with pytest.raises(CheckpointError, match=r"bad\.h5: not a Keras model"):
        keras_import.convert(bad, bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_keras(path, weights):
    """Kernel and bias of each layer as Keras 3 keeps a model of 9x8 images in HDF5."""
    with h5py.File(path, "w") as file:
        layers = [{"config": {"batch_shape": [None, 9, 8, 1]}}]
        file.attrs["model_config"] = json.dumps({"config": {"layers": layers}})
        stored = file.create_group("model_weights")
        stored.attrs["layer_names"] = [f"layer_{i}" for i in range(len(weights))]
        for i, arrays in enumerate(weights):
            group = stored.create_group(f"layer_{i}")
            group.attrs["weight_names"] = ["kernel", "bias"]
            for name, array in zip(("kernel", "bias"), arrays, strict=True):
                group[name] = array


@pytest.fixture
def keras(tmp_path):
    """An encoder's and a decoder's file, and our parameters of the same model."""
    config = Config().replace(height=9, width=8, latent_dim=3, filters=(4, 5), dense_width=6)
    params = jax.device_get(init_params(config.model, jax.random.key(0)))
    files = tmp_path / "encoder.h5", tmp_path / "decoder.h5"
    orders = (
        ("encoder", ("conv_0", "conv_1", "dense", "z_mean", "z_log_var")),
        ("decoder", ("dense", "deconv_0", "deconv_1", "output")),
    )
    for file, (part, names) in zip(files, orders, strict=True):
        layers = [params[part][name] for name in names]
        if part == "decoder":
            layers = [
                {**layer, "kernel": layer["kernel"][::-1, ::-1].swapaxes(2, 3)}
                if layer["kernel"].ndim == 4
                else layer
                for layer in layers
            ]
        write_keras(file, [(layer["kernel"], layer["bias"]) for layer in layers])
    return *files, config, params


def test_the_command_brings_every_weight_over(keras, tmp_path, capsys):
    encoder, decoder, config, params = keras
    arguments = ["import-keras", str(encoder), str(decoder), str(tmp_path / "out")]
    assert parser.main(arguments) == 0
    assert "cvae evaluate --ckpt" in capsys.readouterr().out
    c = codec.load(tmp_path / "out")
    assert c.model == config.model
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(c.params), params)
    assert c.made_by().imported_from.keys() == {"encoder.h5", "decoder.h5"}


def test_refuses_encoder_and_decoder_in_the_wrong_order(keras, tmp_path):
    encoder, decoder, *_ = keras
    with pytest.raises(CheckpointError, match="not an encoder and a decoder"):
        keras_import.convert(decoder, encoder, tmp_path / "out")


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        keras_import.convert(tmp_path / "a.h5", tmp_path / "b.h5", tmp_path / "out")
