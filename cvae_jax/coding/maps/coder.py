"""Latents of maps to symbols, to bytes and back: wave by wave, group by group, images in step.

What is expected of a latent follows from those before it, so that whoever reads or writes symbols
walks over the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import constriction
import numpy as np

from cvae_jax.batching import products_in_one_thread
from cvae_jax.coding.integers import escapes
from cvae_jax.coding.integers.frequencies import (
    BYTE,
    ArithmeticEncoder,
    push,
)
from cvae_jax.coding.maps.network import BORDER, Network
from cvae_jax.coding.maps.prior import DELAY, WIDTHS, MapPrior, Places
from cvae_jax.coding.vectors import entropy
from cvae_jax.coding.vectors.tables import LOOKUPS, MAX_MADE, Book
from cvae_jax.errors import FormatError

# What a squared error of one step is worth, in bits.  More than on a codec's own curve of rate and
# distortion: its decoder has learned of errors of half a step at most.
ERROR_BITS = 20
PRICED = 40  # symbols whose prices are looked up, to either side of 0; others get the nearest
_MULTIPLY_ADDS = 1 << 10  # of the network, which take about as long as a lookup of a symbol
_WEIGHTS = 1 << 3  # of the network, which are made ready in that time
_OF_CANVAS, _ACTIVATIONS = 2, 4  # numbers of a canvas, and of the network, in a symbol's room

# From what is known of the latents of a turn to their symbols: the part of the map, int64 means and
# the numbers of widths ``[n, P, g]`` -> int32 ``[n, P, g]``.
Chosen = Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


def _walk(prior: MapPrior, n: int, step: int, chosen: Chosen) -> np.ndarray:
    """The latents of n maps whose symbols are chosen turn by turn: in units, int64
    ``[n, h, w, c]``."""
    network, g = Network(prior, step), prior.width_of_group
    units, canvas = np.empty((n, *prior.grid), np.int64), network.canvas(n)
    for places in prior.waves:
        context = network.context(canvas, places)
        y, x = places.rows + BORDER, places.columns + BORDER
        for k, at in enumerate(_turns_of(prior, places)):
            known = canvas[:, y, x, : k * g].reshape(len(context), k * g)
            shape = n, len(y), g
            mean, width = (found.reshape(shape) for found in network.group(k, context, known))
            units[at] = mean + chosen(at, mean, width).astype(np.int64) * step
            canvas[:, y, x, at[3]] = network.inputs(units[at], at[3])
    return units


def _turns_of(prior: MapPrior, places: Places) -> Iterator[tuple[slice, Any, Any, slice]]:
    """Where in ``[n, h, w, c]`` each group of channels at these places is, in their order."""
    g = prior.width_of_group
    for k in range(len(prior.groups)):
        yield slice(None), *places, slice(k * g, (k + 1) * g)


class Quantized(NamedTuple):
    symbols: np.ndarray  # int32 [N, D]
    rows: np.ndarray  # int64 [N, D], of each symbol in the prior's book


def quantize(prior: MapPrior, z: np.ndarray, step: int) -> np.ndarray:
    """Symbols near latents, and cheap ones: float32 ``[N, D]`` -> int32 ``[N, D]``."""
    return quantized(prior, z, step).symbols


@products_in_one_thread()
def quantized(prior: MapPrior, z: np.ndarray, step: int) -> Quantized:
    """As ``quantize``.  A latent gets the nearest symbol, or the next one towards 0, its mean,
    where the bits that this saves are worth more than the error that it adds."""
    wanted = (z / np.float64(prior.unit_size)).reshape(-1, *prior.grid)
    symbols, rows = np.empty(wanted.shape, np.int32), np.empty(wanted.shape, np.int64)
    saved = _saved_by_next(prior.book(step))

    def chosen(at: Any, mean: np.ndarray, width: np.ndarray) -> np.ndarray:
        apart = (wanted[at] - mean) / step
        nearest = np.rint(apart)
        following = nearest - np.sign(nearest)
        added = (apart - following) ** 2 - (apart - nearest) ** 2
        priced = np.clip(nearest, -PRICED, PRICED).astype(np.int64) + PRICED
        cheaper = saved[width, priced] > ERROR_BITS * added
        symbols[at] = np.clip(np.where(cheaper, following, nearest), -(2**31), 2**31 - 1)
        rows[at] = width
        return symbols[at]

    _walk(prior, len(wanted), step, chosen)
    return Quantized(symbols.reshape(z.shape), rows.reshape(z.shape))


def _saved_by_next(book: Book) -> np.ndarray:
    """Bits that the next symbol towards 0 saves over each from -PRICED to PRICED, by widths."""
    number = np.arange(-PRICED, PRICED + 1)
    rows, symbols = np.broadcast_arrays(np.arange(WIDTHS)[:, None], number)
    prices = book.prices(rows, book.indices(rows, symbols))
    return prices - prices[:, number - np.sign(number) + PRICED]


@products_in_one_thread()
def units(prior: MapPrior, symbols: np.ndarray, step: int) -> np.ndarray:
    """The latents that symbols stand for, in units: int32 ``[N, D]`` -> int64 ``[N, D]``."""
    whole = symbols.reshape(-1, *prior.grid)
    return _walk(prior, len(whole), step, lambda at, mean, width: whole[at]).reshape(symbols.shape)


@products_in_one_thread()
def residuals(prior: MapPrior, latents: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """How far latents, float64 ``[N, D]`` in units, are from their means once those before them are
    quantised, and the numbers of their widths: ``[N, D]`` each."""
    wanted = latents.reshape(-1, *prior.grid)
    apart, widths = np.empty(wanted.shape), np.empty(wanted.shape, np.int64)

    def nearest(at: Any, mean: np.ndarray, width: np.ndarray) -> np.ndarray:
        apart[at], widths[at] = wanted[at] - mean, width
        return np.rint(apart[at] / step)

    _walk(prior, len(wanted), step, nearest)
    return apart.reshape(latents.shape), widths.reshape(latents.shape)


def work(prior: MapPrior, images: int, step: int) -> int:
    """About the most that decoding this many images takes, in lookups of symbols."""
    h, w, c = prior.grid
    network, count = prior.multiply_adds // _MULTIPLY_ADDS + 1, prior.book(step).count
    # A row is made, or its few symbols of a turn are bisected, which takes less.
    bisected = LOOKUPS * images * h * w * c
    if count.max() <= MAX_MADE:
        bisected = min(bisected, int(count.sum()) * turns(prior))
    made_ready = prior.multiply_adds // _WEIGHTS + 1
    return h * w * images * (c + network) + bisected + made_ready


def turns(prior: MapPrior) -> int:
    """How many turns a map has, at most: what they take is about the same for few images."""
    h, w, _ = prior.grid
    return min(h * w, w + DELAY * (h - 1)) * len(prior.groups)


def room(prior: MapPrior) -> int:
    """What decoding holds in memory of an image, in symbols."""
    h, w, c = prior.grid
    widest = min(h, -(-w // DELAY))  # places of a wave
    canvas = (h + BORDER) * (w + 2 * BORDER) * c
    activations = widest * prior.activations
    return max(prior.latent_dim, canvas // _OF_CANVAS, activations // _ACTIVATIONS)


# Symbols to bytes


@products_in_one_thread()
def rows(prior: MapPrior, symbols: np.ndarray, step: int) -> np.ndarray:
    """The row of each symbol in the prior's book: int32 ``[N, D]`` -> int64 ``[N, D]``."""
    whole = symbols.reshape(-1, *prior.grid)
    found = np.empty(whole.shape, np.int64)

    def given(at: Any, mean: np.ndarray, width: np.ndarray) -> np.ndarray:
        found[at] = width
        return whole[at]

    _walk(prior, len(whole), step, given)
    return found.reshape(symbols.shape)


