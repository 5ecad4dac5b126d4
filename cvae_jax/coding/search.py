"""Rate-distortion-optimised quantisation: symbols chosen for squared error + slope * bits.

The nearest symbols are neither the cheapest nor, the decoder being no linear map, those of the
smallest error.  From them, each round measures what one step in each dimension does to the
decoded image, descends over the integers on the quadratic model that this gives, and keeps
what the decoder of files confirms.  The decoder of a file neither knows nor pays.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae_jax.backend import microbatched, stream
from cvae_jax.coding.quantize import DEFAULT_QUALITY, dequantize, quantize, step
from cvae_jax.coding.tables import Book, Tables
from cvae_jax.errors import ConfigError
from cvae_jax.metrics import mse_of_each
from cvae_jax.pixels import to_levels, to_unit

SWEEPS = 3  # over the dimensions, for each quadratic model
MOVABLE = 12  # dimensions that a round may change; of 160, 32 gain a little and take twice as long
PROBES = 64  # images of a block that the curvature is first measured on
# Images that are refined together, from the first on: their quadratic models are in memory at once.
BLOCK = 2048

Decode = Callable[[Array], Array]  # [B, D] -> [B, H, W, C] in [0, 1]
Levels = Callable[[np.ndarray, int], np.ndarray]  # [N, D], step -> uint8 [N, H, W, C]


def check_effort(effort: int) -> None:
    """Raises ConfigError for an effort other than a whole number from 0 (no search) to 9 rounds."""
    whole = isinstance(effort, int | np.integer) and not isinstance(effort, bool)
    if not whole or not 0 <= effort <= 9:
        raise ConfigError(f"effort must be a whole number from 0 to 9, not {effort!r}")


class Refiner:
    """The search, for one decoder and its tables."""

    def __init__(self, decode: Decode, tables: Tables, levels: Levels | None = None):
        """decode: what slopes and curvature are of; levels: of files, whose errors count in the
        end (without it, those of ``decode``)."""
        self._tables, self._levels = tables, levels

        def error(images: Array, z: Array) -> Array:
            return (decode(z) - to_unit(images)).reshape(len(z), -1)

        def errors(images: Array, z: Array) -> Array:
            return jnp.sum(error(images, z) ** 2, axis=1)

        def slopes(images: Array, z: Array) -> Array:
            return jax.grad(lambda z: jnp.sum(errors(images, z)))(z)

        def model(images: Array, z: Array, move: Array, which: Array) -> tuple[Array, Array]:
            at = error(images, z)

            # Differences over the whole step, not derivatives: the step is what may be taken.
            def change(column: Array) -> Array:
                one = jax.nn.one_hot(column, z.shape[1], dtype=z.dtype)
                return error(images, z + move * one) - at

            changes = lax.map(change, which.T)
            gradient = jnp.einsum("mbp,bp->bm", changes, at)
            return gradient, jnp.einsum("mbp,nbp->bmn", changes, changes)

        self._errors = jax.jit(microbatched(errors))
        self._slopes = jax.jit(microbatched(slopes))
        self._model = jax.jit(microbatched(model))

    def squared_errors(self, images: np.ndarray, symbols: np.ndarray, step: int) -> np.ndarray:
        """Of what the symbols decode to, summed over each image's pixels: ``[N]``."""
        if self._levels is not None:
            decoded = self._levels(symbols, step)
            return mse_of_each(decoded, to_levels(images)) * decoded[0].size
        return stream(self._errors, images, dequantize(symbols, self._tables, step))

    def quadratic_model(
        self,
        images: np.ndarray,
        symbols: np.ndarray,
        step: int,
        toward: np.ndarray,
        which: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """``g [N, M], G [N, M, M]``: moves m change the squared error by ``2 g.m + m.G.m``.

        which: int32 ``[N, M]``, the dimensions that are moved; toward: 1 or -1, ``[N, D]``, the
        side on which a move of 1 was measured.
        """
        z, move = (dequantize(s, self._tables, step) for s in (symbols, toward))
        gradient, curvature = stream(self._model, images, z, move, which)
        sign = np.take_along_axis(toward, which, 1)
        return gradient * sign, curvature * (sign[:, :, None] * sign[:, None, :])

    def refine(self, images: np.ndarray, symbols: np.ndarray, step: int, rounds: int) -> np.ndarray:
        """Symbols of a lower squared error + slope * bits than the given int32 ``[N, D]``.

        images: ``[N, H, W, C]``, uint8 or in [0, 1].  Images that a round cannot improve are
        left out of the next.
        """
        book, slope = self._tables.book(step), self._tables.slope * step**2
        unit = self._tables.unit.astype(np.float64) * step
        best = symbols.copy()
        for start in range(0, len(images), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(images)))
            # Of this block: what is found must not depend on how many blocks come at once.
            typical = self._typical_curvature(images[rows[:PROBES]], symbols[rows[:PROBES]], step)
            before = self._cost(images[rows], best[rows], book, slope)
            for _ in range(rounds):
                now, pictures = best[rows], images[rows]
                gradient = (
                    unit / 2 * stream(self._slopes, pictures, dequantize(now, self._tables, step))
                )
                which, toward = _promising(now, gradient, typical, book, slope)
                model = self.quadratic_model(pictures, now, step, toward, which)
                moved = _descend(now, which, *model, book, slope)
                after = self._cost(pictures, moved, book, slope)
                better = after < before
                rows, before = rows[better], after[better]
                best[rows] = moved[better]
                if not len(rows):
                    break
        return best

    def _typical_curvature(self, images: np.ndarray, symbols: np.ndarray, step: int) -> np.ndarray:
        """Mean of the diagonal of G over some images, ``[D]``."""
        every = np.tile(np.arange(symbols.shape[1], dtype=np.int32), (len(symbols), 1))
        model = self.quadratic_model(images, symbols, step, np.ones_like(symbols), every)
        return np.diagonal(model[1], axis1=1, axis2=2).mean(0)

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
    saved, error = rate[0] - rate[1], distortion[1] - distortion[0]
    # A model that hardly uses its latents has no curve: then bits are worth next to nothing.
    return float(error / saved / middle**2) if error > 0 and saved > 0 else 1e-12


