"""Files from Python: images in, bytes, the same images out; random access; recovery."""

import functools
import io
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import RELEASED, ROOT, synthetic_tables

from cvae_jax import bitstream, codec
from cvae_jax import data as data_package
from cvae_jax.bitstream import records
from cvae_jax.config import ModelConfig
from cvae_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FormatError,
    ModelMismatchError,
)
from cvae_jax.modules import init_params

NAMES = [f"digit {i}.png" for i in range(64)]


@functools.cache
def released():
    return codec.load(RELEASED)


@functools.cache
def digits():
    return data_package.load("digits", "test")[:64]


@functools.cache
def data():
    return released().compress(digits(), names=NAMES, labels=range(64))


def close(a, b, levels=1):
    return np.abs(a.astype(int) - b).max() <= levels


def test_compressed_images_are_what_their_latents_decode_to():
    c, images = released(), digits()
    decoded = c.decompress(data())
    assert decoded.dtype == np.uint8
    assert decoded.shape == images.shape
    assert np.mean((decoded / 255 - images / 255.0) ** 2) < 0.012
    symbols, step = c.encode_symbols(images)
    assert close(decoded, c.decode_symbols(symbols, step))
    for same in (images[..., 0], images / 255.0):
        assert len(c.compress(same)) == len(c.compress(images))
    assert c.decompress(c.compress(images[:0])).shape == (0, 28, 28, 1)


def test_a_single_image_is_a_file_of_a_few_bytes():
    c = released()
    for image in (digits()[0], digits()[0, ..., 0]):
        one = c.compress(image)
        assert len(one) <= 24
        assert close(c.decompress(one), c.decompress(data())[:1])
    with pytest.raises(ConfigError, match="single"):
        c.compress(digits()[0], names=["a"])


def test_quality_and_effort_trade_bytes_for_fidelity():
    c, images = released(), digits()

    def rate_and_error(**settings):
        compressed = c.compress(images, **settings)
        return len(compressed), np.mean((c.decompress(compressed) - images.astype(float)) ** 2)

    points = [rate_and_error(quality=q) for q in (0, 25, 50, 75, 100)]
    rates, errors = zip(*points, strict=True)
    assert list(rates) == sorted(set(rates))
    assert list(errors) == sorted(set(errors), reverse=True)
    searched = rate_and_error(quality=50, effort=2)
    assert searched[1] < 0.9 * points[2][1]
    assert searched[0] < 1.05 * points[2][0]


def test_targets_are_met_by_the_nearest_quality():
    c, images = released(), digits()
    q = c.find_quality(images, target_bytes=10)
    assert len(c.compress(images, q)) <= 10 * 64 < len(c.compress(images, q + 1))
    q = c.find_quality(images, target_psnr=19.5)

    def psnr(q):
        error = c.decompress(c.compress(images, q)) / 255 - images / 255.0
        return -10 * np.log10(np.mean(error**2))

    assert psnr(q) >= 19.5 > psnr(q - 1)
    for target in ({"target_bytes": 1}, {"target_psnr": 60}, {}):
        with pytest.raises(ConfigError):
            c.find_quality(images, **target)


