"""Images to a refinement and back: pixel by pixel, all images of a chunk in step.

An image is coded with the base in sight, without it, or as it is (`BASED`, `ALONE`, `RAW`).  For
every pixel, the stream holds whether it is the expected one, image by image; then, of those that
are not, which; then the pixels of raw images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import constriction
import numpy as np

from cvae_jax.bitstream.records import BASED, RAW, Refinement
from cvae_jax.coding.frequencies import (
    EACH_ITS_OWN,
    TOTAL,
    ans_decoder,
    ans_words,
    categorical,
    weights_of,
)
from cvae_jax.errors import FormatError
from cvae_jax.refinement import grid, neighbours
from cvae_jax.refinement.canvas import Canvas, Place
from cvae_jax.refinement.grid import Grid
from cvae_jax.refinement.integers import ContextModel, Frequencies, frequencies, interval
from cvae_jax.refinement.parallel import Stopped, mapped

# What a place in the images takes, whatever their number, and a level that is not the expected one:
# in distributions, of a model of UNIT multiply-adds.
PLACE, MISSED, UNIT = 100, 6, 1 << 16
BLOCK = 1024  # distributions of all levels in memory at once


class Step(NamedTuple):
    """The coding of one pixel of every image, for an encoder."""

    missed: np.ndarray  # bool [n], of the images that are not raw
    hit: np.ndarray  # float64 [n], frequency of the expected cell
    start: np.ndarray  # float64 [missed], sum of the frequencies below the cell that it has
    frequency: np.ndarray  # float64 [missed]


class _Views:
    """The distributions of the pixels of n images while they are coded."""

    def __init__(self, model: ContextModel, base: np.ndarray, based: np.ndarray, max_error: int):
        """base: uint8 ``[n, H, W, C]``, 0 where not ``based``, bool ``[n]``."""
        n, channels = len(based), model.image_shape[2]
        self.canvas = Canvas(model.image_shape, n)
        self._frequencies, self._max_error = Frequencies(model, max_error), max_error
        self._base, self._based = neighbours.padded(neighbours.coarse(base)), based
        self._values = np.zeros((neighbours.values(channels), n + 2), np.uint8)

    def __iter__(self) -> Iterator[tuple[Place, _View]]:
        """Each place, once all pixels before it are set in the canvas."""
        for place in self.canvas.places():
            yield place, self._view(place)

    def _view(self, place: Place) -> _View:
        values, n = self._values, len(self._based)
        self.canvas.values(place, self._base, values)
        expected = self.canvas.expected(place)
        # Where all neighbours are 0, images differ by nothing but whether there is a base: the two
        # last columns stand for all of them.
        telling = np.flatnonzero(values[:, :n].any(0))
        columns = np.concatenate([telling, [n, n + 1]])
        where = len(telling) + self._based.astype(np.intp)
        where[telling] = np.arange(len(telling))
        some = np.concatenate([expected[telling], np.zeros(2, np.uint8)])
        based = np.concatenate([self._based[telling], [False, True]])
        hidden = self._frequencies.hidden(values[:, columns], some, based, place)
        return _View(self._frequencies, hidden, some, where, expected, self._max_error)


class _View:
    """The distributions of one pixel of every image."""

    def __init__(
        self,
        frequencies: Frequencies,
        hidden: np.ndarray,
        of_column: np.ndarray,
        where: np.ndarray,
        expected: np.ndarray,
        max_error: int,
    ):
        """hidden: float32 ``[h, columns]``; of_column: the level that each expects; where: int
        ``[n]``, each image's column."""
        self._frequencies, self._hidden, self._where = frequencies, hidden, where
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
        self.hit = hit[where]

    def others(self, images: np.ndarray) -> np.ndarray:
        """Weights of all cells, of images whose pixel is not in the expected one."""
        columns = self._where[images]
        if self._weights is not None:
            return self._weights[columns]
        return self._frequencies.others(self._hidden[:, columns], self._expected[images])


def _blocks(which: np.ndarray) -> list[np.ndarray]:
    return [which[k : k + BLOCK] for k in range(0, len(which), BLOCK)]


