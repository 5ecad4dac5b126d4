"""What several tests of the data have in common.

Test modules take the fixture from here by assignment: the tests import the one ``conftest`` by
name, so there can be no second.
"""

import os
import struct
from pathlib import Path

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
needs_seed = pytest.mark.skipif(
    not (SHARED / "seed").is_dir(), reason=f"needs the sample images in {SHARED}"
)


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
