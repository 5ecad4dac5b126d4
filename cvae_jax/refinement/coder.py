"""Images to a refinement and back: pixel by pixel, all images of a chunk in step.

An image is coded with the base in sight, without it, or as it is (`BASED`, `ALONE`, `RAW`).  For
every pixel, the stream holds whether it is the expected one, image by image; then, of those that
are not, which; then the pixels of raw images.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import constriction
import numpy as np

from cvae_jax.batching import Stopped, mapped, products_in_one_thread
from cvae_jax.bitstream.records import BASED, RAW, Refinement
from cvae_jax.coding.integers.frequencies import (
    EACH_ITS_OWN,
    TOTAL,
    ans_decoder,
    ans_words,
    categorical,
    push,
)
from cvae_jax.errors import FormatError
from cvae_jax.refinement import grid, neighbours
from cvae_jax.refinement.canvas import Canvas, Span
from cvae_jax.refinement.grid import Grid
from cvae_jax.refinement.integers import ContextModel, Frequencies, frequencies, interval

# What a place in the images takes, whatever their number, and a level that is not the expected one:
# in distributions, of a model of UNIT multiply-adds.
PLACE, MISSED, UNIT = 100, 6, 1 << 16
BLOCK = 4096  # pixels whose distributions are in memory at once


class Coding(NamedTuple):
    """How every pixel of n images is coded, in the order of decoding, for an encoder."""

    missed: np.ndarray  # bool [P, n], whether it is not in the expected cell
    hit: np.ndarray  # float64 [P, n], frequency of that cell
    start: np.ndarray  # float64 [P, n], where missed: sum of the frequencies below its cell
    frequency: np.ndarray  # float64 [P, n], where missed

    def take(self, which: np.ndarray) -> Coding:
        """Of some of the images."""
        return Coding(*(field[:, which] for field in self))


class _Views:
    """The distributions of the pixels of n images while they are coded."""

    def __init__(
        self,
        model: ContextModel,
        base: np.ndarray,
        based: np.ndarray,
        max_error: int,
        width: int = 1,
    ):
        """base: uint8 ``[n, H, W, C]``, 0 where not ``based``, bool ``[n]``; width: of spans."""
        n, self._width = len(based), width
        self.canvas = Canvas(base)
        self._frequencies, self._max_error = Frequencies(model, max_error), max_error
        # Where all neighbours are 0, the images differ by nothing but whether there is a base: two
        # columns, the first ones, stand for all of them at a place.
        self._silent = np.arange(2 * width)
        self._of_silent = (2 * np.arange(width)[:, None] + based).ravel()
        self._based = np.concatenate([np.tile([False, True], width), np.tile(based, width)])
        self._places = np.repeat(np.tile(np.arange(width), 2), [2] * width + [n] * width)
        count = neighbours.values(model.image_shape[2])
        self._values = np.zeros((count, 2 * width + width * n), np.uint8)
        self._telling = self._values[:, 2 * width :].reshape(count, width, n)

    def __iter__(self) -> Iterator[tuple[Span, _View]]:
        """Each span, once all pixels before it are in the canvas."""
        for span in self.canvas.spans(self._width):
            yield span, self._view(span)

    def _view(self, span: Span) -> _View:
        canvas, width = self.canvas, span.width
        canvas.values(span, self._telling[:, :width])
        expected = canvas.expected(span).ravel()
        first = 2 * self._width
        telling = np.flatnonzero(self._values[:, first : first + len(expected)].any(0))
        column = self._of_silent[: len(expected)].copy()
        column[telling] = np.arange(2 * width, 2 * width + len(telling))
        shown = np.concatenate([self._silent[: 2 * width], telling + first])
        of_shown = np.concatenate([np.zeros(2 * width, np.uint8), expected[telling]])
        hidden = self._frequencies.hidden(
            self._values[:, shown], of_shown, self._based[shown], self._places[shown], span
        )
        return _View(self._frequencies, hidden, of_shown, column, expected, self._max_error)


class _View:
    """The distributions of the pixels of a span, of every image: [width * n] in all."""

    def __init__(
        self,
        frequencies: Frequencies,
        hidden: np.ndarray,
        of_column: np.ndarray,
        column: np.ndarray,
        expected: np.ndarray,
        max_error: int,
    ):
        """hidden: float32 ``[h, columns]``; of_column: the level that each expects; column: int
        ``[width * n]``, each pixel's."""
        self._frequencies, self._hidden, self._column = frequencies, hidden, column
        self._expected, self.grid = expected, Grid(expected, max_error)
        self.columns = len(of_column)
        hit = frequencies.hit(hidden)
        self._weights: np.ndarray | None = None  # of the cells of each column
        if max_error:
            self._weights = np.empty((self.columns, self.grid.cells))
            for block in _blocks(np.arange(self.columns)):
                of_block = of_column[block]
                weights = frequencies.others(hidden[:, block], of_block)
                hit[block], self._weights[block] = frequencies.cells_of(
                    hit[block], weights, Grid(of_block, max_error)
                )
        self.hit = hit[column]

    def others(self, pixels: np.ndarray) -> np.ndarray:
        """Weights of all cells, of pixels that are not in the expected one."""
        columns = self._column[pixels]
        if self._weights is not None:
            return self._weights[columns]
        return self._frequencies.others(self._hidden[:, columns], self._expected[pixels])


def _blocks(which: np.ndarray) -> list[np.ndarray]:
    return [which[k : k + BLOCK] for k in range(0, len(which), BLOCK)]