def steps(
    model: ContextModel, images: np.ndarray, base: np.ndarray, based: np.ndarray, max_error: int
) -> Iterator[Step]:
    """How every pixel is coded of images that are not raw, in the order of coding.

    images: uint8 ``[n, H, W, C]``; base: the same, 0 where not ``based``, bool ``[n]``.
    """
    views = _Views(model, base, based, max_error)
    by_pixel = np.ascontiguousarray(images.transpose(3, 1, 2, 0))
    for place, view in views:
        cell = view.grid.cell(by_pixel[place.channel, place.row, place.column])
        views.canvas.set(place, view.grid.level(cell))
        missed = cell != view.grid.of_expected
        which = np.flatnonzero(missed)
        yield Step(missed, view.hit, *interval(view.others(which), cell[which]))


def bits(coded: list[Step]) -> np.ndarray:
    """Bits that a perfect coder spends on each image, ``[n]``."""
    out = np.zeros(len(coded[0].hit)) if coded else np.zeros(0)
    for step in coded:
        price = np.where(step.missed, TOTAL - step.hit, step.hit)
        price[step.missed] *= step.frequency / TOTAL
        out -= np.log2(price / TOTAL)
    return out


def encode(coded: list[Step], raw: np.ndarray, max_error: int) -> bytes:
    """The stream of images whose ``steps`` these are, and of raw ones, uint8 ``[m, H, W, C]``."""
    coder = constriction.stream.stack.AnsCoder()
    raw_cells = _even_grid(raw.size, max_error).cell(raw.transpose(3, 1, 2, 0).ravel())
    raw_cells = raw_cells.reshape(len(coded), -1)
    uniform = _uniform(max_error)
    for step, cells in zip(reversed(coded), raw_cells[::-1], strict=True):
        if len(cells):
            coder.encode_reverse(cells.astype(np.int32), uniform)
        if len(step.start):
            _push(coder, step.start, step.frequency)
        if len(step.hit):
            coder.encode_reverse(step.missed.astype(np.int32), EACH_ITS_OWN, _hit_or_not(step.hit))
    return coder.get_compressed().astype("<u4").tobytes()


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
    for place, view in views:
        spend(PLACE + view.columns * (size + MISSED * (max_error > 0)))
        cells = view.grid.of_expected.copy()
        if len(modelled):
            which = np.flatnonzero(coder.decode(EACH_ITS_OWN, _hit_or_not(view.hit)))
            spend(MISSED * len(which))
            for block in _blocks(which):
                of_block = weights_of(frequencies(view.others(block)))
                cells[block] = coder.decode(EACH_ITS_OWN, of_block)
        views.canvas.set(place, view.grid.level(cells))
        if len(raw):
            raw[:, place.channel, place.row, place.column] = even.level(
                coder.decode(uniform, len(raw))
            )
    if not coder.is_empty():
        raise FormatError("a refinement with something left over")
    out = np.empty((len(modes), *model.image_shape), np.uint8)
    out[modelled], out[modes == RAW] = views.canvas.images(), raw.transpose(0, 2, 3, 1)
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
    return weights_of(np.stack([hit, TOTAL - hit], axis=1))


def _push(
    coder: constriction.stream.stack.AnsCoder, start: np.ndarray, frequency: np.ndarray
) -> None:
    """Pushes symbols of given sums below and frequencies, as one of three: what is below them, they
    themselves, what is above.  None of the three may be empty, so that two are where one would."""
    below, above = start, TOTAL - start - frequency
    symbol = np.where(below == 0, 0, np.where(above == 0, 2, 1))
    columns = [
        np.where(symbol == 0, frequency, np.where(symbol == 2, below - 1, below)),
        np.where(symbol == 0, 1, np.where(symbol == 2, 1, frequency)),
        np.where(symbol == 0, above - 1, np.where(symbol == 2, frequency, above)),
    ]
    weights = weights_of(np.stack(columns, axis=1))
    coder.encode_reverse(symbol.astype(np.int32), EACH_ITS_OWN, weights)


def _uniform(max_error: int) -> object:
    """Of the cells of raw images: as even as they can be."""
    sums = np.arange(grid.cells(max_error) + 1) * TOTAL // grid.cells(max_error)
    return categorical(np.diff(sums))