def test_random_access(tmp_path):
    path = tmp_path / "digits.cvae"
    path.write_bytes(data())
    everything = released().decompress(data())
    with released().open(path) as opened:
        assert len(opened) == 64
        assert close(opened[5], everything[5])
        assert close(opened[-1], everything[-1])
        assert close(opened[10:2:-3], everything[10:2:-3])
        assert opened[64:].shape == (0, 28, 28, 1)
        assert opened.names() == NAMES
        assert opened.labels().tolist() == list(range(64))
        for i in (64, -65):
            with pytest.raises(IndexError, match="of an archive of 64"):
                opened[i]
        assert sum(1 for _ in opened) == 64
    assert opened._file.closed
    path.write_bytes(b"not one")
    with pytest.raises(FormatError):
        released().open(path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_archive_with_its_model_decodes_alone(tmp_path, dtype):
    path = tmp_path / "alone.cvae"
    path.write_bytes(released().compress(digits(), embed_model=dtype))
    alone = codec.load(path)
    with alone.open(path) as opened:
        assert close(opened[:], released().decompress(data()))
    assert close(released().decompress(path.read_bytes()), released().decompress(data()))
    with pytest.raises(CheckpointError, match="only decodes"):
        alone.encode(digits())
    path.write_bytes(data())
    with pytest.raises(FormatError, match="no model"):
        codec.load(path)


def test_a_flipped_bit_in_an_embedded_model_is_damage(tmp_path):
    """Of whatever model: this one's architecture is not that of the released one."""
    config = ModelConfig(9, 8, latent_dim=3, filters=(4, 2), dense_width=8)
    params = init_params(config, jax.random.key(0))
    small = codec.Codec(config, params, released().record, synthetic_tables(2, 3))
    whole = small.compress(np.zeros((5, 9, 8, 1), np.uint8), embed_model="float16")
    path = tmp_path / "small.cvae"
    path.write_bytes(whole)
    assert codec.load(path).model == config
    size = bitstream.Reader(io.BytesIO(whole)).model_size
    for at in range(records.HEADER_SIZE, records.HEADER_SIZE + size, 97):
        damaged = bytearray(whole)
        damaged[at] ^= 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(FormatError):
            codec.load(path)
        found = bitstream.salvage(bytes(damaged))
        assert (found.has_model, found.model) == (True, None)


def test_what_cannot_be_compressed_is_refused():
    c = released()
    for settings, words in (
        ({"quality": 101}, "quality"),
        ({"effort": 10}, "effort"),
        ({"embed_model": "int8"}, "float16"),
    ):
        with pytest.raises(ConfigError, match=words):
            c.compress(digits(), **settings)
    for settings, words in (
        ({"names": ["a"]}, "1 names for 64"),
        ({"labels": [1, 2]}, "2 labels for 64"),
        ({"labels": [-1] * 64}, "labels"),
        ({"labels": [0.5] * 64}, "labels"),
        ({"labels": np.array(5)}, "labels"),
        ({"labels": np.zeros((64, 2), int)}, "labels"),
        ({"names": [""] * 64}, "name"),
    ):
        with pytest.raises((DataError, FormatError), match=words):
            c.compress(digits(), **settings)


def test_without_tables_there_are_latents_but_no_bytes():
    c = released()
    bare = codec.Codec(c.model, c.params, c.record)
    assert bare.encode(digits()[:1]).shape == (1, 16)
    for use in (lambda: bare.compress(digits()), lambda: bare.decompress(data())):
        with pytest.raises(CheckpointError, match="calibrate"):
            use()


def test_another_model_is_refused():
    c = released()
    params = {**c.params, "decoder": jax.tree.map(lambda leaf: leaf * 1.001, c.params["decoder"])}
    other = codec.Codec(c.model, params, c.record, c.tables)
    for compressed in (data(), c.compress(digits()[0])):
        with pytest.raises(ModelMismatchError, match="compressed with"):
            other.decompress(compressed)
    with pytest.raises(ModelMismatchError):
        bitstream.recover(data(), other.file_decoder)


def test_recovery():
    c = released()
    many = np.concatenate([digits()] * 65)  # 4160: two chunks
    whole = c.compress(many)
    with bitstream.Archive(io.BytesIO(whole), c.file_decoder) as opened:
        first = opened.reader.entries[0]
    damaged = bytearray(whole)
    damaged[first.offset + 99] ^= 4
    with pytest.raises(FormatError, match="chunk 0"):
        c.decompress(bytes(damaged))
    found = bitstream.recover(bytes(damaged), c.file_decoder)
    assert found.lost == [(0, first.count - 1)]
    assert found.numbers.tolist() == list(range(first.count, len(many)))
    assert close(found.images, c.decompress(whole)[first.count :])
    assert bitstream.recover(whole, c.file_decoder).faults == []


DECODE = """
import sys, zlib
import numpy as np
from cvae_jax import bitstream, codec
c = codec.load(sys.argv[1])
with c.open(sys.argv[2]) as opened:
    chunk = opened.reader.chunk(0)
    symbols = chunk.symbols(c.tables)
    np.savez(sys.argv[3], symbols=symbols, pixels=opened[:])
"""


@pytest.mark.parametrize(
    "setting",
    [{"JAX_DISABLE_JIT": "1"}, {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}],
)
def test_symbols_are_the_same_everywhere(tmp_path, setting):
    """In another process, without jit or with one thread: the same integers, the same image."""
    path, out = tmp_path / "a.cvae", tmp_path / "out.npz"
    path.write_bytes(data())
    subprocess.run(
        [sys.executable, "-c", DECODE, str(RELEASED), str(path), str(out)],
        cwd=ROOT, env={**os.environ, **setting}, check=True,
    )  # fmt: skip
    there = np.load(out)
    c = released()
    with c.open(path) as opened:
        assert np.array_equal(opened.reader.chunk(0).symbols(c.tables), there["symbols"])
        assert close(opened[:], there["pixels"])


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_decode_to_the_same_images(size):
    c = released()
    symbols, step = c.encode_symbols(digits())
    parts = [c.decode_symbols(symbols[i : i + size], step) for i in range(0, 64, size)]
    assert close(np.concatenate(parts), c.decode_symbols(symbols, step))
