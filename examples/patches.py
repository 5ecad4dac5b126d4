"""Cuts grey 32x32 patches from the photographs that scikit-image and scikit-learn ship:

    python examples/patches.py patches.npz

Training patches overlap, are mirrored, and come from photographs at full and at half size; test
patches, from two other photographs, do not overlap.  They are shuffled: a collection of small
images, not two photographs in pieces.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np

from cvae_jax import data

TRAIN = (
    "astronaut.png",
    "chelsea.png",
    "coins.png",
    "moon.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "china.jpg",
    "flower.jpg",
)
TEST = ("camera.png", "coffee.png")
SIZE = 32
FOLDERS = (("skimage", "data"), ("sklearn", "datasets/images"))


def patches(photograph: str, stride: int, shrunk: int = 1) -> np.ndarray:
    """uint8 [N, 32, 32], of a photograph that is first made so many times smaller."""
    path = _path(photograph)
    image = data.read_image(path, channels=1)
    if shrunk > 1:
        h, w, _ = image.shape
        image = data.read_image(path, channels=1, image_size=(h // shrunk, w // shrunk))
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (SIZE, SIZE))
    return windows[::stride, ::stride].reshape(-1, SIZE, SIZE)


def _path(photograph: str) -> Path:
    for package, folder in FOLDERS:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(name={"skimage": "scikit-image"}.get(package, "scikit-learn"))
        path = Path(found.origin).parent / folder / photograph
        if path.is_file():
            return path
    raise FileNotFoundError(photograph)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(" that")[0] + ".")
    parser.add_argument("path", type=Path, help="the .npz file to write")
    path = parser.parse_args().path
    try:
        train = np.concatenate(
            [patches(name, SIZE // 4, shrunk) for name in TRAIN for shrunk in (1, 2)]
        )
    except ModuleNotFoundError as error:
        parser.exit(1, f"error: no package {error.name}: pip install {error.name}\n")
    test = np.concatenate([patches(name, SIZE) for name in TEST])
    test = test[np.random.default_rng(0).permutation(len(test))]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x_train=np.concatenate([train, train[:, :, ::-1]]), x_test=test)
    print(f"{path}: {2 * len(train)} training and {len(test)} test patches")


if __name__ == "__main__":
    main()
