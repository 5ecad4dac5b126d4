"""Images while they are coded, pixel by pixel, and what is known when it comes to each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cvae_jax.refinement import neighbours
from cvae_jax.refinement.grid import Grid
from cvae_jax.refinement.neighbours import AROUND, CAUSAL, CAUSAL_RUNS, CORNER, LEFT, MARGIN, UP


class Place(NamedTuple):
    row: int
    column: int
    channel: int


class Canvas:
    """n images, black at first."""

    def __init__(self, image_shape: tuple[int, int, int], n: int):
        h, w, channels = image_shape
        self._pixels = np.zeros((channels, h + 2 * MARGIN, w + 2 * MARGIN, n), np.uint8)
        self._missed = np.zeros((h, w, n), np.int16)  # `neighbours.missed` of the channel before

    def places(self) -> Iterator[Place]:
        """Every pixel in the order of coding: channel by channel, row by row."""
        h, w, _ = self._missed.shape
        for channel in range(len(self._pixels)):
            if channel:
                self._missed = neighbours.missed(self._pixels[channel - 1 : channel])[0]
            for row in range(h):
                for column in range(w):
                    yield Place(row, column, channel)

    def set(self, place: Place, levels: np.ndarray) -> None:
        """levels: uint8 ``[n]``."""
        self._pixels[place.channel, place.row + MARGIN, place.column + MARGIN] = levels

    def expected(self, place: Place) -> np.ndarray:
        """The level that a pixel is likely to have, uint8 ``[n]``."""
        row, column, channel = place
        left, up, corner = (
            self._pixels[channel, row + MARGIN + down, column + MARGIN + right]
            for down, right in (CAUSAL[LEFT], CAUSAL[UP], CAUSAL[CORNER])
        )
        shift = self._missed[row, column] if channel else 0
        return neighbours.expected(left, up, corner, shift).astype(np.uint8)

    def values(self, place: Place, base: np.ndarray, out: np.ndarray) -> None:
        """Puts a pixel's neighbours into the rows of ``out``, uint8 ``[V, n]`` or wider.

        base: as ``neighbours.padded`` makes it.  Rows of channels that are not there yet stay.
        """
        row, column, channel = place
        n, at = self._pixels.shape[-1], 0
        for down, low, high in CAUSAL_RUNS:
            columns = slice(column + MARGIN + low, column + MARGIN + high)
            out[at : at + high - low, :n] = self._pixels[channel, row + MARGIN + down, columns]
            at += high - low
        rows, columns = (slice(x + MARGIN - 1, x + MARGIN + 2) for x in (row, column))
        for image in (base[channel], *self._pixels[:channel]):
            out[at : at + len(AROUND), :n] = image[rows, columns].reshape(len(AROUND), n)
            at += len(AROUND)

    def images(self) -> np.ndarray:
        """uint8 ``[n, H, W, C]``."""
        inner = slice(MARGIN, -MARGIN)
        return np.ascontiguousarray(self._pixels[:, inner, inner].transpose(3, 1, 2, 0))


def near(images: np.ndarray, max_error: int) -> np.ndarray:
    """What a file with this largest error makes of images, uint8 ``[n, H, W, C]``."""
    by_pixel = np.ascontiguousarray(images.transpose(3, 1, 2, 0))
    canvas = Canvas(images.shape[1:], len(images))
    for place in canvas.places():
        grid = Grid(canvas.expected(place), max_error)
        levels = by_pixel[place.channel, place.row, place.column]
        canvas.set(place, grid.level(grid.cell(levels)))
    return canvas.images()
