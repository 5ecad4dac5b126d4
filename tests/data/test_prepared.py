"""Datasets that TFDS has prepared."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import data_samples
import numpy as np
import pytest
from data_samples import SHARED, failure, needs_idx, needs_tfds, noise, write_prepared

from cvae_jax import data
from cvae_jax.data import prepared

nothing_of_this_machine = data_samples.nothing_of_this_machine


TRAIN, TEST = noise(20, 28, 28), noise(10, 28, 28)


@pytest.fixture
def tfds_dir(tmp_path):
    """A few images under the name of MNIST, as TFDS prepares it, in a folder of our own."""
    write_prepared(tmp_path / "tfds/mnist/3.0.1", {"train": TRAIN, "test": TEST})
    return tmp_path / "tfds"


def edit_info(tfds_dir: Path, old: str, new: str) -> None:
    path = tfds_dir / "mnist/3.0.1/dataset_info.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestPrepared:
    def test_the_images_of_each_split(self, tfds_dir):
        for split, images in (("train", TRAIN), ("test", TEST)):
            np.testing.assert_array_equal(data.load("mnist", split, tfds_dir)[..., 0], images)

    @needs_tfds
    @needs_idx
    def test_same_images_as_idx(self):
        ours, native = (
            data.load("mnist", "test", SHARED / place) for place in ("data/tfds", "data")
        )
        assert ours.shape == native.shape
        assert sorted(i.tobytes() for i in ours) == sorted(i.tobytes() for i in native)

    @pytest.mark.parametrize("in_memory", [True, False])
    def test_cifar10_by_name(self, tmp_path, in_memory):
        """In colour, with ids, which are bytes like an image, before the images."""
        splits = {"train": noise(20, 32, 32, 3), "test": noise(10, 32, 32, 3)}
        write_prepared(tmp_path / "cifar10/3.0.2", splits)
        for split, images in splits.items():
            found = data.open("cifar10", split, tmp_path, in_memory=in_memory)
            assert found.shape == images.shape
            np.testing.assert_array_equal(found[np.arange(len(found))], images)

    def test_no_tensorflow_and_no_noise(self, tfds_dir):
        code = (
            "import sys; from cvae_jax import data; "
            "print(data.load('mnist:3.0.1', 'test', sys.argv[1]).shape, "
            "'tensorflow' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tfds_dir)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "(10, 28, 28, 1) False\n"
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
        assert len(data.load("mnist", "test", tfds_dir)) == 1

    def test_formats_that_need_tensorflow_do_not_count(self, tfds_dir):
        folder = tfds_dir / "mnist/3.0.1"
        edit_info(tfds_dir, "array_record", "tfrecord")
        assert prepared.find("mnist", [tfds_dir]) is None
        assert "only TensorFlow reads" in failure(prepared.collection, folder, "test")

    def test_damaged(self, tfds_dir):
        shard = next(tfds_dir.glob("mnist/*/*test.array_record*"))
        whole = shard.read_bytes()
        shard.unlink()
        assert str(shard.parent) in failure(data.load, "mnist", "test", tfds_dir)
        shard.write_bytes(whole[: len(whole) // 2])
        assert str(shard.parent) in failure(data.load, "mnist", "test", tfds_dir)

    def test_resized_and_in_colour(self, tfds_dir, monkeypatch):
        images = data.load("mnist", "test", tfds_dir, image_size=(8, 9), channels=3)
        assert images.shape == (10, 8, 9, 3)
