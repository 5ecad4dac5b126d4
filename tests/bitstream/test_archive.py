"""Files from Python: images in, bytes, the same images out; random access; recovery."""

import dataclasses
import functools
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import RELEASED, ROOT

from cvae_jax import bitstream, codec
from cvae_jax import data as data_package
from cvae_jax.bitstream.header import HEADER_SIZE
from cvae_jax.coding import search
from cvae_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FormatError,
    ModelMismatchError,
)
from cvae_jax.file_model import FileModel

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


def test_compressed_images_are_what_their_latents_decode_to():
    c, images = released(), digits()
    decoded = c.decompress(data())
    assert decoded.dtype == np.uint8
    assert decoded.shape == images.shape
    assert np.mean((decoded / 255 - images / 255.0) ** 2) < 0.012
    symbols, step = c.encode_symbols(images)
    assert np.array_equal(decoded, c.decode_symbols(symbols, step))
    for same in (images[..., 0], images / 255.0):
        assert len(c.compress(same)) == len(c.compress(images))
    assert c.decompress(c.compress(images[:0])).shape == (0, 28, 28, 1)


def test_a_single_image_is_a_file_of_a_few_bytes():
    c = released()
    for image in (digits()[0], digits()[0, ..., 0]):
        one = c.compress(image)
        assert len(one) <= 24
        assert np.array_equal(c.decompress(one), c.decompress(data())[:1])
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


def test_what_a_search_for_a_quality_measures_is_what_a_file_holds(monkeypatch):
    """Also in several blocks: ``find_quality`` has all images refined in one call."""
    monkeypatch.setattr(search, "BLOCK", 16)
    c, images = released(), digits()
    symbols, step = c.encode_symbols(images, 50, effort=1)
    assert np.array_equal(c._symbols(images, c._z_mean(images), step, 1), symbols)


def test_random_access(tmp_path):
    path = tmp_path / "digits.cvae"
    path.write_bytes(data())
    everything = released().decompress(data())
    with released().open(path) as opened:
        assert len(opened) == 64
        assert np.array_equal(opened[5], everything[5])
        assert np.array_equal(opened[-1], everything[-1])
        assert np.array_equal(opened[10:2:-3], everything[10:2:-3])
        assert opened[64:].shape == (0, 28, 28, 1)
        assert opened.names() == NAMES
        assert opened.labels().tolist() == list(range(64))
        for i in (64, -65):
            with pytest.raises(IndexError, match="of an archive of 64"):
                opened[i]
        assert sum(1 for _ in opened) == 64
        some = np.array([63, 0, 63], np.uint8)
        assert np.array_equal(opened.read(some), everything[some])
        assert opened.read([]).shape == opened.read(np.zeros(0)).shape == (0, 28, 28, 1)
        for numbers in ([-1], [0, 64], range(60, 65), np.array([2**64 - 1], np.uint64)):
            with pytest.raises(IndexError, match="of an archive of 64"):
                opened.read(numbers)
        for numbers in (5, [0.0], np.arange(64) > 60, [[1]], ["1"], [None]):
            with pytest.raises(TypeError, match="whole numbers"):
                opened.read(numbers)
    assert opened._file.closed
    path.write_bytes(b"not one")
    with pytest.raises(FormatError):
        released().open(path)


def test_an_archive_with_its_model_decodes_alone(tmp_path):
    path = tmp_path / "alone.cvae"
    path.write_bytes(released().compress(digits(), embed_model=True))
    alone = codec.load(path)
    everything = released().decompress(data())
    with alone.open(path) as opened:
        assert np.array_equal(opened[:], everything)
    for c, file in ((released(), path.read_bytes()), (alone, data())):
        assert np.array_equal(c.decompress(file), everything)
    for use in (
        lambda: alone.encode(digits()),
        lambda: alone.decode(np.zeros((1, 16), np.float32)),
        lambda: alone.sample(0, 1),
    ):
        with pytest.raises(CheckpointError, match="only reads files"):
            use()
    path.write_bytes(data())
    with pytest.raises(FormatError, match="no model"):
        codec.load(path)


