"""Which preset fits images: a dense vector of latents for strokes, a map for all else."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

DENSE, MAP = "default", "collection"
MOST_PIXELS = 32 * 32  # of an image for a dense vector, whose layers grow with it
# Of MNIST's pixels 81 % are black; of Fashion-MNIST's, which are more like photographs, 50 %.
SPARSE = 0.6


class Choice(NamedTuple):
    preset: str
    reason: str


def choose(images: np.ndarray) -> Choice:
    """The preset for images like these, uint8 ``[N, H, W, C]``, and why.

    Small grey images of which most pixels are one level get a dense vector.
    """
    _, h, w, channels = images.shape
    if channels > 1:
        return Choice(MAP, "a map of latents, for colour images")
    if h * w > MOST_PIXELS:
        return Choice(MAP, f"a map of latents, for images of more than {MOST_PIXELS} pixels")
    counts = np.bincount(images.ravel(), minlength=256)
    level, share = int(counts.argmax()), counts.max() / images.size
    told = f"{share:.0%} of the pixels are of level {level}"
    if share > SPARSE:
        return Choice(DENSE, f"one dense vector of latents, as {told}")
    return Choice(MAP, f"a map of latents, as only {told}")
