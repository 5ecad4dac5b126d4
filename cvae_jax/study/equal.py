"""What PNG, WebP and AVIF, by Pillow, take for images at the error that another codec makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cvae_jax import metrics
from cvae_jax.data.image_files import sheet
from cvae_jax.study.classical import Pillow, cut, pillow

BEST = 100  # quality, of the formats that have one
OWN, SHEET = "own files", "one sheet"


class Point(NamedTuple):
    """Real files at one quality."""

    quality: int
    bytes_per_image: float
    mse: float


class Other(NamedTuple):
    """A format's files at the error that is asked for.

    Qualities are whole numbers: between the two whose errors enclose it, the logarithm of the error
    is taken to fall in proportion to bytes.  ``points``: those two; one, where even the lowest
    quality errs less, or the highest more; none of a lossless format.
    """

    name: str
    regime: str  # OWN or SHEET
    bytes_per_image: float
    mse: float
    points: Sequence[Point]

    @property
    def quality(self) -> str:
        """The quality, or the two that it is between."""
        return "-".join(str(point.quality) for point in self.points) or "lossless"


def others(images: np.ndarray, mse: float) -> list[Other]:
    """Each format that Pillow writes, in files of single images and as one sheet.

    images: uint8 ``[N, H, W, C]`` with 1 or 3 channels; mse: of levels counted as 0 to 1.
    """
    found = []
    for codec in pillow(images.shape[3]):
        for regime, pictures in ((OWN, list(images)), (SHEET, [sheet(images)])):
            if max(pictures[0].shape[:2]) > codec.largest:
                continue
            found.append(_at(codec, regime, pictures, images, mse))
    return found


def _at(
    codec: Pillow, regime: str, pictures: Sequence[np.ndarray], images: np.ndarray, mse: float
) -> Other:
    if codec.lossless:
        size = sum(len(codec.encode(picture, BEST)) for picture in pictures) / len(images)
        return Other(codec.name, regime, size, 0.0, ())

    def measured(quality: int) -> Point:
        files = [codec.encode(picture, quality) for picture in pictures]
        decoded = np.stack([codec.decode(file) for file in files])
        if regime == SHEET:
            decoded = cut(decoded[0], images.shape)
        each = sum(map(len, files)) / len(images)
        return Point(quality, each, metrics.mse_of_levels(decoded, images))

    points = enclosing(measured, mse)
    return Other(codec.name, regime, *between(points, mse), points)


def enclosing(measured: Callable[[int], Point], mse: float) -> tuple[Point, ...]:
    """The points of two neighbouring qualities, of which the lower errs more than ``mse`` and the
    other does not; or the lowest quality's alone, or the highest's, where none is beyond it."""
    low, high = measured(0), measured(BEST)
    if low.mse <= mse:
        return (low,)
    if high.mse > mse:
        return (high,)
    while high.quality - low.quality > 1:
        point = measured((low.quality + high.quality) // 2)
        low, high = (point, high) if point.mse > mse else (low, point)
    return low, high


def between(points: Sequence[Point], mse: float) -> tuple[float, float]:
    """Bytes per image, and the error that they are for: ``mse``, between two points."""
    low, high = points[0], points[-1]
    if len(points) == 1 or not 0 < high.mse < low.mse:
        return high.bytes_per_image, high.mse
    share = math.log(low.mse / mse) / math.log(low.mse / high.mse)
    return low.bytes_per_image + share * (high.bytes_per_image - low.bytes_per_image), mse
