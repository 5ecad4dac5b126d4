"""Archives made and read as streams are those of whole arrays, whatever the images come in."""

import io
import threading

import numpy as np
import pytest
from conftest import RELEASED, ROOT

from cvae_jax import batching, codec, data
from cvae_jax.bitstream import Archive, Reader, records
from cvae_jax.errors import DataError, FormatError

CHUNK = 64


@pytest.fixture(scope="module")
def c():
    return codec.load(RELEASED)


@pytest.fixture(scope="module")
def images():
    names = sorted((ROOT / "examples" / "digits").glob("*.png"))
    digits = np.stack([data.read_image(name, channels=1) for name in names])
    rolled = [np.roll(digits, shift, axis=(1, 2)) for shift in range(-10, 10)]
    return np.concatenate(rolled)  # 200


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("cvae_jax.file_model.CHUNK_IMAGES", CHUNK)


def written(c, given, **settings):
    file = io.BytesIO()
    c.write(file, given, **settings)
    return file.getvalue()


def parts(images, *sizes):
    at = 0
    for size in sizes:
        yield images[at : at + size]
        at += size
    yield images[at:]


def reusing(images, size):
    """As cameras and ``readinto`` do it."""
    memory = np.empty_like(images[:size])
    for at in range(0, len(images), size):
        some = images[at : at + size]
        memory[: len(some)] = some
        yield memory[: len(some)]


@pytest.mark.parametrize("settings", [{}, {"effort": 1}, {"max_error": 0}])
def test_whatever_images_come_in_the_file_is_the_same(c, images, tmp_path, settings):
    np.save(tmp_path / "images.npy", images)
    whole = c.compress(images, **settings)
    assert len(Reader(io.BytesIO(whole)).entries) == (1 if "max_error" in settings else 4)
    for given in (
        np.load(tmp_path / "images.npy", mmap_mode="r"),
        parts(images, 1, 100, 0, 3),
        iter(images),  # one by one
        (images / np.float32(255)).astype(np.float32),
        list(images),
        list(parts(images, 64, 100)),
        reusing(images, 30),
    ):
        assert written(c, given, **settings) == whole


@pytest.mark.parametrize("preview", [False, True])
def test_a_stream_of_an_archive_is_all_of_it(c, images, preview):
    file = io.BytesIO()
    archive = c.file_model.writer(file)
    for settings in ({}, {"max_error": 0}, {"max_error": 4}, {}):
        archive.append_all(coded.chunk for coded in c.chunks(images, **settings))
    archive.finish()
    opened = Archive(file, c.file_decoder)
    streamed = list(opened.stream(preview=preview))
    assert len(streamed) > 8
    whole = np.concatenate(streamed)
    np.testing.assert_array_equal(whole, opened.read(preview=preview))
    order = np.random.default_rng(0).permutation(len(opened))
    np.testing.assert_array_equal(whole[order], opened.read(order, preview=preview))


def test_names_and_labels_go_with_their_images(c, images):
    names, labels = [f"n{k}" for k in range(200)], np.arange(200)
    archive = Archive(
        io.BytesIO(written(c, iter(images), names=names, labels=labels)), c.file_decoder
    )
    assert archive.names() == names
    assert archive.labels().tolist() == labels.tolist()
    for wrong in ({"names": names[:-1]}, {"labels": labels[:100]}, {"labels": range(201)}):
        with pytest.raises(DataError, match=r"(names|labels) for \d+"):
            written(c, iter(images), **wrong)


def test_an_image_that_is_none_stops_the_stream(c, images):
    for bad in (images[:3, :-1], images[:3].astype(int), images[:3] / -1.0):
        with pytest.raises(DataError):
            written(c, iter([images[:100], bad]))


def test_no_more_is_read_than_is_worked_on(c, images):
    """Memory does not depend on how many images there are."""
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield images[:CHUNK]

    for settings in ({}, {"max_error": 8, "count": CHUNK}):
        drawn = 0
        chunks = c.chunks(endless(), **settings)
        for k in range(1, 4):
            next(chunks)
            assert drawn <= k + batching.cores() + 1
        chunks.close()


def test_a_spot_check_is_of_the_first_images_alone(c, images):
    symbols, step = c.encode_symbols(images)
    levels = c.decode_symbols(symbols, step)
    chunk = c.file_model.chunk(symbols, step, levels[: records.SPOT])
    np.testing.assert_array_equal(c.decompress(c.file_model.archive([chunk])), levels)
    again = records.unpack_chunk(records.pack_chunk(chunk))
    assert again.spot
    levels[records.SPOT] ^= 1
    again.check_pixels(levels)  # nobody vouched for it
    levels[records.SPOT - 1] ^= 1
    with pytest.raises(FormatError, match="other pixels"):
        again.check_pixels(levels)
    with pytest.raises(DataError, match="decode to shape"):
        c.file_model.chunk(symbols, step, levels[: records.SPOT - 1])


@pytest.mark.parametrize("decode_all", [True, False])
def test_what_is_not_decoded_is_not_vouched_for(c, images, monkeypatch, decode_all):
    monkeypatch.setattr("cvae_jax.file_model.CHUNK_IMAGES", 100)
    coded = list(c.chunks(images, decode_all=decode_all))
    assert [each.chunk.spot for each in coded] == [not decode_all] * 2
    assert [len(each.levels) for each in coded] == [100 if decode_all else records.SPOT] * 2
    file = c.file_model.archive(each.chunk for each in coded)
    np.testing.assert_array_equal(c.decompress(file), c.decompress(c.compress(images)))


def test_two_threads_may_use_a_codec_that_nothing_is_compiled_of(c, images):
    """Neither waits for a thread of ``mapped`` while others there wait for it."""
    many = np.concatenate([images] * 20)
    one, several = c.compress(images), c.compress(many)
    fresh = codec.load(RELEASED)
    results = {}

    def decompress(name, data):
        results[name] = fresh.decompress(data)

    threads = [
        threading.Thread(target=decompress, args=given, daemon=True)
        for given in (("several", several), ("one", one))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    np.testing.assert_array_equal(results["one"], c.decompress(one))
    np.testing.assert_array_equal(results["several"], c.decompress(several))
