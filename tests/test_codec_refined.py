"""Lossless and bounded files, from Python, with the codec and with the reader alone."""

import dataclasses
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import RELEASED, ROOT
from context_samples import images, random_model
from PIL import Image

from cvae_jax import bitstream, codec, reader
from cvae_jax.bitstream import Reader
from cvae_jax.bitstream.records import BASED, RAW
from cvae_jax.errors import CheckpointError, ConfigError, FormatError, ModelMismatchError
from cvae_jax.file_model import FileModel

SHAPE = (28, 28, 1)


def with_context(c, context):
    return dataclasses.replace(c, files=dataclasses.replace(c.file_model, context=context))


@pytest.fixture(scope="module")
def released():
    return codec.load(RELEASED)


@pytest.fixture(scope="module")
def c(released):
    return with_context(released, random_model(SHAPE))


@pytest.fixture(scope="module")
def some():
    paths = sorted((ROOT / "examples" / "digits").glob("*.png"))[:4]
    digits = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])[..., None]
    odd = [images(kind, 1, SHAPE) for kind in ("noise", "black", "white", "checkerboard")]
    return np.concatenate([digits, *odd])


@pytest.mark.parametrize("quality", [None, 0, 100])
@pytest.mark.parametrize("max_error", [0, 1, 4, 63])
def test_archives_are_within_the_error(c, some, max_error, quality):
    data = c.compress(some, quality, max_error=max_error, names=[f"{i}" for i in range(8)])
    back = c.decompress(data)
    assert np.abs(back.astype(int) - some).max() <= max_error
    assert Reader(io.BytesIO(data)).names == [f"{i}" for i in range(8)]
    if max_error == 0:
        assert np.array_equal(back, some)


@pytest.mark.parametrize("max_error", [0, 4])
def test_single_images_are_within_the_error(c, some, max_error):
    for image in some[[0, 4, 6]]:
        for given in (image, image[..., 0]):
            data = c.compress(given, max_error=max_error)
            assert not bitstream.is_archive(data)
            assert np.abs(c.decompress(data)[0].astype(int) - image).max() <= max_error


def test_no_images_and_settings_that_cannot_be(c, released, some):
    assert c.decompress(c.compress(some[:0], max_error=0)).shape == (0, *SHAPE)
    for wrong in (-1, 64, 0.5):
        with pytest.raises(ConfigError, match="0 to 63"):
            c.compress(some, max_error=wrong)
    with pytest.raises(CheckpointError, match="context model"):
        with_context(released, None).compress(some, max_error=0)


def test_noise_costs_hardly_more_than_raw(c):
    noise = images("noise", 100, SHAPE)
    data = c.compress(noise, max_error=0)
    assert len(data) < 1.02 * noise.size
    assert set(Reader(io.BytesIO(data)).chunk(0).refinement.modes) == {RAW}


def test_a_preview_is_what_the_base_decodes_to(c, some, tmp_path):
    context = dataclasses.replace(random_model(SHAPE), usual=1.0)
    trusting = with_context(c, context)  # takes no image for unusual
    path = tmp_path / "a.cvae"
    path.write_bytes(trusting.compress(np.repeat(some[5:6], 3, axis=0), 50, max_error=0))
    with trusting.open(path) as archive:
        (chunk,) = (archive.reader.chunk(k) for k in range(len(archive.reader.entries)))
        based = np.flatnonzero(chunk.refinement.modes == BASED)
        seen = archive.read(based, preview=True)
        symbols = chunk.symbols(trusting.tables)
        assert np.array_equal(seen, trusting.decode_symbols(symbols, chunk.step)[: len(based)])


def test_another_context_model_is_a_mismatch(c, some):
    other = with_context(c, random_model(SHAPE, seed=1))
    for data in (c.compress(some, max_error=0), c.compress(some[0], max_error=0)):
        for wrong in (other, with_context(c, None)):
            with pytest.raises(ModelMismatchError, match="context model"):
                wrong.decompress(data)
    # Files that are not refined do not depend on it.
    assert np.array_equal(other.decompress(c.compress(some)), c.decompress(c.compress(some)))


def test_a_context_model_of_other_images_is_refused(c):
    with pytest.raises(FormatError, match="different images"):
        with_context(c, random_model((5, 4, 1)))


def test_a_model_with_its_context_comes_back(c):
    packed = c.file_model.pack()
    again = FileModel.unpack(packed, c.identity)
    assert again.context.digest == c.file_model.context.digest
    assert again.pack() == packed
    without = FileModel.unpack(c.file_model.pack(with_context=False), c.identity)
    assert without.context is None
    assert len(packed) - len(without.pack()) == 4 + len(again.context.packed)
    for damaged in (packed[:-1], packed + b"\0", packed[: -len(again.context.packed)]):
        with pytest.raises(FormatError):
            FileModel.unpack(damaged)


def test_only_refined_archives_carry_the_context(c, some):
    for max_error, carries in ((None, False), (0, True)):
        data = c.compress(some, max_error=max_error, embed_model=True)
        own = reader.embedded(Reader(io.BytesIO(data)))
        assert (own.files.context is not None) == carries
        assert np.array_equal(reader.decompress(data), c.decompress(data))


WITHOUT_JAX = """
import sys
from pathlib import Path
import numpy as np
from cvae_jax import reader
np.save("read.npy", reader.decompress(Path("a.cvae").read_bytes()))
model = reader.load("a.cvae")
np.save("one.npy", reader.decompress(Path("one.cvae").read_bytes(), model))
with reader.open("a.cvae") as archive:
    np.save("third.npy", archive[2])
    archive.read(preview=True)
assert not {"jax", "flax", "optax"} & set(sys.modules)
"""


def test_an_archive_with_its_model_is_read_without_jax(c, some, tmp_path):
    (tmp_path / "a.cvae").write_bytes(c.compress(some, max_error=0, embed_model=True))
    (tmp_path / "one.cvae").write_bytes(c.compress(some[3], max_error=0))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, expected in (("read", some), ("one", some[3:4]), ("third", some[2])):
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), expected)


def test_progress_and_verification(c, some):
    told = []
    data = c.compress(some, max_error=0, progress=told.append)
    assert sum(told) == len(some)
    told.clear()
    c.decompress(data, progress=told.append)
    assert sum(told) == len(some)
    assert bitstream.verify_archive(Reader(io.BytesIO(data)), c.file_decoder) == len(some)
