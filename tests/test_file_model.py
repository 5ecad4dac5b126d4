"""Tables and decoder as one value: it comes back, and what does not belong together is refused."""

import dataclasses
import struct

import numpy as np
import pytest
from conftest import RELEASED, synthetic_tables

from cvae_jax.bitstream import Identity
from cvae_jax.errors import FormatError
from cvae_jax.exact import by_jax, by_numpy
from cvae_jax.exact.integers import EXACT
from cvae_jax.file_model import FileModel
from cvae_jax.runs.find import file_model, find

MODEL = file_model(find(RELEASED))


def packed(coding=None, decoder=None):
    parts = (coding or MODEL.tables.to_bytes(), decoder or MODEL.decoder.to_bytes())
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def test_a_model_comes_back():
    again = FileModel.unpack(MODEL.pack(), MODEL.identity)
    assert (again.identity, again.pack()) == (MODEL.identity, MODEL.pack())
    assert again.header == MODEL.header
    symbols = np.random.default_rng(0).integers(-9, 10, (5, 16)).astype(np.int32)
    levels = again.levels_by(by_numpy.decoder)(symbols, 600)
    assert levels.shape == (5, 28, 28, 1)
    assert np.array_equal(levels, MODEL.levels_by(by_jax.decoder)(symbols, 600))


def overflowing():
    first, *rest = MODEL.decoder.layers
    larger = first._replace(weights=first.weights * (EXACT // MODEL.decoder.largest_sum(0) + 1))
    return dataclasses.replace(MODEL.decoder, layers=(larger, *rest)).to_bytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (MODEL.pack()[:-1], "longer or shorter"),
        (MODEL.pack() + b"\0", "longer or shorter"),
        (b"\xff" * 4 + MODEL.pack(), "truncated"),
        (packed(coding=synthetic_tables(2, 3).to_bytes()), "different models"),
        (packed(coding=synthetic_tables(2, 16).to_bytes()), "other units"),
        (packed(decoder=b"CVID"), "shorter than its header"),
        (packed(decoder=b"CVIE" + MODEL.decoder.to_bytes()[4:]), "not an integer decoder"),
        (packed(decoder=MODEL.decoder.to_bytes() + b"\0"), "something else"),
        (packed(decoder=overflowing()), "beyond 2"),
    ],
)
def test_hostile_models_are_one_line(data, words):
    with pytest.raises(FormatError, match=words) as refused:
        FileModel.unpack(data)
    assert str(refused.value).isprintable()


def test_another_identity_is_refused():
    with pytest.raises(FormatError, match="header names"):
        FileModel.unpack(MODEL.pack(), Identity(bytes(16), MODEL.identity.tables))
