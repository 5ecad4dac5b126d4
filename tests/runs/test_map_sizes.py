"""Images of other sizes than a map model was trained on: their files, and what is refused."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from conftest import failure

from cvae_jax import bitstream, codec, data, errors, reader
from cvae_jax.bitstream import Archive, records
from cvae_jax.cli import parser
from cvae_jax.coding import streams
from cvae_jax.errors import ConfigError, CostError, DataError, FormatError

OWN, OTHER = (8, 12), (13, 6)
FLAGS = ["--preset", "photos32", "--filters", 4, 8, "--latent-channels", 4, "--epochs", 1]
FLAGS += ["--batch-size", 8, "--context-steps", 3]


def noise(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    np.save(folder / "images.npy", noise(40, OWN))
    argv = ["train", "--workdir", folder / "run", "--dataset", folder / "images.npy", *FLAGS]
    assert errors.run(lambda: parser.main([str(a) for a in argv])) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def c(workdir):
    return codec.load(workdir)


@pytest.fixture
def folder(tmp_path):
    """Five images of the model's own size and four of another, in turn."""
    (tmp_path / "photos").mkdir()
    for k in range(9):
        (image,) = noise(1, OTHER if k % 2 else OWN, k)
        (tmp_path / "photos" / f"{k}.png").write_bytes(data.encode_image(image))
    return tmp_path / "photos"


@pytest.mark.parametrize("size", [OTHER, (1, 1), (33, 40)])
def test_images_of_any_size_come_back_as_the_same_pixels_everywhere(c, size):
    images, other = noise(3, size), c.sized(*size)
    archive = other.compress(images, 60, embed_model=True)
    decoded = c.decompress(archive)
    assert decoded.shape == images.shape
    np.testing.assert_array_equal(reader.decompress(archive), decoded)
    np.testing.assert_array_equal(other.decompress(archive), decoded)
    one = other.compress(images[1], 60)
    np.testing.assert_array_equal(c.decompress(one), decoded[1:2])
    assert bitstream.single.size_of(one) == size
    assert sum(bitstream.single.ledger(one).values()) == len(one)
    assert other.encode(images).shape == (3, other.latent_dim)
    assert other.decode(other.encode(images)).shape == images.shape


def test_beyond_the_image_its_edge_goes_on(c):
    """An image is encoded as the larger one that repeats its last row and column."""
    image = noise(1, (13, 6))
    whole = np.pad(image, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="edge")
    np.testing.assert_array_equal(c.sized(13, 6).encode(image), c.sized(16, 8).encode(whole))
    symbols, step = c.sized(16, 8).encode_symbols(whole)
    np.testing.assert_array_equal(
        c.sized(13, 6).decode_symbols(symbols, step),
        c.sized(16, 8).decode_symbols(symbols, step)[:, :13, :6],
    )


def test_a_search_for_images_of_another_size(c):
    images, other = noise(3, OTHER), c.sized(*OTHER)
    costs = []
    for effort in (0, 1):
        symbols, step = other.encode_symbols(images, 60, effort)
        decoded = c.decompress(other.pack(symbols, step))
        errors = ((decoded / 255 - images / 255) ** 2).sum((1, 2, 3))
        bits = streams.bits(symbols, other.tables, step)
        costs.append(errors + other.tables.slope * step**2 * bits)
    assert (costs[1] <= costs[0]).all()
    assert costs[1].sum() < costs[0].sum()


def test_its_own_size_is_the_codec_as_it_was(c):
    images = noise(2, OWN)
    assert c.sized(*OTHER).sized(*OWN).compress(images) == c.compress(images)