@products_in_one_thread()
def coding(
    model: ContextModel, images: np.ndarray, base: np.ndarray, based: np.ndarray, max_error: int
) -> Coding:
    """How images are coded that are not raw.

    images: uint8 ``[n, H, W, C]``, as files with that error have them (``canvas.near``); base: the
    same, 0 where not ``based``, bool ``[n]``.
    """
    views = _Views(model, base, based, max_error, max(BLOCK // max(len(images), 1), 1))
    views.canvas.put(images)
    parts = []
    for span, view in views:
        cell = view.grid.cell(views.canvas.levels(span).ravel())
        missed = cell != view.grid.of_expected
        which = np.flatnonzero(missed)
        part = Coding(missed, view.hit, *np.zeros((2, len(missed))))
        part.start[which], part.frequency[which] = interval(view.others(which), cell[which])
        parts.append(part)
    shape = (math.prod(model.image_shape), len(images))
    return Coding(*(np.concatenate(field).reshape(shape) for field in zip(*parts, strict=True)))


def bits(coded: Coding) -> np.ndarray:
    """Bits that a perfect coder spends on each image, ``[n]``."""
    missed, hit, _, frequency = coded
    price = np.where(missed, (TOTAL - hit) * (frequency / TOTAL), hit)
    return -np.log2(price / TOTAL).sum(0)


def encode(coded: Coding, raw: np.ndarray, max_error: int) -> bytes:
    """The stream of images coded so, and of raw ones, uint8 ``[m, H, W, C]``."""
    coder = constriction.stream.stack.AnsCoder()
    raw_cells = _even_grid(raw.size, max_error).cell(raw.transpose(3, 1, 2, 0).ravel())
    raw_cells = raw_cells.reshape(len(coded.hit), -1).astype(np.int32)
    uniform = _uniform(max_error)
    for missed, hit, start, frequency, cells in zip(
        *(reversed(field) for field in coded), reversed(raw_cells), strict=True
    ):
        if len(cells):
            coder.encode_reverse(cells, uniform)
        if missed.any():
            push(coder, start[missed], frequency[missed])
        if len(hit):
            coder.encode_reverse(missed.astype(np.int32), EACH_ITS_OWN, _hit_or_not(hit))
    return coder.get_compressed().astype("<u4").tobytes()


@products_in_one_thread()
def decode(
    stream: bytes,
    modes: np.ndarray,
    base: np.ndarray,
    max_error: int,
    model: ContextModel,
    spend: Callable[[int], None] = lambda cost: None,
) -> np.ndarray:
    """The inverse of ``encode``: uint8 ``[N, H, W, C]``.

    modes: uint8 ``[N]``; base: uint8 ``[b, H, W, C]`` of the BASED images; spend: told
    what it costs, in distributions, from time to time.

    Raises:
      FormatError: the stream is not one that this model can produce.
    """
    coder = ans_decoder(ans_words(stream, "a refinement"), "a refinement")
    modelled = np.flatnonzero(modes != RAW)
    based = modes[modelled] == BASED
    whole_base = np.zeros((len(modelled), *model.image_shape), np.uint8)
    whole_base[based] = base
    views = _Views(model, whole_base, based, max_error)
    h, w, channels = model.image_shape
    raw = np.empty((len(modes) - len(modelled), channels, h, w), np.uint8)
    uniform = _uniform(max_error)
    even = _even_grid(len(raw), max_error)
    size = -(-model.pixel_work // UNIT)
    for span, view in views:
        spend(PLACE + view.columns * (size + MISSED * (max_error > 0)))
        cells = view.grid.of_expected.copy()
        if len(modelled):
            which = np.flatnonzero(coder.decode(EACH_ITS_OWN, _hit_or_not(view.hit)))
            spend(MISSED * len(which))
            for block in _blocks(which):
                of_block = frequencies(view.others(block))
                cells[block] = coder.decode(EACH_ITS_OWN, of_block)
        views.canvas.levels(span)[0] = view.grid.level(cells)
        if len(raw):
            raw[:, span.channel, span.row, span.column] = even.level(
                coder.decode(uniform, len(raw))
            )
    if not coder.is_empty():
        raise FormatError("a refinement with something left over")
    out = np.empty((len(modes), *model.image_shape), np.uint8)
    out[modelled], out[modes == RAW] = views.canvas.images, raw.transpose(0, 2, 3, 1)
    return out


def evenly(images: np.ndarray, max_error: int) -> np.ndarray:
    """What a file makes of raw images, uint8 of any shape."""
    grid = _even_grid(images.size, max_error)
    return grid.level(grid.cell(images.ravel())).reshape(images.shape)


def chunk_decoder(model: ContextModel) -> Callable:
    """``Context.refine`` of a context model."""

    def images_of(
        refinements: Iterable[tuple[Refinement, np.ndarray]], spend: Callable[[int], None]
    ) -> Iterator[np.ndarray]:
        stop = threading.Event()

        def spend_or_stop(cost: int) -> None:
            if stop.is_set():
                raise Stopped
            spend(cost)

        def one(given: tuple[Refinement, np.ndarray]) -> np.ndarray:
            (bound, _, _, modes, stream), base = given
            return decode(stream, modes, base, bound, model, spend_or_stop)

        return mapped(one, refinements, stop)

    return images_of


def _even_grid(n: int, max_error: int) -> Grid:
    """Of n pixels of which nothing is expected."""
    return Grid(np.zeros(n, np.uint8), max_error)


def _hit_or_not(hit: np.ndarray) -> np.ndarray:
    """The coder's weights of the expected cell, given its frequency, and of all others: [n, 2]."""
    weights = np.empty((len(hit), 2))
    np.subtract(hit, 1, out=weights[:, 0])
    np.subtract(TOTAL - 1, hit, out=weights[:, 1])
    return weights


def _uniform(max_error: int) -> object:
    """Of the cells of raw images: as even as they can be."""
    sums = np.arange(grid.cells(max_error) + 1) * TOTAL // grid.cells(max_error)
    return categorical(np.diff(sums))