def _promising(
    symbols: np.ndarray, gradient: np.ndarray, curvature: np.ndarray, book: Book, slope: float
) -> tuple[np.ndarray, np.ndarray]:
    """The dimensions whose best single move promises most, ``[N, M]``, and its side, ``[N, D]``."""
    rows, _ = book.index(symbols, book.tables.assign(symbols, book.step))
    gains = np.stack(
        [
            2 * move * gradient + curvature + slope * _price(book, rows, symbols, move)
            for move in (-1, 1)
        ]
    )
    toward = np.where(gains[0] < gains[1], -1, 1).astype(np.int32)
    order = np.argsort(gains.min(0), axis=1, kind="stable")
    return order[:, :MOVABLE].astype(np.int32), toward


def _price(book: Book, rows: np.ndarray, symbols: np.ndarray, move: np.ndarray | int) -> np.ndarray:
    """Bits that moving each symbol costs; infinite where that leaves its row."""
    index = symbols - book.first[rows]
    last = book.count[rows] - 1
    now = book.prices(rows, np.clip(index, 0, last))
    then = book.prices(rows, np.clip(index + move, 0, last))
    return np.where((index + move >= 0) & (index + move <= last), then - now, np.inf)


def _descend(
    symbols: np.ndarray,
    which: np.ndarray,
    gradient: np.ndarray,
    curvature: np.ndarray,
    book: Book,
    slope: float,
) -> np.ndarray:
    """Coordinate descent over single steps up and down, all images at once."""
    symbols, gradient = symbols.copy(), gradient.copy()
    rows, _ = book.index(symbols, book.tables.assign(symbols, book.step))
    everyone = np.arange(len(symbols))
    for _ in range(SWEEPS):
        for m in range(which.shape[1]):
            d = which[:, m]
            change, best = np.zeros(len(symbols)), np.zeros(len(symbols), np.int32)
            for move in (-1, 1):
                price = _price(book, rows[everyone, d], symbols[everyone, d], move)
                moved = 2 * move * gradient[:, m] + curvature[:, m, m] + slope * price
                better = moved < change
                change[better], best[better] = moved[better], move
            symbols[everyone, d] += best
            gradient += curvature[:, m] * best[:, None]
    return symbols
