"""The original's weights give the original's outputs."""

import shutil

import h5py
import numpy as np
import pytest
from conftest import seed_dir

from cvae_jax import codec
from cvae_jax.errors import CheckpointError
from cvae_jax.runs import keras_import


def test_imported_weights_reproduce_keras(tmp_path):
    seed = seed_dir()
    files = seed / "CVAE_encoder_train.h5", seed / "CVAE_decoder_train.h5"
    assert keras_import.main([*map(str, files), str(tmp_path / "out")]) == 0
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


def test_refuses_encoder_and_decoder_in_the_wrong_order(tmp_path):
    seed = seed_dir()
    for name in ("encoder", "decoder"):
        shutil.copy(seed / f"CVAE_{name}_train.h5", tmp_path / f"{name}.h5")
    with pytest.raises(CheckpointError, match="not an encoder and a decoder"):
        keras_import.convert(tmp_path / "decoder.h5", tmp_path / "encoder.h5", tmp_path / "out")