def _turns(prior: MapPrior, book: Book, symbols: np.ndarray) -> list[tuple]:
    """What is coded together, in the order of decoding: sums below symbols, their frequencies, and
    the bytes of escapes; symbols: int32 ``[N, D]``."""
    row = rows(prior, symbols, book.step)
    index = book.indices(row, symbols)
    starts = book.cumulative(row, index)
    frequencies = book.cumulative(row, index + 1) - starts
    fields = [a.reshape(-1, *prior.grid) for a in (row, symbols, index, starts, frequencies)]
    turns = []
    for places in prior.waves:
        for at in _turns_of(prior, places):
            of_turn = [a[at].ravel() for a in fields]
            order = np.argsort(of_turn[0], kind="stable")
            row, symbol, found, start, frequency = (a[order] for a in of_turn)
            first, count = book.first[row], book.count[row]
            escaped = escapes.write(symbol[:, None], found[:, None], first[:, None], count[:, None])
            turns.append((start, frequency, escaped))
    return turns


@products_in_one_thread()
def encode(prior: MapPrior, symbols: np.ndarray, step: int) -> bytes:
    """The stream of int32 ``[N, D]`` symbols, a multiple of 4 bytes."""
    coder = constriction.stream.stack.AnsCoder()
    # A stack: what comes out first goes in last.
    for start, frequency, escaped in reversed(_turns(prior, prior.book(step), symbols)):
        if escaped:
            coder.encode_reverse(np.frombuffer(escaped, np.uint8).astype(np.int32), BYTE)
        if len(start):
            push(coder, start.astype(np.float64), frequency.astype(np.float64))
    return coder.get_compressed().astype("<u4").tobytes()