def test_a_folder_of_several_sizes(workdir, folder, tmp_path, cvae):
    model = "--ckpt", workdir
    status, out, err = cvae("compress", "photos", *model, "--embed-model", "-o", "all.cvae")
    assert status == 0, err
    assert "9 images" in out
    assert "PNG" not in out
    assert cvae("verify", "all.cvae")[0] == 0
    found = json.loads(cvae("info", "all.cvae", "--json")[1])
    assert found["sizes"] == sorted(map(list, (OWN, OTHER)))
    assert found["image_shape"] is None
    assert "9 images of 2 sizes" in cvae("info", "all.cvae")[1]
    assert cvae("compress", "photos", *model, "--no-names", "-o", "bare.cvae")[0] == 0
    assert cvae("concat", "bare.cvae", "bare.cvae", "-o", "twice.cvae")[0] == 0
    assert cvae("verify", "twice.cvae", *model)[0] == 0
    assert cvae("decompress", "all.cvae", "-o", "out")[0] == 0
    with reader.open(tmp_path / "all.cvae") as archive:
        names = archive.names()
        assert sorted(names) == sorted(p.name for p in folder.iterdir())
        for k, name in enumerate(names):
            assert archive[k].shape == data.read_image(folder / name).shape
            np.testing.assert_array_equal(archive[k], data.read_image(tmp_path / "out" / name))
        assert archive[:5].shape == (5, *OWN, 3)
        assert "13x6" in failure(DataError, archive.read)
    status, _, err = cvae("decompress", "all.cvae", "-o", "all.npy")
    assert status != 0
    assert "into a folder" in err
    assert not (tmp_path / "all.npy").exists()


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_a_tar_or_zip_of_several_sizes_is_the_folder(workdir, folder, tmp_path, cvae, suffix):
    packed = tmp_path / f"photos{suffix}"
    shutil.make_archive(str(tmp_path / "photos"), suffix[1:], folder)
    for name in ("photos", packed.name):
        assert cvae("compress", name, "--ckpt", workdir, "-o", f"{name}.cvae")[0] == 0
    assert (tmp_path / f"{packed.name}.cvae").read_bytes() == (
        tmp_path / "photos.cvae"
    ).read_bytes()


def test_a_set_of_archives_refuses_other_sizes_and_loses_none(workdir, folder, cvae):
    status, _, err = cvae("compress", "photos", "--ckpt", workdir, "--shards", "2", "-o", "y.cvae")
    assert status == 1
    assert "13x6 colour, expected 8x12 colour; --resize" in err


def test_grey_is_what_is_asked_for(workdir, folder, tmp_path, cvae):
    greyed = tmp_path / "grey"
    greyed.mkdir()
    for path in folder.iterdir():
        (greyed / path.name).write_bytes(data.encode_image(data.read_image(path, channels=1)))
    assert cvae("compress", "photos", "--ckpt", workdir, "--grayscale", "-o", "a.cvae")[0] == 0
    assert cvae("compress", "grey", "--ckpt", workdir, "-o", "b.cvae")[0] == 0
    assert (tmp_path / "a.cvae").read_bytes() == (tmp_path / "b.cvae").read_bytes()


def test_what_a_damaged_archive_of_several_sizes_still_holds(workdir, folder, tmp_path, cvae):
    assert cvae("compress", "photos", "--ckpt", workdir, "--embed-model", "-o", "all.cvae")[0] == 0
    content = bytearray((tmp_path / "all.cvae").read_bytes())
    content[-40] ^= 1  # of the index
    (tmp_path / "all.cvae").write_bytes(content)
    status, out, _ = cvae("decompress", "all.cvae", "--keep-going", "-o", "out")
    assert status == 3
    assert "9 images" in out
    assert {data.read_image(p).shape[:2] for p in (tmp_path / "out").iterdir()} == {OWN, OTHER}


def test_one_image_of_another_size(workdir, tmp_path, cvae):
    (image,) = noise(1, OTHER)
    (tmp_path / "a.png").write_bytes(data.encode_image(image))
    assert (
        cvae("compress", "a.png", "--ckpt", workdir, "--target-psnr", "5", "-o", "a.cvae")[0] == 0
    )
    status, out, _ = cvae("info", "a.cvae", "--ckpt", workdir)
    assert status == 0
    assert "of 13x6x3" in out
    assert "of 13x6" in cvae("info", "a.cvae")[1]
    assert cvae("decompress", "a.cvae", "--ckpt", workdir, "-o", "b.png")[0] == 0
    assert data.read_image(tmp_path / "b.png").shape == image.shape


@pytest.mark.parametrize("flags", [["--target-bytes", "9"], ["--labels", "l.npy"], ["--lossless"]])
def test_what_does_not_go_with_other_sizes_is_refused(workdir, folder, tmp_path, cvae, flags):
    status, _, err = cvae("compress", "photos", "--ckpt", workdir, *flags, "-o", "all.cvae")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "resize" in err
    assert not (tmp_path / "all.cvae").exists()
    resized = "compress", "photos", "--ckpt", workdir, "--resize", "--lossless", "-o", "all.cvae"
    assert cvae(*resized)[0] == 0


