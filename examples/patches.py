"""Cuts grey 32x32 patches from the photographs that scikit-image and scikit-learn ship:

    python examples/patches.py patches.npz

Training patches overlap, of the photographs and of their halves, and are mirrored; test patches,
from two other photographs, do not overlap.  They are shuffled: a collection of small images, not
two photographs in pieces.
"""

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cvae_jax import data

PHOTOGRAPHS = (
    "skimage/data/astronaut.png",
    "skimage/data/chelsea.png",
    "skimage/data/coins.png",
    "skimage/data/moon.png",
    "skimage/data/rocket.jpg",
    "skimage/data/motorcycle_left.png",
)
TRAIN = (
    *PHOTOGRAPHS,
    "skimage/data/brick.png",
    "skimage/data/grass.png",
    "skimage/data/gravel.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
TEST = ("skimage/data/camera.png", "skimage/data/coffee.png")
SIZE = 32
STRIDE = 8  # of training patches


def photograph(path: str) -> np.ndarray:
    """uint8 [H, W]; path: package/file, within the package."""
    package, _, file = path.partition("/")
    (folder,) = importlib.import_module(package).__path__
    return data.read_image(Path(folder) / file, channels=1)[..., 0]


def halved(image: np.ndarray) -> np.ndarray:
    """[H, W] -> [H // 2, W // 2]."""
    h, w = image.shape
    return np.asarray(Image.fromarray(image).resize((w // 2, h // 2), Image.Resampling.LANCZOS))


def patches(image: np.ndarray, stride: int) -> np.ndarray:
    """[H, W] -> [N, 32, 32]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (SIZE, SIZE))
    return windows[::stride, ::stride].reshape(-1, SIZE, SIZE)


def train_patches() -> Iterator[np.ndarray]:
    """[N, 32, 32] of each photograph, and of its half."""
    for path in TRAIN:
        image = photograph(path)
        yield patches(image, STRIDE)
        yield patches(halved(image), STRIDE)


def test_patches() -> np.ndarray:
    """[N, 32, 32]."""
    found = np.concatenate([patches(photograph(path), SIZE) for path in TEST])
    return found[np.random.default_rng(0).permutation(len(found))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(" that")[0] + ".")
    parser.add_argument("path", type=Path, help="the .npz file to write")
    path = parser.parse_args().path
    try:
        train, test = np.concatenate(list(train_patches())), test_patches()
    except ModuleNotFoundError as error:
        library = {"skimage": "scikit-image", "sklearn": "scikit-learn"}.get(error.name or "")
        parser.exit(1, f"error: no package {error.name}: pip install {library}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x_train=np.concatenate([train, train[:, :, ::-1]]), x_test=test)
    print(f"{path}: {2 * len(train)} training and {len(test)} test patches")


if __name__ == "__main__":
    main()
