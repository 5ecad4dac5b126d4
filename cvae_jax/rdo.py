"""Rate-distortion-optimised quantisation: symbols chosen for squared error + slope * bits.

The nearest symbols are neither the cheapest nor, the decoder being no linear map, those of the
smallest error.  From them, each round measures what one step in each dimension does to the
decoded image, descends over the integers on the quadratic model that this gives, and keeps
what the real decoder confirms.  The decoder of a file neither knows nor pays.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae_jax.batching import chunked, stream
from cvae_jax.entropy import Book, Tables
from cvae_jax.quantize import DEFAULT_QUALITY, dequantize, quantize, step

SWEEPS = 3  # over the dimensions, for each quadratic model
BLOCK = 2048  # images whose quadratic models are in memory at once

Decode = Callable[[Array], Array]  # [B, D] -> [B, H, W, C] in [0, 1]


class Refiner:
    """The search, for one decoder and its tables."""

    def __init__(self, decode: Decode, tables: Tables):
        self._tables = tables

        def errors(images: Array, z: Array) -> Array:
            return jnp.sum((decode(z) - _unit_range(images)) ** 2, axis=(1, 2, 3))

        def model(images: Array, z: Array, move: Array) -> tuple[Array, Array, Array]:
            def flat(z: Array) -> Array:
                return decode(z).reshape(len(z), -1)

            at = flat(z)
            error = at - _unit_range(images).reshape(at.shape)
            # Differences over the whole step, not derivatives: the step is what may be taken.
            change = lax.map(lambda d: flat(z + move * d), jnp.eye(z.shape[1])) - at
            gradient = jnp.einsum("dbp,bp->bd", change, error)
            return gradient, jnp.einsum("dbp,ebp->bde", change, change)

        self._errors = jax.jit(chunked(errors))
        self._model = jax.jit(chunked(model))

    def squared_errors(self, images: np.ndarray, symbols: np.ndarray, step: int) -> np.ndarray:
        """Of what the symbols decode to, summed over each image's pixels: ``[N]``."""
        return stream(self._errors, images, dequantize(symbols, self._tables, step))

    def quadratic_model(
        self, images: np.ndarray, symbols: np.ndarray, step: int, toward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """``g [N, D], G [N, D, D]``: the squared error changes by ``2 g.m + m.G.m`` with moves m.

        toward: 1 or -1, ``[N, D]``, the side on which a move of 1 was measured.
        """
        z = dequantize(symbols, self._tables, step)
        move = dequantize(toward, self._tables, step)
        gradient, curvature = stream(self._model, images, z, move)
        return gradient * toward, curvature * (toward[:, :, None] * toward[:, None, :])

    def refine(
        self, images: np.ndarray, symbols: np.ndarray, z_mean: np.ndarray, step: int, rounds: int
    ) -> np.ndarray:
        """Symbols of a lower squared error + slope * bits than the given int32 ``[N, D]``.

        images: ``[N, H, W, C]``, uint8 or in [0, 1]; z_mean: ``[N, D]``, what the symbols were
        rounded from.  Images that a round cannot improve are left out of the next.
        """
        book, slope = self._tables.book(step), self._tables.slope * step**2
        best = symbols.copy()
        for start in range(0, len(images), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(images)))
            before = self._cost(images[rows], best[rows], book, slope)
            for _ in range(rounds):
                now = dequantize(best[rows], self._tables, step)
                toward = np.where(z_mean[rows] < now, -1, 1).astype(np.int32)
                gradient, curvature = self.quadratic_model(images[rows], best[rows], step, toward)
                moved = _descend(best[rows], gradient, curvature, book, slope)
                after = self._cost(images[rows], moved, book, slope)
                better = after < before
                rows, before = rows[better], after[better]
                best[rows] = moved[better]
                if not len(rows):
                    break
        return best

    def _cost(
        self, images: np.ndarray, symbols: np.ndarray, book: Book, slope: float
    ) -> np.ndarray:
        return self.squared_errors(images, symbols, book.step) + slope * book.bits(symbols)


def slope_per_step(decode: Decode, images: np.ndarray, z_mean: np.ndarray, tables: Tables) -> float:
    """What a bit is worth: squared error per bit on the codec's own curve, over step**2.

    Measured around the default step.  Where steps are fine, the error of quantising grows with
    their square while a halving costs a bit per latent, so that the ratio is a constant.
    """
    refiner, middle = Refiner(decode, tables), step(DEFAULT_QUALITY)
    rate, distortion = [], []
    for at in (round(middle / 2**0.5), round(middle * 2**0.5)):
        symbols = quantize(z_mean, tables, at)
        rate.append(tables.book(at).bits(symbols).sum())
        distortion.append(refiner.squared_errors(images, symbols, at).sum(dtype=np.float64))
    return float((distortion[1] - distortion[0]) / (rate[0] - rate[1]) / middle**2)


def _unit_range(images: Array) -> Array:
    return images / 255.0 if images.dtype == jnp.uint8 else images


def _descend(
    symbols: np.ndarray, gradient: np.ndarray, curvature: np.ndarray, book: Book, slope: float
) -> np.ndarray:
    """Coordinate descent over single steps up and down, all images at once."""
    symbols, gradient = symbols.copy(), gradient.copy()
    rows, _ = book.index(symbols, book.tables.assign(symbols, book.step))
    first, count, start = book.first[rows], book.count[rows], book.start[rows]
    everyone = np.arange(len(symbols))
    for _ in range(SWEEPS):
        for d in range(symbols.shape[1]):
            index = symbols[:, d] - first[:, d]
            best_change, best_move = np.zeros(len(symbols)), np.zeros(len(symbols), np.int32)
            bits = book.prices[start[:, d] + np.clip(index, 0, count[:, d])]
            for move in (-1, 1):
                moved = index + move
                inside = (moved >= 0) & (moved < count[:, d])
                rate = book.prices[start[:, d] + np.where(inside, moved, 0)] - bits
                change = 2 * move * gradient[:, d] + curvature[:, d, d] + slope * rate
                better = inside & (change < best_change)
                best_change[better], best_move[better] = change[better], move
            symbols[:, d] += best_move
            gradient += curvature[everyone, d] * best_move[:, None]
    return symbols