def test_images_that_no_reader_would_take_are_refused(c):
    for size in ((4096, 4096), (8000, 8)):
        assert "cut them into tiles" in failure(ConfigError, c.sized, *size)
    for size in ((16_000, 8), (0, 3), (100_000, 1)):
        failure(ConfigError, c.sized, *size)
    assert "65535" in failure(DataError, records.pack_size, (1, 65536))


def test_many_large_images_and_many_sizes_are_read_back(c):
    """What is written is within what readers always allow, however much of it there is."""
    large = noise(12, (300, 280))
    data = c.sized(300, 280).compress(large, 10)
    assert c.decompress(data).shape == large.shape
    chunks = []
    for k in range(15):
        (image,) = images = noise(1, (100 + k, 200), k)
        other = c.sized(*image.shape[:2])
        symbols, step = other.encode_symbols(images, 10)
        chunks.append(other.file_model.chunk(symbols, step, other.decode_symbols(symbols, step)))
    archive = Archive(io.BytesIO(c.file_model.archive(chunks)), c.file_decoder)
    assert sum(map(len, archive.stream())) == 15


def test_small_images_cost_what_they_are(c):
    small = c.sized(1, 1)
    data = small.compress(np.zeros((9000, 1, 1, 3), np.uint8), 0)
    assert c.decompress(data).shape == (9000, 1, 1, 3)


def test_models_of_one_size(c):
    mnist = codec.load("mnist")
    assert "images of 28x28 alone" in failure(ConfigError, mnist.sized, 30, 30)
    made = dataclasses.replace(_chunk(c), size=(30, 30))
    content = mnist.file_model.archive([made])
    assert "28x28 alone" in failure(FormatError, mnist.decompress, content)


def test_its_own_size_is_no_other(c):
    chunk = _chunk(c, OWN)
    failure(FormatError, c.decompress, c.file_model.archive([dataclasses.replace(chunk, size=OWN)]))


def _chunk(c, size=OTHER):
    other, images = c.sized(*size), noise(2, size)
    symbols, step = other.encode_symbols(images)
    return other.file_model.chunk(symbols, step, other.decode_symbols(symbols, step))


@pytest.mark.parametrize("size", [(65535, 65535), (8192, 8192), (1, 65535), (2000, 2000)])
def test_a_file_cannot_make_a_reader_pay_for_a_huge_image(c, size):
    """Every check is as it should be, and the budget is all that stands in the way."""
    archive = c.file_model.archive([dataclasses.replace(_chunk(c), size=size)])
    for read in (
        lambda: c.decompress(archive),
        lambda: list(Archive(io.BytesIO(archive), c.file_decoder).stream()),
        lambda: Archive(io.BytesIO(archive), c.file_decoder)[0],
        lambda: bitstream.verify_archive(bitstream.Reader(io.BytesIO(archive)), c.file_decoder),
    ):
        failure(FormatError, read)
    found = bitstream.recover(archive, c.file_decoder)
    assert not found.images
    assert found.lost == [(0, 1)]
    good = c.file_model.archive([dataclasses.replace(_chunk(c), size=size), _chunk(c)])
    assert len(bitstream.recover(good, c.file_decoder).numbers) == 2
    one = bytearray(c.sized(*OTHER).compress(noise(1, OTHER)[0]))
    one[8:12] = records.pack_size(size)
    failure(FormatError, c.decompress, bytes(one))


def test_many_images_of_another_size_are_paid_for_together(c):
    """Of an embedded model: each chunk alone could be afforded."""
    chunk = dataclasses.replace(_chunk(c), size=(400, 400))
    archive = c.file_model.archive([chunk] * 40, embed_model=True)
    foreign = codec.from_embedded(*_carried(archive)).file_decoder
    opened = Archive(io.BytesIO(archive), foreign)
    failure(CostError, opened.read)


def _carried(archive):
    opened = bitstream.Reader(io.BytesIO(archive))
    return opened.model(), opened.header.identity


@pytest.mark.parametrize("body", [b"", b"\x01\x00", b"\x00\x00\x05\x00", b"\x05\x00\x00\x00"])
def test_a_size_that_is_none(c, body):
    packed = bytearray(records.pack_chunk(dataclasses.replace(_chunk(c), size=None, stream=b"")))
    packed[14] |= 16
    failure(FormatError, records.unpack_chunk, bytes(packed) + body)
