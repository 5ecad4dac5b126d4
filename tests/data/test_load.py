"""What a dataset's name means, and the digits that need no download."""

import hashlib
import subprocess
import sys

import data_samples
import numpy as np
from data_samples import failure, noise, write_images

from cvae_jax import data
from cvae_jax.data import prepared

nothing_of_this_machine = data_samples.nothing_of_this_machine
DIGITS_SHA256 = "66bf72938ba4656011ca9e3c4cc553d6ab16bed6facb4275ed4e9b015cb441b7"


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


class TestFromJpeg:
    def test_is_told_by_what_the_files_hold(self, tmp_path):
        images = noise(2, 9, 8, 3)
        assert data.from_jpeg(write_images(tmp_path / "jpeg", images, ".jpg"))
        assert not data.from_jpeg(write_images(tmp_path / "png", images))
        assert not data.from_jpeg("digits")


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


def test_import_is_light():
    code = (
        "import sys; import cvae_jax.data; "
        "print([m for m in ('tensorflow_datasets', 'PIL', 'sklearn', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
