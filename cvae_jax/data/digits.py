"""scikit-learn's 1,797 handwritten digits, converted to MNIST's form."""

from __future__ import annotations

import numpy as np

from cvae_jax.data import splits
from cvae_jax.errors import needs

SIZE, BOX = (
    28,
    20,
)  # MNIST: strokes fit a 20x20 box, with their centre of mass in the middle of 28x28
SCALE = 8
INK = (76, 178)  # of the interpolated picture, 0..255: paper below, full ink above


def load(split: str) -> np.ndarray:
    """The digits, white on black.

    Each 8x8 picture counts the ink in the 4x4 blocks of a 32x32 bitmap (UCI "Optical
    Recognition of Handwritten Digits").  It is interpolated, sharpened back into a stroke
    with a narrow edge, cropped to the stroke, scaled to fit the box with its aspect ratio
    kept, and centred, as http://yann.lecun.com/exdb/mnist describes for MNIST.

    Returns:
      uint8 [N, 28, 28, 1].  One in ten is for testing (:mod:`cvae_jax.data.splits`).

    Raises:
      InstallError: scikit-learn is missing.
    """
    with needs("train", "the dataset digits"):
        from sklearn.datasets import load_digits

    counts = load_digits().images  # [1797, 8, 8] in 0..16
    keep = splits.member(len(counts), split)
    return np.stack([_mnist_form(image) for image in counts[keep]])[..., None]


def _mnist_form(counts: np.ndarray) -> np.ndarray:
    """[8, 8] in 0..16 -> uint8 [28, 28]; Pillow's 8-bit arithmetic is the same everywhere."""
    from PIL import Image

    padded = np.pad(np.round(counts * (255 / 16)).astype(np.uint8), 1)  # room for the edges
    side = SCALE * len(padded)
    fine = Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC)
    low, high = INK
    levels = np.clip((np.arange(256) - low) * 255 // (high - low), 0, 255).astype(np.uint8)
    ink = levels[np.asarray(fine)]

    rows, columns = (np.flatnonzero((ink >= 128).any(axis)) for axis in (1, 0))
    stroke = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(stroke.shape)
    h, w = (max(1, round(n * scale)) for n in stroke.shape)
    small = np.asarray(Image.fromarray(stroke).resize((w, h), Image.Resampling.LANCZOS))

    top, left = (_offset(small.sum(axis), n) for axis, n in ((1, h), (0, w)))
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[top : top + h, left : left + w] = small
    return image


def _offset(mass: np.ndarray, length: int) -> int:
    """Where a stroke must begin so that its mass along one axis is balanced in the frame."""
    centre = (mass * (np.arange(length) + 0.5)).sum() / mass.sum()
    return int(np.clip(round(SIZE / 2 - centre), 0, SIZE - length))
