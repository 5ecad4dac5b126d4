import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvae_jax import data
from cvae_jax.data import downloads, mnist, prepared
from cvae_jax.errors import DataError

SHARED = Path(os.environ.get("CVAE_JAX_DATA") or Path(__file__).parents[2] / "shared")
needs_idx = pytest.mark.skipif(
    not (SHARED / "data/mnist").is_dir(), reason=f"needs MNIST's IDX files in {SHARED}"
)
needs_tfds = pytest.mark.skipif(
    not (SHARED / "data/tfds").is_dir(), reason=f"needs MNIST prepared by TFDS in {SHARED}"
)
needs_seed = pytest.mark.skipif(
    not (SHARED / "seed").is_dir(), reason=f"needs the sample images in {SHARED}"
)
DIGITS_SHA256 = "66bf72938ba4656011ca9e3c4cc553d6ab16bed6facb4275ed4e9b015cb441b7"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path):
    """No test finds datasets of the person who runs it, or reaches the real mirror."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds-default"))
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:9/mnist/")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def failure(function, *args, **kwargs) -> str:
    """The one line of the DataError that the call must raise."""
    with pytest.raises(DataError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_images(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{i:03}{suffix}")
    return folder


class TestIdx:
    @pytest.mark.parametrize("shape", [(5,), (4, 3, 2), (2, 3, 4, 3)])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_round_trip(self, tmp_path, shape, pack):
        path = tmp_path / "any-name"
        path.write_bytes(pack(idx(noise(*shape))))
        np.testing.assert_array_equal(data.read_idx(path), noise(*shape))

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_every_truncation_and_extra_bytes(self, tmp_path, pack):
        whole = idx(noise(3, 2, 2))
        path = tmp_path / "train-images-idx3-ubyte"
        for n in range(len(whole)):
            path.write_bytes(pack(whole[:n]))
            assert str(path) in failure(data.read_idx, path)
        path.write_bytes(pack(whole + b"\0"))
        assert "bytes follow" in failure(data.read_idx, path)

    def test_every_truncation_of_the_gzip_stream(self, tmp_path):
        whole = gzip.compress(idx(noise(3, 2, 2)))
        path = tmp_path / "x.gz"
        for n in range(len(whole)):
            path.write_bytes(whole[:n])
            assert str(path) in failure(data.read_idx, path)

    def test_flipped_bits_in_the_gzip_stream(self, tmp_path):
        whole = gzip.compress(idx(noise(3, 2, 2)), mtime=0)
        path = tmp_path / "x.gz"
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):  # or a bit that says nothing: the time stamp
                np.testing.assert_array_equal(data.read_idx(path), noise(3, 2, 2))

    @pytest.mark.parametrize(
        "magic", ["00000d03", "00000800", "00000805", "000008ff", "01000803", "89504e47"]
    )
    def test_wrong_magic(self, tmp_path, magic):
        path = tmp_path / "x"
        path.write_bytes(bytes.fromhex(magic) + bytes(100))
        assert magic in failure(data.read_idx, path)

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    @pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (60000, 28, 28), (0,) * 3])
    def test_lying_header_allocates_nothing(self, tmp_path, pack, shape):
        path = tmp_path / "x"
        path.write_bytes(pack(struct.pack(f">I{len(shape)}I", 0x800 + len(shape), *shape)))
        tracemalloc.start()
        try:
            assert "header says" in failure(data.read_idx, path)
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()

    def test_missing(self, tmp_path):
        assert "No such file" in failure(data.read_idx, tmp_path / "none")


class TestIdxFolder:
    @pytest.mark.parametrize("name", ["{}-idx3-ubyte.gz", "{}-idx3-ubyte", "{}.idx3-ubyte"])
    def test_names(self, tmp_path, name):
        for stem, n in (("train-images", 5), ("t10k-images", 2)):
            packed = idx(noise(n, 3, 4))
            path = tmp_path / name.format(stem)
            path.write_bytes(gzip.compress(packed) if path.suffix == ".gz" else packed)
        assert data.load(tmp_path, "train").shape == (5, 3, 4, 1)
        np.testing.assert_array_equal(data.load(tmp_path, "test")[..., 0], noise(2, 3, 4))
        both = [data.load(tmp_path, split) for split in ("train", "test")]
        np.testing.assert_array_equal(data.load(tmp_path, "all"), np.concatenate(both))

    def test_a_missing_part_and_labels_for_images(self, tmp_path):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(noise(7)))
        assert "t10k-images" in failure(data.load, tmp_path, "test")
        assert "(7,)" in failure(data.load, tmp_path, "train")


class TestArrays:
    @pytest.mark.parametrize("shape", [(20, 4, 5), (20, 4, 5, 1), (20, 4, 5, 3)])
    def test_npy(self, tmp_path, shape):
        np.save(tmp_path / "x.npy", noise(*shape))
        expected = noise(*shape).reshape(20, 4, 5, -1)
        np.testing.assert_array_equal(data.load(tmp_path / "x.npy", "all"), expected)
        assert [len(data.load(tmp_path / "x.npy", s)) for s in ("train", "test")] == [18, 2]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
    def test_floats_of_all_levels_come_back(self, tmp_path, dtype):
        levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        np.save(tmp_path / "x.npy", (levels / 255).astype(dtype))
        np.testing.assert_array_equal(data.read_array(tmp_path / "x.npy"), levels)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 255.0])
    def test_floats_out_of_range(self, tmp_path, value):
        array = np.zeros((3, 4, 4), np.float32)
        array[1, 2, 3] = value
        np.save(tmp_path / "x.npy", array)
        assert "x.npy: numbers outside [0, 1]" in failure(data.read_array, tmp_path / "x.npy")

    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (np.zeros((3, 4, 4), np.int64), "int64"),
            (np.zeros((3, 4, 4), bool), "bool"),
            (np.zeros((3, 4, 4), complex), "complex"),
            (np.array([["a"]]), "(1, 1)"),
            (np.zeros((4, 4), np.uint8), "(4, 4)"),
            (np.zeros((3, 1, 28, 28), np.uint8), "(3, 1, 28, 28)"),
            (np.zeros((3, 0, 28), np.uint8), "(3, 0, 28, 1)"),
            (np.uint8(3), "single number"),
            (np.zeros((0, 4, 4), np.uint8), "no images"),
        ],
    )
    def test_what_is_no_images(self, tmp_path, array, expected):
        np.save(tmp_path / "x.npy", array)
        assert expected in failure(data.load, tmp_path / "x.npy", "all")

    def test_pickles_are_not_run(self, tmp_path):
        class Touch:
            def __reduce__(self):
                return open, (str(tmp_path / "touched"), "w")

        np.save(tmp_path / "x.npy", np.array([Touch()]), allow_pickle=True)
        np.savez(tmp_path / "x.npz", np.array([Touch()]))
        for name in ("x.npy", "x.npz"):
            failure(data.read_array, tmp_path / name)
        assert not (tmp_path / "touched").exists()

    @pytest.mark.parametrize("names", [("x_train", "x_test"), ("train", "test")])
    def test_npz_with_splits(self, tmp_path, names):
        arrays = {names[0]: noise(5, 4, 4), names[1]: noise(2, 4, 4), "y_train": np.arange(5)}
        np.savez_compressed(tmp_path / "x.npz", **arrays)
        assert [len(data.load(tmp_path / "x.npz", s)) for s in ("train", "test")] == [5, 2]
        assert len(data.load(tmp_path / "x.npz", "all")) == 7

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz_without_splits(self, tmp_path, save):
        save(tmp_path / "one.npz", noise(5, 4, 4))
        save(tmp_path / "images.npz", images=noise(5, 4, 4), labels=np.arange(5))
        for name in ("one", "images"):
            loaded = data.read_array(tmp_path / f"{name}.npz")
            np.testing.assert_array_equal(loaded[..., 0], noise(5, 4, 4))

    def test_npz_that_cannot_be_understood(self, tmp_path):
        np.savez(tmp_path / "x.npz", a=noise(5, 4, 4), b=noise(5, 4, 4))
        message = failure(data.read_array, tmp_path / "x.npz")
        assert "holds a, b" in message
        assert "x_train" in message
        np.savez(tmp_path / "x.npz")
        assert "holds nothing" in failure(data.read_array, tmp_path / "x.npz")
        np.savez(tmp_path / "x.npz", x_train=noise(5, 4, 4), x_test=noise(5, 4, 5))
        assert "differ in shape" in failure(data.read_array, tmp_path / "x.npz")

    def test_wrong_suffix(self, tmp_path):
        np.savez(tmp_path / "x.npz", noise(5, 4, 4))
        (tmp_path / "x.npz").rename(tmp_path / "x.npy")
        assert "name it so" in failure(data.read_array, tmp_path / "x.npy")

    @pytest.mark.parametrize("zipped", [False, True])
    def test_lying_header_allocates_nothing(self, tmp_path, zipped):
        header = io.BytesIO()
        shape = (10**6, 1000, 1000)
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        path = tmp_path / ("x.npz" if zipped else "x.npy")
        path.write_bytes(header.getvalue() + bytes(100))
        if zipped:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("images.npy", header.getvalue() + bytes(100))
        tracemalloc.start()
        try:
            assert str(path) in failure(data.read_array, path)
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_damage_is_an_error_or_other_pixels(self, tmp_path, suffix):
        """Never another exception: each truncation, and random bytes overwritten."""
        path = tmp_path / f"x{suffix}"
        save = np.save if suffix == ".npy" else np.savez_compressed
        save(path, noise(3, 4, 4))
        whole = path.read_bytes()
        for n in range(len(whole)):
            path.write_bytes(whole[:n])
            failure(data.read_array, path)
        rng = np.random.default_rng(1)
        for _ in range(300):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[rng.integers(len(whole), size=2)] = rng.integers(256, size=2)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(DataError):
                assert data.read_array(path).dtype == np.uint8


class TestImage:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif", ".webp", ".ppm"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_lossless_formats(self, tmp_path, suffix, channels):
        pixels = noise(5, 7, channels)
        path = tmp_path / f"x{suffix}"
        Image.fromarray(pixels.squeeze()).save(path, lossless=True)
        np.testing.assert_array_equal(data.read_image(path), pixels)

    def test_the_suffix_does_not_matter_to_the_reader(self, tmp_path):
        Image.fromarray(noise(5, 7)).save(tmp_path / "x.jpg", format="PNG")
        np.testing.assert_array_equal(data.read_image(tmp_path / "x.jpg")[..., 0], noise(5, 7))

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
    def test_grey_whatever_the_mode(self, tmp_path, mode):
        bits = noise(4, 4) // 128 * 255
        grey = Image.fromarray(bits)
        if mode == "I;16":
            image = Image.fromarray(bits.astype(np.uint16) * 257)
        else:
            image = grey.convert(mode)
        path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
        image.save(path)
        np.testing.assert_array_equal(data.read_image(path)[..., 0], bits)

    def test_channels_can_be_forced(self, tmp_path):
        Image.fromarray(noise(4, 4)).save(tmp_path / "grey.png")
        Image.fromarray(noise(4, 4, 3)).save(tmp_path / "rgb.png")
        rgb = data.read_image(tmp_path / "grey.png", channels=3)
        np.testing.assert_array_equal(rgb, np.repeat(noise(4, 4)[..., None], 3, 2))
        grey = data.read_image(tmp_path / "rgb.png", channels=1)
        luma = noise(4, 4, 3) @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(grey[..., 0], luma, atol=1)

    def test_resize(self, tmp_path):
        ramp = np.linspace(0, 255, 64).astype(np.uint8)
        Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / "x.png")
        small = data.read_image(tmp_path / "x.png", image_size=(8, 16))
        assert small.shape == (8, 16, 1)
        np.testing.assert_allclose(small[4, 2:-2, 0], ramp.reshape(16, 4).mean(1)[2:-2], atol=2)

    def test_upright(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees
        Image.fromarray(noise(4, 6)).save(tmp_path / "x.png", exif=exif)
        upright = data.read_image(tmp_path / "x.png")[..., 0]
        np.testing.assert_array_equal(upright, np.rot90(noise(4, 6), -1))

    def test_the_first_frame(self, tmp_path):
        frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
        frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
        assert (data.read_image(tmp_path / "x.gif") == 10).all()

    def test_transparency_and_32_bits(self, tmp_path):
        rgba = noise(4, 4, 4)
        Image.fromarray(rgba).save(tmp_path / "x.png")
        assert "x.png: has transparent" in failure(data.read_image, tmp_path / "x.png")
        Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "x.tif")
        assert "32-bit" in failure(data.read_image, tmp_path / "x.tif")

    def test_not_an_image(self, tmp_path):
        (tmp_path / "x.png").write_text("nothing of the kind")
        assert "x.png: not an image" in failure(data.read_image, tmp_path / "x.png")
        assert "No such file" in failure(data.read_image, tmp_path / "none.png")

    def test_other_formats_of_pillow_are_not_opened(self, tmp_path):
        Image.fromarray(noise(4, 4)).save(tmp_path / "x.png", format="PCX")
        assert "not an image" in failure(data.read_image, tmp_path / "x.png")

    @pytest.mark.parametrize("side", [10_000, 100_000])
    def test_decompression_bomb(self, tmp_path, side):
        Image.fromarray(noise(4, 4)).save(tmp_path / "x.png")
        png = bytearray((tmp_path / "x.png").read_bytes())
        png[16:24] = struct.pack(">II", side, side)
        png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
        (tmp_path / "x.png").write_bytes(png)
        assert "too large" in failure(data.read_image, tmp_path / "x.png")

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm"])
    def test_damage_is_an_error_or_other_pixels(self, tmp_path, suffix):
        """Never another exception: truncations, and random bytes overwritten."""
        path = tmp_path / f"x{suffix}"
        Image.fromarray(noise(8, 8)).save(path)
        whole = path.read_bytes()
        rng = np.random.default_rng(1)
        for n in rng.integers(len(whole), size=60):
            path.write_bytes(whole[:n])
            with contextlib.suppress(DataError):
                data.read_image(path)
        for _ in range(200):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[rng.integers(min(len(whole), 150), size=2)] = rng.integers(256, size=2)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(DataError):
                assert data.read_image(path).dtype == np.uint8
        path.write_bytes(whole[: len(whole) // 3])
        assert str(path) in failure(data.read_image, path)


class TestFolder:
    def test_split_by_hash_in_order_of_names(self, tmp_path):
        write_images(tmp_path, noise(40, 4, 4))
        train, test = (data.load(tmp_path, split) for split in ("train", "test"))
        assert (len(train), len(test)) == (36, 4)
        np.testing.assert_array_equal(data.load(tmp_path, "all")[..., 0], noise(40, 4, 4))
        both = [image.tobytes() for image in (*train, *test)]
        assert sorted(both) == sorted(image.tobytes() for image in noise(40, 4, 4))

    def test_the_split_does_not_depend_on_the_place(self, tmp_path):
        for name in ("a", "b"):
            write_images(tmp_path / name / "c", noise(20, 4, 4))
        a, b = (data.load(tmp_path / name, "test") for name in ("a", "b"))
        np.testing.assert_array_equal(a, b)

    def test_subfolders_train_and_test(self, tmp_path):
        write_images(tmp_path / "train/cats", noise(5, 4, 4))
        write_images(tmp_path / "test", noise(2, 4, 4), ".bmp")
        assert len(data.load(tmp_path, "train")) == 5
        np.testing.assert_array_equal(data.load(tmp_path, "test")[..., 0], noise(2, 4, 4))
        assert len(data.load(tmp_path, "all")) == 7

    def test_which_files(self, tmp_path):
        write_images(tmp_path / "in", noise(2, 4, 4))
        write_images(tmp_path / "in/.thumbnails", noise(1, 4, 4))
        write_images(tmp_path / "out", noise(3, 4, 4))
        (tmp_path / "in/notes.txt").write_text("x")
        (tmp_path / "in/._000.png").write_text("x")
        shutil.copy(tmp_path / "in/000.png", tmp_path / "in/Z.PNG")
        (tmp_path / "in/folder").symlink_to(tmp_path / "out")
        (tmp_path / "in/leaves.png").symlink_to(tmp_path / "out/000.png")
        (tmp_path / "in/stays.png").symlink_to("001.png")
        names = [path.name for path in data.list_images(tmp_path / "in")]
        assert names == ["000.png", "001.png", "Z.PNG", "stays.png"]

    def test_mixed_sizes(self, tmp_path):
        write_images(tmp_path, noise(3, 4, 4))
        Image.fromarray(noise(4, 5)).save(tmp_path / "odd.png")
        for split in ("train", "test", "all"):
            message = failure(data.load, tmp_path, split)
            assert "odd.png: 4x5" in message
            assert "000.png is 4x4" in message
        assert data.load(tmp_path, "all", image_size=(6, 7)).shape == (4, 6, 7, 1)

    def test_one_colour_image_makes_all_rgb_in_every_split(self, tmp_path):
        write_images(tmp_path, noise(20, 4, 4))
        assert data.load(tmp_path, "all").shape[3] == 1
        Image.fromarray(noise(4, 4, 3)).save(tmp_path / "colour.png")
        assert {data.load(tmp_path, s).shape[3] for s in ("train", "test", "all")} == {3}
        assert data.load(tmp_path, "all", channels=1).shape[3] == 1

    def test_empty(self, tmp_path):
        assert f"{tmp_path}: no images" in failure(data.load, tmp_path, "train")

    def test_one_image_leaves_none_to_train_on(self, tmp_path):
        write_images(tmp_path, noise(1, 4, 4))
        assert len(data.load(tmp_path, "test")) == 1
        assert "split 'train'" in failure(data.load, tmp_path, "train")

    def test_an_undecodable_file_is_named(self, tmp_path):
        write_images(tmp_path, noise(3, 4, 4))
        (tmp_path / "001.png").write_bytes(b"x")
        assert "001.png: not an image" in failure(data.load, tmp_path, "train")

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads every folder")
    def test_unreadable_subfolder(self, tmp_path):
        write_images(tmp_path, noise(3, 4, 4))
        (tmp_path / "closed").mkdir(mode=0)
        assert "closed: Permission denied" in failure(data.load, tmp_path, "train")

    @needs_seed
    def test_the_originals_samples(self):
        images = data.load(SHARED / "seed", "all")
        assert images.shape == (14, 28, 28, 1)
        by_name = dict(
            zip([p.name for p in data.list_images(SHARED / "seed")], images, strict=True)
        )
        for digit in ("digit_3", "digit_7"):
            np.testing.assert_array_equal(by_name[f"{digit}.png"], by_name[f"{digit}.bmp"])
            lossy = by_name[f"{digit}.jpg"].astype(int) - by_name[f"{digit}.png"]
            assert 0 < np.abs(lossy).mean() < 10


class TestDigits:
    def test_counts_and_identity(self):
        train, test = (data.load("digits", split) for split in ("train", "test"))
        assert (train.shape, test.shape) == ((1618, 28, 28, 1), (179, 28, 28, 1))
        assert hashlib.sha256(train).hexdigest() == DIGITS_SHA256

    def test_in_mnists_manner(self):
        images = data.load("digits", "all")[..., 0]
        assert (images.max((1, 2)) >= 250).all()  # full contrast
        assert (images[:, [0, -1]] == 0).all()  # white on black
        ys, xs = ((images > 0).any(axis) for axis in (2, 1))
        extent = np.stack([27 - line[:, ::-1].argmax(1) - line.argmax(1) + 1 for line in (ys, xs)])
        assert (extent.max(0) <= 20).all()
        assert (extent.max(0) >= 18).all()
        mass = images.astype(float)
        for axis in (1, 2):
            line = mass.sum(axis)
            centre = (line * (np.arange(28) + 0.5)).sum(1) / line.sum(1)
            assert np.abs(centre - 14).max() <= 0.51
        grey = ((images > 0) & (images < 250)).mean()
        assert 0.05 < grey < 0.2  # anti-aliased, yet no blur
        assert 0.1 < images.mean() / 255 < 0.17  # MNIST: 0.13


@needs_idx
class TestMnistIdx:
    def test_the_images(self):
        train, test = (data.load("mnist", s, SHARED / "data") for s in ("train", "test"))
        assert (train.shape, test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
        # The MD5 that all copies of the unpacked files carry.
        for images, md5 in (
            (train, "6bbc9ace898e44ae57da46a324031adb"),
            (test, "2646ac647ad5339dbf082846283269ea"),
        ):
            assert hashlib.md5(idx(images[..., 0])).hexdigest() == md5

    def test_labels(self):
        labels = data.read_idx(SHARED / "data/mnist/t10k-labels-idx1-ubyte.gz")
        assert hashlib.md5(idx(labels)).hexdigest() == "27ae3e4e09519cfbb04c329615203637"

    @pytest.mark.parametrize("place", ["data", "data/mnist"])
    def test_found_without_a_name(self, place):
        assert data.resolve(None, SHARED / place) == ("mnist", None)

    def test_found_in_the_default_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TFDS_DATA_DIR", str(SHARED / "data"))
        assert data.resolve(None, tmp_path) == ("mnist", None)
        assert data.resolve(None) == ("mnist", None)


@pytest.fixture
def tfds_dir(tmp_path):
    """MNIST as TFDS prepares it, in a folder of our own."""
    place = tmp_path / "tfds/mnist/3.0.1"
    place.mkdir(parents=True)
    for path in (SHARED / "data/tfds/mnist/3.0.1").iterdir():
        if path.suffix == ".json":
            (place / path.name).write_bytes(path.read_bytes())
        else:
            (place / path.name).symlink_to(path)
    return tmp_path / "tfds"


def edit_info(tfds_dir: Path, old: str, new: str) -> None:
    path = tfds_dir / "mnist/3.0.1/dataset_info.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@needs_tfds
class TestPrepared:
    @needs_idx
    def test_same_images_as_idx(self):
        ours, native = (
            data.load("mnist", "test", SHARED / place) for place in ("data/tfds", "data")
        )
        assert ours.shape == native.shape
        assert sorted(i.tobytes() for i in ours) == sorted(i.tobytes() for i in native)

    def test_no_tensorflow_and_no_noise(self):
        code = (
            "import sys; from cvae_jax import data; "
            "print(data.load('mnist:3.0.1', 'test', sys.argv[1]).shape, "
            "'tensorflow' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(SHARED / "data/tfds")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "(10000, 28, 28, 1) False\n"
        assert done.stderr == ""

    def test_found_without_a_name(self, tfds_dir):
        assert data.resolve(None, tfds_dir) == ("mnist", None)

    def test_newest_version_and_the_one_asked_for(self, tfds_dir):
        for version in ("10.0.0", "9.0.0", "11.0.0.incompleteAB", "11.0.0"):
            shutil.copytree(tfds_dir / "mnist/3.0.1", tfds_dir / "mnist" / version, symlinks=True)
        (tfds_dir / "mnist/11.0.0/dataset_info.json").unlink()
        assert prepared.find("mnist", [tfds_dir]).name == "10.0.0"
        assert prepared.find("mnist:9.0.0", [tfds_dir]).name == "9.0.0"
        assert prepared.find("mnist:8.0.0", [tfds_dir]) is None

    def test_configurations(self, tfds_dir):
        for config in ("letters", "digits"):
            shutil.copytree(tfds_dir / "mnist", tfds_dir / "emnist" / config, symlinks=True)
        assert prepared.find("emnist/letters", [tfds_dir]).parts[-2:] == ("letters", "3.0.1")
        assert "digits, letters" in failure(data.load, "emnist", "test", tfds_dir)
        shutil.rmtree(tfds_dir / "emnist/letters")
        assert prepared.find("emnist", [tfds_dir]).parts[-2] == "digits"

    def test_without_a_test_split(self, tfds_dir):
        info = json.loads((tfds_dir / "mnist/3.0.1/dataset_info.json").read_text())
        info["splits"] = [split for split in info["splits"] if split["name"] == "test"]
        (tfds_dir / "mnist/3.0.1/dataset_info.json").write_text(json.dumps(info))
        assert len(data.load("mnist", "test", tfds_dir)) == 1000

    def test_formats_that_need_tensorflow_do_not_count(self, tfds_dir):
        folder = tfds_dir / "mnist/3.0.1"
        edit_info(tfds_dir, "array_record", "tfrecord")
        assert prepared.find("mnist", [tfds_dir]) is None
        assert "only TensorFlow reads" in failure(prepared.load, folder, "test", None, None)

    def test_damaged(self, tfds_dir):
        shard = next(tfds_dir.glob("mnist/*/*test.array_record*"))
        whole = shard.read_bytes()
        shard.unlink()
        assert str(shard.parent) in failure(data.load, "mnist", "test", tfds_dir)
        shard.write_bytes(whole[: len(whole) // 2])
        assert str(shard.parent) in failure(data.load, "mnist", "test", tfds_dir)

    def test_resized_and_in_colour(self, tfds_dir, monkeypatch):
        images = data.load("mnist", "test", tfds_dir, image_size=(8, 9), channels=3)
        assert images.shape == (10000, 8, 9, 3)


class TestNames:
    def test_unknown_with_near_match(self, tmp_path):
        message = failure(data.load, "fashion_mist", "train", tmp_path)
        assert "is fashion_mnist meant?" in message
        assert "neither a file or folder" in failure(data.load, "no/such/place", "train")

    def test_tensorflow_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
        message = failure(data.load, "fashion_mnist", "train", tmp_path)
        assert "fashion_mnist" in message
        assert "pip install tensorflow" in message

    def test_a_preparation_that_fails(self, tmp_path, monkeypatch):
        import tensorflow_datasets as tfds

        def fail(*args, **kwargs):
            raise RuntimeError("several\nlines")

        monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(tfds, "builder", fail)
        message = failure(data.load, "fashion_mnist", "train", tmp_path)
        assert f"cannot be prepared in {tmp_path} (several lines)" in message

    def test_files_of_no_known_kind(self, tmp_path):
        (tmp_path / "x.csv").write_text("1,2")
        assert "x.csv: expected a folder" in failure(data.load, tmp_path / "x.csv", "train")
        assert "No such file" in failure(data.load, tmp_path / "x.npy", "train")

    def test_unknown_split(self):
        assert "train, test, all" in failure(data.load, "digits", "validation")

    def test_only_image_files_are_resized(self, tmp_path):
        message = failure(data.load, "digits", "train", image_size=(32, 32))
        assert "28x28x1, not 32x32x1" in message

    def test_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        write_images(tmp_path / "pictures", noise(2, 4, 4))
        assert len(data.load("~/pictures", "all")) == 2

    def test_an_explicit_name_stays(self):
        assert data.resolve("no_such_thing") == ("no_such_thing", None)


class Server(http.server.ThreadingHTTPServer):
    """A mirror of MNIST on loopback that can be told to fail."""

    daemon_threads = True
    files: dict[str, bytes]
    fault = None

    def handle_error(self, request, client_address):
        pass  # clients that give up are what is tested


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(Path(self.path).name)
        if self.server.fault == "silent":
            time.sleep(30)
        if content is None or self.server.fault == "404":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.fault == "stalls":
            self.wfile.write(content[:10])
            self.wfile.flush()
            time.sleep(30)
        elif self.server.fault == "trickles":
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
        elif self.server.fault == "breaks off":
            self.wfile.write(content[:-1])
        else:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(monkeypatch):
    """Four small files, served from loopback and registered with their checksums."""
    arrays = {
        "train-images-idx3-ubyte.gz": noise(50, 28, 28),
        "train-labels-idx1-ubyte.gz": noise(50),
        "t10k-images-idx3-ubyte.gz": noise(10, 28, 28),
        "t10k-labels-idx1-ubyte.gz": noise(10),
    }
    files = {name: gzip.compress(idx(array)) for name, array in arrays.items()}
    with Server(("127.0.0.1", 0), Handler) as server:
        server.files = files
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        checks = {
            name: (len(files[name]), hashlib.sha256(files[name]).hexdigest())
            for name in mnist.FILES
        }
        monkeypatch.setattr(mnist, "URL", f"http://127.0.0.1:{server.server_port}/mnist/")
        monkeypatch.setattr(mnist, "FILES", checks)
        yield server
        server.shutdown()


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


class TestDownload:
    def test_fetched_once_and_found_again(self, mirror, tmp_path, capfd):
        place = tmp_path / "new" / "folder"
        assert data.resolve(None, place) == ("mnist", None)
        assert capfd.readouterr().err.count("\n") == 1  # that it is being fetched; no noise
        assert {p.name for p in everything_in(place)} == set(mnist.FILES)
        assert [p.name for p in (place / "mnist").iterdir() if p.is_dir()] == []
        mirror.shutdown()
        np.testing.assert_array_equal(data.load("mnist", "train", place)[..., 0], noise(50, 28, 28))
        assert capfd.readouterr().err == ""

    def test_the_default_folder(self, mirror, tmp_path):
        assert data.load("mnist", "test").shape == (10, 28, 28, 1)
        assert len(everything_in(tmp_path / "tfds-default/mnist")) == 4

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            ("404", "answered 404"),
            ("silent", "did not answer within 1 seconds"),
            ("stalls", "stopped answering"),
            ("trickles", "too slow"),
            ("breaks off", "broke off"),
            ("checksum", "wrong checksum"),
        ],
    )
    def test_faults(self, mirror, tmp_path, monkeypatch, capfd, fault, expected):
        monkeypatch.setattr(downloads, "ANSWER_SECONDS", 1)
        monkeypatch.setattr(downloads, "READ_SECONDS", 2)
        if fault == "trickles":
            monkeypatch.setattr(mnist, "TOTAL_SECONDS", 2)
        if fault == "checksum":
            name = "train-images-idx3-ubyte.gz"
            mirror.files[name] = mirror.files[name][:-1] + b"\1"
        mirror.fault = fault
        (name, note) = data.resolve(None, tmp_path / "d")
        assert name == "digits"
        assert "using the embedded digits" in note
        assert expected in note
        assert mnist.URL.split("/")[2] in note
        assert "\n" not in note
        assert everything_in(tmp_path / "d") == []
        assert capfd.readouterr().err.count("\n") == 1

    def test_other_datasets_downloads_do_not_wait_for_ever_either(self, mirror):
        import requests

        mirror.fault = "silent"
        with downloads.bounded_requests(1, 1), pytest.raises(requests.Timeout):
            requests.get(mnist.URL)

    def test_killed_in_the_middle(self, mirror, tmp_path):
        mirror.fault = "stalls"
        code = (
            "import sys; from cvae_jax import data; from cvae_jax.data import mnist; "
            "mnist.URL = sys.argv[1]; data.load('mnist', 'train', sys.argv[2])"
        )
        run = subprocess.Popen(
            [sys.executable, "-c", code, mnist.URL, str(tmp_path)], stderr=subprocess.PIPE
        )
        while not everything_in(tmp_path):  # the beginning of a file
            assert run.poll() is None
            time.sleep(0.05)
        run.kill()
        run.communicate()
        mirror.fault = None
        assert mnist.find([tmp_path]) is None
        assert len(data.load("mnist", "train", tmp_path)) == 50

    def test_no_network(self, tmp_path):
        """Nobody listens at the address; an explicit name is an error with a remedy."""
        message = failure(data.load, "mnist", "train", tmp_path)
        assert "127.0.0.1:9 is not reachable" in message
        assert str(tmp_path / "mnist") in message
        assert "dataset digits" in message

    def test_a_place_that_cannot_be_written(self, mirror, tmp_path):
        (tmp_path / "file").write_text("")
        assert "cannot write to" in failure(data.load, "mnist", "train", tmp_path / "file")

    def test_half_a_download_is_not_taken_for_mnist(self, mirror, tmp_path):
        (tmp_path / "mnist").mkdir()
        name = "t10k-images-idx3-ubyte.gz"
        (tmp_path / "mnist" / name).write_bytes(mirror.files[name])
        assert mnist.find([tmp_path]) is None
        assert len(data.load("mnist", "train", tmp_path)) == 50


def test_registered_checksums_are_those_of_tfds():
    from tensorflow_datasets.core.download import checksums

    registered = checksums.get_all_url_infos()
    base = "https://storage.googleapis.com/cvdf-datasets/mnist/"
    for name, check in mnist.FILES.items():
        info = registered[base + name]
        assert (info.size, info.checksum) == check


def test_import_is_light():
    code = (
        "import sys; import cvae_jax.data; "
        "print([m for m in ('tensorflow_datasets', 'PIL', 'sklearn', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