@products_in_one_thread()
def encode_one(prior: MapPrior, symbols: np.ndarray, step: int) -> bytes:
    """The shortest encoding of one image's int32 ``[D]`` symbols."""
    coder = ArithmeticEncoder()
    for start, frequency, escaped in _turns(prior, prior.book(step), symbols[None]):
        for low, width in zip(start.tolist(), frequency.tolist(), strict=True):
            coder.add(low, low + width)
        for byte in escaped:
            coder.add_byte(byte)
    return coder.to_bytes()


@products_in_one_thread()
def bits(prior: MapPrior, symbols: np.ndarray, step: int) -> np.ndarray:
    """Bits that a perfect coder spends on each image, ``[N, D] -> [N]``."""
    return prior.book(step).bits_in(rows(prior, symbols, step), symbols)


# Bytes to symbols


@products_in_one_thread()
def decode(prior: MapPrior, stream: bytes, n: int, step: int) -> np.ndarray:
    """The inverse of ``encode``: int32 ``[n, D]``.

    Raises:
      FormatError: the stream is not one that this prior can produce.
    """
    source = entropy.Stream(stream, prior.book(step))
    symbols = _taken(prior, n, step, source)
    source.end()
    return symbols


@products_in_one_thread()
def decode_one(prior: MapPrior, data: bytes, step: int) -> np.ndarray:
    """The inverse of ``encode_one``: int32 ``[D]``.

    Raises:
      FormatError: the bytes are not ones that this prior can produce.
    """
    if len(data) > 8 * (prior.latent_dim + 1):  # an escape takes 3 bytes and at most 5 more
        raise FormatError(f"a payload of {len(data)} bytes for {prior.latent_dim} symbols")
    symbols = _taken(prior, 1, step, entropy.Payload(data, prior.book(step)))[0]
    if encode_one(prior, symbols, step) != data:
        raise FormatError("a payload that no encoder writes")
    return symbols


def _taken(
    prior: MapPrior, n: int, step: int, source: entropy.Stream | entropy.Payload
) -> np.ndarray:
    """Symbols of n images, int32 ``[n, D]``, turn by turn from a source."""
    symbols = np.empty((n, *prior.grid), np.int32)

    def next_ones(at: Any, mean: np.ndarray, width: np.ndarray) -> np.ndarray:
        rows = width.ravel()
        order = np.argsort(rows, kind="stable")
        found = np.empty(rows.shape, np.int32)
        found[order] = source.take(rows[order])
        symbols[at] = found.reshape(width.shape)
        return symbols[at]

    _walk(prior, n, step, next_ones)
    return symbols.reshape(n, prior.latent_dim)
