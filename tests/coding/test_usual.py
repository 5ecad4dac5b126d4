"""Images that are none of a model's kind are told from those that are, at every quality."""

import json

import numpy as np
import pytest
from conftest import RELEASED, ROOT
from PIL import Image
from sklearn.datasets import load_sample_image

from cvae_jax import codec, data
from cvae_jax.coding.quantize import step
from cvae_jax.coding.usual import TOLERANCE, UsualErrors
from cvae_jax.errors import FormatError, VersionError
from cvae_jax.metrics import mse_of_each

USUAL = UsualErrors(10, (4096, 256), ((0.1, 0.2, 0.3, 0.4), (0.01, 0.02, 0.03, 0.05)))


def test_the_far_ones_are_named_worst_first():
    errors = np.array([0.0, 0.9, TOLERANCE * 0.4, 0.81, 0.9, 0.95])
    assert USUAL.far(errors, 4096).tolist() == [5, 1, 4, 3]
    assert USUAL.far(np.zeros(0), 4096).tolist() == []
    assert USUAL.far(np.array([0.11, 0.09]), 256).tolist() == [0]


@pytest.mark.parametrize(("at", "worst"), [(1024, 0.225), (60000, 0.4), (1, 0.05)])
def test_the_limit_lies_between_those_of_the_steps_around(at, worst):
    limit = TOLERANCE * worst
    assert USUAL.far(np.array([limit - 1e-3, limit + 1e-3]), at).tolist() == [1]


def test_it_survives_being_stored():
    assert UsualErrors.from_bytes(USUAL.to_bytes()) == USUAL


def changed(**fields):
    return json.dumps(json.loads(USUAL.to_bytes()) | fields).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[1]",
        b"[" * 100_000,
        b'{"format": ' + b"1" * 100_000 + b"}",
        changed(format=0),
        changed(percent=[50]),
        changed(images="10"),
        changed(steps=[256, 4096]),
        changed(steps=[4096]),
        changed(steps=[]),
        changed(steps=[4096, 0]),
        changed(steps=[[], {}]),
        changed(mse=[[0.1, 0.2, 0.3, 0.4], [0.1]]),
        changed(mse=[[0.1, 0.2, 0.3, float("nan")]] * 2),
        changed(mse=7),
    ],
)
def test_anything_else_is_refused(content):
    with pytest.raises(FormatError, match=r"calibration\.json is not what") as caught:
        UsualErrors.from_bytes(content)
    assert type(caught.value) is FormatError


def test_a_newer_one_is_named_as_such():
    with pytest.raises(VersionError, match="format 2"):
        UsualErrors.from_bytes(changed(format=2))


@pytest.mark.parametrize("name", ["mnist", "mnist-hq"])
def test_the_released_models_know_digits_from_everything_else(name):
    c = codec.load(ROOT / "checkpoints" / name)
    digits = data.load("digits", "test")
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)

    def far(images, quality):
        symbols, at = c.encode_symbols(images, quality)
        assert at == step(quality)
        return c.unusual(mse_of_each(c.decode_symbols(symbols, at), images), at)

    for quality in (0, 10, 35, 50, 85, 100):
        assert len(far(digits, quality)) == 0
        assert len(far(255 - digits, quality)) == len(digits)
    assert len(far(noise, 50)) == len(noise)
    assert far(np.concatenate([digits[:5], noise[:1]]), 50).tolist() == [5]


def test_a_photograph_is_far_from_digits():
    photograph = Image.fromarray(load_sample_image("china.jpg")).convert("L").resize((28, 28))
    image = np.asarray(photograph)[None, ..., None]
    c = codec.load(RELEASED)
    symbols, at = c.encode_symbols(image)
    assert c.unusual(mse_of_each(c.decode_symbols(symbols, at), image), at).tolist() == [0]