def test_a_model_file_is_an_archive_of_no_images(tmp_path):
    path = tmp_path / "m.cvae"
    path.write_bytes(released().model_file())
    with codec.load(path).open(path) as opened:
        assert len(opened) == 0
    assert np.array_equal(codec.load(path).decompress(data()), released().decompress(data()))


def test_a_flipped_bit_in_an_embedded_model_is_damage(tmp_path):
    whole = released().model_file()
    path = tmp_path / "damaged.cvae"
    size = bitstream.Reader(io.BytesIO(whole)).model_size
    for at in range(HEADER_SIZE, HEADER_SIZE + size, 9973):
        damaged = bytearray(whole)
        damaged[at] ^= 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(FormatError):
            codec.load(path)
        found = bitstream.salvage(bytes(damaged))
        assert (found.has_model, found.models) == (True, [])


def test_what_cannot_be_compressed_is_refused():
    c = released()
    for settings, words in (
        ({"quality": 101}, "quality"),
        ({"effort": 10}, "effort"),
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


def test_what_is_of_another_type_is_refused_in_one_line():
    c = released()
    for settings in (
        *({"quality": q} for q in ("50", True, float("nan"), [50])),
        *({"effort": e} for e in ("1", None, True, 1.0, -1)),
    ):
        with pytest.raises(ConfigError, match="number"):
            c.compress(digits(), **settings)
    symbols = np.zeros((2, 16), np.int32)
    for wrong, step in (
        *((symbols, step) for step in (0, -1, 1 << 16, 300.0, "300", None)),
        *((wrong, 300) for wrong in (symbols[None], symbols[:, :3], symbols / 1, symbols > 0)),
        *((wrong, 300) for wrong in (symbols + np.int64(1 << 40), np.int32(1), "symbols", None)),
    ):
        for ask in (c.pack, c.decode_symbols):
            with pytest.raises(DataError):
                ask(wrong, step)
    with pytest.raises(DataError, match="N, D"):
        c.decode_symbols(symbols[0], 300)
    assert c.pack(symbols.tolist(), np.int64(300)) == c.pack(symbols, 300)
    for wrong in ("text", None, np.frombuffer(data(), np.uint8)):
        with pytest.raises(DataError, match="bytes of a file"):
            c.decompress(wrong)
    assert np.array_equal(c.decompress(bytearray(data())), c.decompress(memoryview(data())))


def test_without_tables_there_are_latents_but_no_bytes():
    c = released()
    bare = codec.Codec(c.model, c.params, c.record)
    assert bare.encode(digits()[:1]).shape == (1, 16)
    for use in (lambda: bare.compress(digits()), lambda: bare.decompress(data())):
        with pytest.raises(CheckpointError, match="calibrate"):
            use()


def test_another_model_is_refused():
    c = released()
    layers = c.files.decoder.layers
    first = layers[0]._replace(bias=layers[0].bias + layers[0].grain)
    decoder = dataclasses.replace(c.files.decoder, layers=(first, *layers[1:]))
    other = dataclasses.replace(c, files=FileModel(c.tables, decoder))
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
    assert np.array_equal(np.concatenate(found.images), c.decompress(whole)[first.count :])
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
    [
        {"JAX_DISABLE_JIT": "1"},
        {"JAX_ENABLE_X64": "1"},
        {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_cpu_max_isa=SSE4_2"},
        {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"},
    ],
)
def test_pixels_are_the_same_everywhere(tmp_path, setting):
    """In another process, with other instructions or types: the same integers, the same image."""
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
        assert np.array_equal(opened[:], there["pixels"])


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_decode_to_the_same_images(size):
    c = released()
    symbols, step = c.encode_symbols(digits())
    parts = [c.decode_symbols(symbols[i : i + size], step) for i in range(0, 64, size)]
    assert np.array_equal(np.concatenate(parts), c.decode_symbols(symbols, step))
