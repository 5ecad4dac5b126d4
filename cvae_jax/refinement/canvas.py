"""Images while they are coded, pixel by pixel, and what is known when it comes to each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cvae_jax.refinement import neighbours
from cvae_jax.refinement.grid import Grid
from cvae_jax.refinement.neighbours import AROUND, CAUSAL, CAUSAL_RUNS, CORNER, LEFT, MARGIN, UP


class Span(NamedTuple):
    """Places side by side.  A decoder has to go place by place; an encoder knows all pixels."""

    channel: int
    row: int
    column: int  # of the first
    width: int


class Canvas:
    """n images, black at first, and their base."""

    def __init__(self, base: np.ndarray):
        """base: uint8 ``[n, H, W, C]``, 0 where there is none."""
        n, h, w, channels = base.shape
        self._pixels = np.zeros((channels, h + 2 * MARGIN, w + 2 * MARGIN, n), np.uint8)
        # `neighbours.missed` of the channel before the one that is being coded.
        self._missed = np.zeros((h, w, n), np.int16)
        # Each run of causal pixels, of every pixel: [run, C, H, W, n].
        self._causal = [
            np.moveaxis(sliding_window_view(self._pixels, high - low, axis=2), -1, 0)[
                :, :, MARGIN + down :, MARGIN + low :
            ]
            for down, low, high in CAUSAL_RUNS
        ]
        self._around, self._around_base = (
            np.moveaxis(sliding_window_view(x, (3, 3), axis=(1, 2)), (-2, -1), (0, 1))[
                :, :, :, MARGIN - 1 :, MARGIN - 1 :
            ]
            for x in (self._pixels, neighbours.padded(neighbours.coarse(base)))
        )

    def spans(self, width: int = 1) -> Iterator[Span]:
        """All places in the order of coding, channel by channel, row by row; as many at once as
        ``width``, which is more only where the images are ``put`` already."""
        h, w, _ = self._missed.shape
        for channel in range(len(self._pixels)):
            if channel:
                self._missed = neighbours.missed(self._pixels[channel - 1 : channel])[0]
            for row in range(h):
                for column in range(0, w, width):
                    yield Span(channel, row, column, min(width, w - column))

    def levels(self, span: Span) -> np.ndarray:
        """uint8 ``[width, n]``, also to write to."""
        return self._pixels[span.channel, span.row + MARGIN, _columns(span, MARGIN)]

    def expected(self, span: Span) -> np.ndarray:
        """The level that each pixel is likely to have, uint8 ``[width, n]``."""
        left, up, corner = (
            self._pixels[span.channel, span.row + MARGIN + down, _columns(span, MARGIN + right)]
            for down, right in (CAUSAL[LEFT], CAUSAL[UP], CAUSAL[CORNER])
        )
        shift = self._missed[span.row, _columns(span)] if span.channel else None
        return neighbours.expected(left, up, corner, shift).astype(np.uint8)

    def values(self, span: Span, out: np.ndarray) -> None:
        """Puts the pixels' neighbours into ``out``, uint8 ``[V, width, n]``.

        Those in channels that are not there yet stay.
        """
        row, columns, at = span.row, _columns(span), 0
        for run in self._causal:
            out[at : at + len(run)] = run[:, span.channel, row, columns]
            at += len(run)
        earlier = [(self._around, channel) for channel in range(span.channel)]
        for around, channel in ((self._around_base, span.channel), *earlier):
            rows = out[at : at + len(AROUND)].reshape(3, 3, *out.shape[1:])
            rows[...] = around[:, :, channel, row, columns]
            at += len(AROUND)

    def put(self, images: np.ndarray) -> None:
        """images: uint8 ``[n, H, W, C]``."""
        self._inner[...] = images.transpose(3, 1, 2, 0)

    @property
    def images(self) -> np.ndarray:
        """uint8 ``[n, H, W, C]``."""
        return np.ascontiguousarray(self._inner.transpose(3, 1, 2, 0))

    @property
    def _inner(self) -> np.ndarray:
        inner = slice(MARGIN, -MARGIN)
        return self._pixels[:, inner, inner]


def _columns(span: Span, right: int = 0) -> slice:
    return slice(span.column + right, span.column + right + span.width)


def near(images: np.ndarray, max_error: int) -> np.ndarray:
    """What a file with this largest error makes of images, uint8 ``[n, H, W, C]``."""
    by_pixel = np.ascontiguousarray(images.transpose(3, 1, 2, 0))
    canvas = Canvas(np.zeros_like(images))
    for span in canvas.spans():
        grid = Grid(canvas.expected(span), max_error)
        levels = by_pixel[span.channel, span.row, _columns(span)]
        canvas.levels(span)[...] = grid.level(grid.cell(levels))
    return canvas.images
