"""Which way every image is refined, for the fewest bytes, and the refinements of chunks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import CHUNK_IMAGES
from cvae_jax.bitstream.records import ALONE, BASED, RAW, Refinement, crc32c, pixel_bytes
from cvae_jax.coding import streams
from cvae_jax.coding.streams import CodingTables
from cvae_jax.refinement import coder, grid
from cvae_jax.refinement.canvas import near
from cvae_jax.refinement.coder import Coding
from cvae_jax.refinement.integers import ContextModel

# Pixel values in a chunk: few enough that one image is decoded in a moment, for which all of its
# chunk has to be, and enough for a matrix product.
CHUNK_VALUES = 400_000
# Images unlike the training data may take more bytes with a large error than with this one, as what
# is coded already is then all that the model has to go by.
TIGHTER = 4
PREVIEW = 0.05  # share of an image's bytes that having a base, and so a preview, is worth
# Images with so many times what nine in ten take are tried without a base, too: trying all of them
# would take twice as long, and few others win.
UNUSUAL = 1.25


class Base(NamedTuple):
    """What images decode to from symbols, before they are refined."""

    symbols: np.ndarray  # int32 [N, D]
    step: int
    levels: np.ndarray  # uint8 [N, H, W, C]

    def take(self, which: np.ndarray | slice) -> Base:
        return Base(self.symbols[which], self.step, self.levels[which])


class Refined(NamedTuple):
    """A chunk of images."""

    base: Base  # of the images whose mode is BASED
    refinement: Refinement
    images: np.ndarray  # uint8 [n, H, W, C], what a file makes of them


def chunk(
    images: np.ndarray, base: Base | None, tables: CodingTables, model: ContextModel, max_error: int
) -> Refined:
    """The chunk of images, uint8 ``[n, H, W, C]``, at least one.

    base: of all of them; None: they are to be coded without.
    """
    given = images, base, tables, model
    made = _chunk(*given, max_error)
    unlike = (made.refinement.modes != BASED).mean()
    if max_error <= TIGHTER or unlike < 1 / 2:
        return made
    return min(made, _chunk(*given, TIGHTER), key=lambda chunk: len(chunk.refinement.stream))


def chunk_images(values: int, count: int | None = None) -> int:
    """How many images of so many values a chunk has.

    count: of all images, if it is known: then the chunks are of about the same size.
    """
    most = min(max(CHUNK_VALUES // values, 1), CHUNK_IMAGES)
    return -(-count // -(-count // most)) if count else most


def bits(
    images: np.ndarray, base: Base | None, tables: CodingTables, model: ContextModel, max_error: int
) -> np.ndarray:
    """About what each image takes with this base, or without any, if all are coded alike: [N].

    images: as files with that error have them (``canvas.near``).
    """
    if base is None:
        return coder.bits(_alone(images, model, max_error))
    return coder.bits(_based(images, base, model, max_error)) + _symbols_bits(base, tables)


def _alone(images: np.ndarray, model: ContextModel, max_error: int) -> Coding:
    return coder.coding(
        model, images, np.zeros_like(images), np.zeros(len(images), bool), max_error
    )


def _based(images: np.ndarray, base: Base, model: ContextModel, max_error: int) -> Coding:
    return coder.coding(model, images, base.levels, np.ones(len(images), bool), max_error)


def _symbols_bits(base: Base, tables: CodingTables) -> np.ndarray:
    return streams.bits(base.symbols, tables, base.step)


def _chunk(
    images: np.ndarray, base: Base | None, tables: CodingTables, model: ContextModel, max_error: int
) -> Refined:
    n = len(images)
    made = near(images, max_error) if max_error else images.copy()
    modes = np.full(n, ALONE if base is None else BASED, np.uint8)
    raw = images[0].size * np.log2(grid.cells(max_error))
    if base is not None:
        coded = _based(made, base, model, max_error)
        price = coder.bits(coded) + _symbols_bits(base, tables)
        # Trying all of them without a base would take twice as long.
        unusual = np.flatnonzero(price > model.usual * raw)
        alone = _alone(made[unusual], model, max_error)
        price_alone = coder.bits(alone)
        better = price_alone < price[unusual] * (1 - PREVIEW)
        which = unusual[better]
        modes[which], price[which] = ALONE, price_alone[better]
        for field, by in zip(coded, alone, strict=True):
            field[:, which] = by[:, better]
    else:
        coded = _alone(made, model, max_error)
        price = coder.bits(coded)
    modes[price > raw] = RAW
    modelled = modes != RAW
    stream = coder.encode(coded.take(modelled), images[~modelled], max_error)
    made[~modelled] = coder.evenly(images[~modelled], max_error)
    crc = crc32c(pixel_bytes(made))
    refinement = Refinement(max_error, model.digest[:16], crc, modes, stream)
    if base is None:
        base = Base(np.empty((0, tables.latent_dim), np.int32), 1, images[:0])
    return Refined(base.take(modes[: len(base.symbols)] == BASED), refinement, made)
