"""Image files, and folders of them."""

import contextlib
import os
import shutil
import struct
import zlib

import data_samples
import numpy as np
import pytest
from conftest import ROOT
from data_samples import failure, noise, write_images
from PIL import Image

from cvae_jax import data
from cvae_jax.errors import DataError

nothing_of_this_machine = data_samples.nothing_of_this_machine


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

    def test_16_bits_become_the_nearest_of_8(self, tmp_path):
        every = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
        Image.fromarray(every).save(tmp_path / "x.png")
        levels = data.read_image(tmp_path / "x.png")[..., 0]
        np.testing.assert_array_equal(levels, np.round(every / 257))

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

    @pytest.mark.parametrize("suffix", [".gif", ".tif", ".png", ".webp"])
    def test_several_frames_are_no_image(self, tmp_path, suffix):
        """Compressing the first alone would lose the others in silence."""
        frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
        path = tmp_path / f"x{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert failure(data.read_image, path) == (
            f"{path}: several frames or pages; save each as a file of its own"
        )
        frames[0].save(path, save_all=True)
        assert data.read_image(path).shape == (4, 4, 1)

    def test_previews_in_a_cameras_file_are_passed_over(self, tmp_path):
        photo, preview = (Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (10, 200))
        photo.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[preview])
        with Image.open(tmp_path / "x.jpg") as opened:
            assert opened.n_frames == 2
        assert (data.read_image(tmp_path / "x.jpg") == 10).all()

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

    @pytest.mark.parametrize("side", [5_800, 10_000, 100_000])
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

    def test_the_same_digit_in_several_formats(self, tmp_path):
        for name in ("digit_3", "digit_7"):
            picture = Image.open(ROOT / "examples" / "digits" / f"{name}.png")
            for suffix in ("png", "bmp", "jpg"):
                picture.save(tmp_path / f"{name}.{suffix}")
        images = data.load(tmp_path, "all")
        assert images.shape == (6, 28, 28, 1)
        by_name = dict(zip([p.name for p in data.list_images(tmp_path)], images, strict=True))
        for name in ("digit_3", "digit_7"):
            np.testing.assert_array_equal(by_name[f"{name}.png"], by_name[f"{name}.bmp"])
            lossy = by_name[f"{name}.jpg"].astype(int) - by_name[f"{name}.png"]
            assert 0 < np.abs(lossy).mean() < 10
