"""Cuts grey 32x32 patches from the photographs that scikit-image ships:

    python examples/patches.py patches.npz

Training patches overlap by half and are mirrored; test patches, from two other photographs, do
not overlap.  They are shuffled: a collection of small images, not two photographs in pieces.
"""

import argparse
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
)
TEST = ("camera.png", "coffee.png")
SIZE = 32


def patches(photograph: str, stride: int) -> np.ndarray:
    """uint8 [N, 32, 32]."""
    import skimage

    image = data.read_image(Path(skimage.__file__).parent / "data" / photograph, channels=1)
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (SIZE, SIZE))
    return windows[::stride, ::stride].reshape(-1, SIZE, SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(" that")[0] + ".")
    parser.add_argument("path", type=Path, help="the .npz file to write")
    path = parser.parse_args().path
    try:
        train = np.concatenate([patches(name, SIZE // 2) for name in TRAIN])
    except ModuleNotFoundError as error:
        parser.exit(1, f"error: no package {error.name}: pip install scikit-image\n")
    test = np.concatenate([patches(name, SIZE) for name in TEST])
    test = test[np.random.default_rng(0).permutation(len(test))]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x_train=np.concatenate([train, train[:, :, ::-1]]), x_test=test)
    print(f"{path}: {2 * len(train)} training and {len(test)} test patches")


if __name__ == "__main__":
    main()
