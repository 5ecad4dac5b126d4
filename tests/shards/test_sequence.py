"""A set of archives is the sequence of all their images."""

import numpy as np
import pytest
from conftest import RELEASED, failure

from cvae_jax import codec, data, reader
from cvae_jax.batching import CORES
from cvae_jax.bitstream import container
from cvae_jax.errors import FormatError, ModelMismatchError
from cvae_jax.shards.sequence import KEPT_OPEN

SIZES = (7, 1, 4, 9, 2, 6)  # more shards than are kept open


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with the set ``a@6.cvae``, and what one archive of all its images holds."""
    folder, c = tmp_path_factory.mktemp("set"), codec.load(RELEASED)
    images = data.load("digits", "test")[: sum(SIZES)]
    at = 0
    for k, size in enumerate(SIZES):
        part, at = range(at, at + size), at + size
        content = c.compress(images[part], names=[f"{i}.png" for i in part], labels=list(part))
        (folder / f"a-{k:05d}-of-{len(SIZES):05d}.cvae").write_bytes(content)
    return folder, c.decompress(c.compress(images))


@pytest.mark.parametrize("opened", [reader.open, codec.open, codec.load(RELEASED).open])
def test_it_is_all_their_images(whole, opened):
    folder, images = whole
    with opened(folder / "a@6.cvae") as archives:
        assert len(archives) == len(images)
        np.testing.assert_array_equal(archives.read(), images)
        np.testing.assert_array_equal(np.concatenate(list(archives.stream())), images)
        np.testing.assert_array_equal(archives[5:20:3], images[5:20:3])
        np.testing.assert_array_equal(archives[-1], images[-1])
        numbers = [28, 7, 6, 7, 0, 12]
        np.testing.assert_array_equal(archives.read(numbers), images[numbers])
        assert archives.names() == [f"{i}.png" for i in range(len(images))]
        assert archives.labels().tolist() == list(range(len(images)))


def test_a_stream_goes_on_while_other_shards_are_read(whole, tmp_path, monkeypatch):
    monkeypatch.setenv(CORES, "2")  # chunks that are read ahead
    monkeypatch.setattr("cvae_jax.file_model.CHUNK_IMAGES", 1)
    monkeypatch.setattr(container, "KEPT", 1)
    images = whole[1][:20]
    content = codec.load(RELEASED).compress(images)
    for k in range(KEPT_OPEN + 2):
        (tmp_path / f"a-{k:05d}-of-{KEPT_OPEN + 2:05d}.cvae").write_bytes(content)
    with reader.open(tmp_path / "a@*.cvae") as archives:
        stream = archives.stream()
        streamed = [next(stream)]
        archives.read()
        streamed += stream
        assert len(streamed) == len(archives) > len(images)
        np.testing.assert_array_equal(np.concatenate(streamed), archives.read())


def test_few_files_are_open_at_once(whole):
    with reader.open(whole[0] / "a@*.cvae") as archives:
        archives.read()
        assert len(archives._open) == KEPT_OPEN
    assert not archives._open


def test_numbers_outside_are_refused(whole):
    with reader.open(whole[0] / "a@6.cvae") as archives:
        for wrong in (29, -30):
            with pytest.raises(IndexError):
                archives[wrong]
        with pytest.raises(IndexError):
            archives.read([0, 29])
        with pytest.raises(TypeError):
            archives.read([True, False])


def test_a_damaged_shard_is_named(whole, tmp_path):
    for path in whole[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = tmp_path / "a-00003-of-00006.cvae"
    content = bytearray(victim.read_bytes())
    content[70] ^= 1  # in the chunk
    victim.write_bytes(content)
    with reader.open(tmp_path / "a@6.cvae") as archives:
        assert len(archives[:12]) == 12
        assert str(victim) in failure(FormatError, archives.read)
        assert str(victim) in failure(FormatError, lambda: list(archives.stream()))
    victim.write_bytes(content[:50])
    with reader.open(tmp_path / "a@6.cvae") as archives:
        assert str(victim) in failure(FormatError, len, archives)


def test_a_shard_of_another_model_is_named(whole, tmp_path):
    for path in whole[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = tmp_path / "a-00004-of-00006.cvae"
    other = codec.load(RELEASED.parent / "mnist-hq")
    victim.write_bytes(other.compress(np.zeros((2, 28, 28), np.uint8)))
    with reader.open(tmp_path / "a@6.cvae") as archives:
        assert str(victim) in failure(ModelMismatchError, len, archives)
