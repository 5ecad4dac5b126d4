"""A release: parameters as safetensors, read without Orbax, refused where they do not fit."""

import json
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from checkpoint_samples import CONFIG, assert_identical, failure
from conftest import ROOT
from safetensors.numpy import save

from cvae_jax import codec
from cvae_jax.config import Config
from cvae_jax.modules import abstract_params, init_params, named_leaves
from cvae_jax.runs import checkpoint, manifest
from cvae_jax.runs.find import find

MODEL = Config().replace(height=9, width=8, latent_dim=2, filters=(4,), dense_width=8).model
PARAMS = jax.device_get(init_params(MODEL, jax.random.key(0)))
ARRAYS = {name: np.asarray(leaf) for name, leaf in named_leaves(PARAMS).items()}
TENSORS = "params.safetensors"


@pytest.fixture
def released(tmp_path):
    return checkpoint.release(tmp_path / "released", PARAMS, CONFIG, {"tables.bin": b"tables"})


def restored(path):
    return checkpoint.restore(path, {"params": abstract_params(MODEL)})["params"]


def test_every_bit_comes_back(released):
    assert_identical(restored(find(released)), PARAMS)
    assert checkpoint.read_config(released) == CONFIG
    assert checkpoint.attached(released, "tables.bin") == b"tables"
    names = {path.name for path in released.iterdir()}
    assert names == {"config.json", "manifest.json", TENSORS, "tables.bin"}


def test_never_over_something_that_is_there(released):
    assert "exists" in failure(checkpoint.release, released, PARAMS, {}, {})


def test_an_item_that_is_not_in_it(released):
    message = failure(checkpoint.restore, released, {"optimizer": PARAMS})
    assert "does not hold 'optimizer', only params" in message


def test_the_released_checkpoints_are_those_that_files_were_made_with():
    """What archives name must not change: with it, files that are there could not be read."""
    for name, model, tables in (
        ("mnist", "474bdefb7d3b796235a27d9a3bef5eec", "f73f860be52136fcbbc69c2066c69c88"),
        ("mnist-hq", "72a052bb95879279e180a5e5c196c8bd", "04276f34df6883657c84270a273e91d7"),
        ("photos32", "f93b9ae247ead692be76003f3c65a676", "7d0c095b36d114a802402bb085b7efed"),
    ):
        identity = codec.load(ROOT / "checkpoints" / name).identity
        assert (identity.model.hex(), identity.tables.hex()) == (model, tables)


def test_reading_one_takes_neither_orbax_nor_tensorstore():
    code = """
import sys, numpy as np
from cvae_jax import codec
c = codec.load("mnist")
images = np.zeros((2, 28, 28), np.uint8)
assert c.decompress(c.compress(images)).shape == (2, 28, 28, 1)
print([m for m in ("orbax", "tensorstore", "optax", "matplotlib", "sklearn") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def without(name):
    return {n: a for n, a in ARRAYS.items() if n != name}


BIAS = "decoder/dense/bias"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a safetensors file"),
        (b"\xff" * 64, "is not a safetensors file"),
        (struct.pack("<Q", 1 << 62) + b"{}", "is not a safetensors file"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "is not a safetensors file"),
        (save(ARRAYS)[:-1], "is not a safetensors file"),
        (save(ARRAYS) + b"x", "is not a safetensors file"),
        (
            header(a={"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 4]}),
            "not a safetensors file",
        ),
        (header(), "is absent there, expected float32"),
        (save(without(BIAS)), f"params/{BIAS} is absent there"),
        (save({**ARRAYS, BIAS: ARRAYS[BIAS].astype("f2")}), "is F16["),
        (save({**ARRAYS, BIAS: ARRAYS[BIAS][1:]}), "of another model"),
        (save({**ARRAYS, "one\nmore": ARRAYS[BIAS]}), r"one\nmore is float32"),
        (save({**ARRAYS, "x" * 9999: ARRAYS[BIAS]}), "xxx is float32"),
    ],
)
def test_hostile_tensors(released, content, expected):
    manifest.replace(released, {TENSORS: content})
    message = failure(restored, released)
    assert expected in message
    assert len(message) < 1000


def test_a_size_that_lies_is_refused_before_anything_is_read(released):
    text = json.loads((released / manifest.NAME).read_text())
    text["files"][TENSORS]["size"] = manifest.LARGEST + 1
    (released / manifest.NAME).write_text(json.dumps(text))
    assert "more than" in failure(find, released)
