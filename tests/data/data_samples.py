"""What several tests of the data have in common.

Test modules take the fixture from here by assignment: the tests import the one ``conftest`` by
name, so there can be no second.
"""

import functools
import json
import os
import struct
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import conftest
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from cvae_jax.data import mnist
from cvae_jax.errors import DataError

SHARED = Path(os.environ.get("CVAE_JAX_DATA") or ROOT.parent / "shared")
needs_idx = pytest.mark.skipif(
    not (SHARED / "data/mnist").is_dir(), reason=f"needs MNIST's IDX files in {SHARED}"
)
needs_tfds = pytest.mark.skipif(
    not (SHARED / "data/tfds").is_dir(), reason=f"needs MNIST prepared by TFDS in {SHARED}"
)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path):
    """No test finds datasets of the person who runs it, or reaches the real mirror."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds-default"))
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:9/mnist/")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


failure = functools.partial(conftest.failure, DataError)


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


def write_tar(path: Path, folder: Path, prefix: str = "") -> Path:
    """A tar of a folder's files, not in their order."""
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.add(file, prefix + file.relative_to(folder).as_posix(), recursive=False)
    return path


def write_zip(
    path: Path, folder: Path, prefix: str = "", method: int = zipfile.ZIP_DEFLATED
) -> Path:
    """The same as a zip."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def write_prepared(folder: Path, images: dict[str, np.ndarray]) -> Path:
    """A dataset as TFDS prepares it, by its name, of other images.

    images: of each split, uint8 ``[N, H, W]`` as of MNIST, or ``[N, H, W, 3]`` as of CIFAR-10:
    there each has an id too.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True)
    tfds, name = "tensorflow_datasets.core.features.", folder.parent.name
    h, w, *channels = next(iter(images.values())).shape[1:]
    shape = {"dimensions": [str(n) for n in (h, w, *(channels or [1]))]}
    image = {"image": {"dtype": "uint8", "shape": shape}}
    label = {"classLabel": {"numClasses": "10"}}
    features = {
        "image": {**image, "pythonClassName": f"{tfds}image_feature.Image"},
        "label": {**label, "pythonClassName": f"{tfds}class_label_feature.ClassLabel"},
    }
    if channels:
        features["id"] = {"text": {}, "pythonClassName": f"{tfds}text_feature.Text"}
    info = {
        "fileFormat": "array_record",
        "moduleName": f"tensorflow_datasets.image_classification.{name}",
        "name": name,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(len(array))],
            }
            for split, array in images.items()
        ],
        "version": folder.name,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    whole = {"featuresDict": {"features": features}}
    whole["pythonClassName"] = f"{tfds}features_dict.FeaturesDict"
    (folder / "features.json").write_text(json.dumps(whole))
    for split, array in images.items():
        shard = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(shard), "group_size:1")
        for pixels in array:
            png = BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            writer.write(_example(png.getvalue(), f"{split}_1" if channels else None))
        writer.close()
    return folder


def _example(png: bytes, number: str | None) -> bytes:
    """A tf.train.Example of an image and the label 7, as protocol buffers put it."""

    def field(number: int, content: bytes) -> bytes:
        size, varint = len(content), b""
        while size > 127:
            varint, size = varint + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + varint + bytes([size]) + content

    entries = [] if number is None else [(b"id", field(1, field(1, number.encode())))]
    entries += [(b"image", field(1, field(1, png))), (b"label", field(3, field(1, b"\x07")))]
    return field(1, b"".join(field(1, field(1, key) + field(2, value)) for key, value in entries))
