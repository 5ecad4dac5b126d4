"""Checkpoints for the tests: what is in them, intact ones on disk, and damage.

Test modules take the fixtures from here by assignment: the tests import the one ``conftest`` by
name, so there can be no second.
"""

import functools
import os
import shutil
from pathlib import Path

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvae_jax.errors import CheckpointError
from cvae_jax.runs import checkpoint, retention

CONFIG = {"config": {"latent": 16, "name": "größer"}, "seed": 7}


def params_of(seed: int):
    rng = np.random.default_rng(seed)
    return {
        "encoder": {
            "conv": {
                "kernel": rng.normal(size=(3, 3, 1, 4)).astype("f"),
                "bias": np.zeros(4, "f"),
            }
        },
        "decoder": {"kernel": jnp.asarray(rng.normal(size=(2, 5)), jnp.bfloat16)},
    }


def items_of(seed: int):
    params = params_of(seed)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, 10))
    _, state = optimizer.update(params, optimizer.init(params), params)
    return {"params": params, "optimizer": {"state": state, "key": jax.random.PRNGKey(seed)}}


def assert_identical(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


failure = functools.partial(conftest.failure, CheckpointError)


def files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    checkpoint.save(folder / "released", items_of(0), CONFIG)
    for step, score in [(1, 3.0), (2, 1.0), (3, 2.0)]:
        retention.save_step(folder / "run", step, items_of(step), CONFIG, score=score)
    return folder


@pytest.fixture
def saved(tmp_path, originals):
    """A checkpoint of `items_of(0)`."""
    return Path(shutil.copytree(originals / "released", tmp_path / "released"))


@pytest.fixture
def workdir(tmp_path, originals):
    """Steps 1, 2, 3 with the best score at 2."""
    return Path(shutil.copytree(originals / "run", tmp_path / "run"))


def truncate_a_file(step):
    largest = max(files_below(step / "params"), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def flip_a_bit(step):
    file = files_below(step / "params")[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
