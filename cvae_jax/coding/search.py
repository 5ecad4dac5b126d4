"""Rate-distortion-optimised quantisation: symbols chosen for squared error + slope * bits.

The nearest symbols are neither the cheapest nor, the decoder being no linear map, those of the
smallest error.  Effort is a number of rounds that look for better ones.  Each has a quadratic model
of an image's error, descends on it over the integers, and keeps what the decoder of files confirms:

- the first is quick: one gradient per image, taken at its latents, and for all images the average
  curvature of the decoder;
- later ones measure what a step in each of a few dimensions does to the decoded image.

What an image gets does not depend on the images beside it, up to the rounding of floats.  The
decoder of a file neither knows nor pays.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae_jax.backend import microbatched, stream
from cvae_jax.batching import mapped
from cvae_jax.coding import streams
from cvae_jax.coding.quantize import DEFAULT_QUALITY, dequantize, quantize, step
from cvae_jax.coding.streams import CodingTables
from cvae_jax.coding.vectors.tables import SUBUNIT, Book, Tables
from cvae_jax.errors import ConfigError
from cvae_jax.metrics import mse_of_each
from cvae_jax.pixels import to_levels, to_unit

SWEEPS = 3  # over the dimensions, for each quadratic model
# Dimensions that the second round may change, and that later ones may; of 160, 32 gain a little and
# take twice as long.
FEW, MORE = 5, 12
PROBES = 64  # latents that the average curvature is measured at
# What the average curvature is multiplied by in the quick round: an image's own may be larger.
DAMPING = 2.0
BLOCK = 1024  # images that are refined together: their quadratic models are in memory at once

Decode = Callable[[Array], Array]  # [B, D] -> [B, H, W, C] in [0, 1]
Levels = Callable[[np.ndarray, int], np.ndarray]  # [N, D], step -> uint8 [N, H, W, C]


def check_effort(effort: int) -> None:
    """Raises ConfigError for an effort other than a whole number from 0 (no search) to 9 rounds."""
    whole = isinstance(effort, int | np.integer) and not isinstance(effort, bool)
    if not whole or not 0 <= effort <= 9:
        raise ConfigError(f"effort must be a whole number from 0 to 9, not {effort!r}")


class Refiner:
    """The search, for one decoder and its tables."""

    block = BLOCK

    def __init__(self, decode: Decode, tables: Tables, levels: Levels | None = None):
        """decode: what slopes and curvature are of; levels: of files, whose errors count in the
        end (without it, those of ``decode``)."""
        self._tables, self._levels = tables, levels

        errors = _errors(decode)

        def slopes(images: Array, z: Array) -> Array:
            return jax.grad(lambda z: jnp.sum(errors(images, z)))(z)

        def changes(at: Array, z: Array, move: Array, which: Array) -> Array:
            # Differences over the whole step, not derivatives: the step is what may be taken.
            def change(column: Array) -> Array:
                one = jax.nn.one_hot(column, z.shape[1], dtype=z.dtype)
                return (decode(z + move * one) - at).reshape(len(z), -1)

            return lax.map(change, which.T)

        def products(changes: Array) -> Array:
            return jnp.einsum("mbp,nbp->bmn", changes, changes)

        def model(images: Array, z: Array, move: Array, which: Array) -> tuple[Array, Array]:
            at = decode(z)
            error = (at - to_unit(images)).reshape(len(z), -1)
            moved = changes(at, z, move, which)
            return jnp.einsum("mbp,bp->bm", moved, error), products(moved)

        def curvature(z: Array, move: Array, which: Array) -> Array:
            return products(changes(decode(z), z, move, which))

        self._errors = jax.jit(microbatched(errors))
        self._slopes = jax.jit(microbatched(slopes))
        self._model = jax.jit(microbatched(model))
        self._curvature = jax.jit(microbatched(curvature))
        self._average: tuple[int, np.ndarray] | None = None  # of the last step

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

    def refine(self, images: np.ndarray, z_mean: np.ndarray, step: int, effort: int) -> np.ndarray:
        """Symbols of a low squared error + slope * bits: int32 ``[N, D]``.

        images: ``[N, H, W, C]``, uint8 or in [0, 1]; z_mean: their latents, ``[N, D]``; effort:
        rounds, from 0, which gives the nearest symbols.  No image's cost rises with effort.
        """
        best = quantize(z_mean, self._tables, step)
        if effort:
            average = self.average_curvature(step)  # once, before any block
            blocks = [slice(start, start + BLOCK) for start in range(0, len(images), BLOCK)]

            def refined(rows: slice) -> np.ndarray:
                return self._refined(images[rows], z_mean[rows], best[rows], step, effort, average)

            for rows, found in zip(blocks, mapped(refined, blocks), strict=True):
                best[rows] = found
        return best

    def _refined(
        self,
        images: np.ndarray,
        z_mean: np.ndarray,
        nearest: np.ndarray,
        step: int,
        effort: int,
        average: np.ndarray,
    ) -> np.ndarray:
        """One block of ``refine``; a pure function, so blocks may run side by side."""
        best, cost = nearest.copy(), self.cost(images, nearest, step)
        rows = np.arange(len(images))
        for number in range(effort):
            if number == 0:
                moved = self.quick_round(images, z_mean, nearest, step, average)
            else:
                width = FEW if number == 1 else MORE
                moved = self.full_round(images[rows], best[rows], step, average, width)
            after = self.cost(images[rows], moved, step)
            better = after < cost[rows]
            best[rows[better]], cost[rows[better]] = moved[better], after[better]
            if number:  # what such a round cannot improve, the next hardly will
                rows = rows[better]
            if not len(rows):
                break
        return best

    def quick_round(
        self,
        images: np.ndarray,
        z_mean: np.ndarray,
        nearest: np.ndarray,
        step: int,
        average: np.ndarray,
    ) -> np.ndarray:
        """What the average curvature and one gradient suggest: ``[N, D]``; not yet checked."""
        curvature = DAMPING * average
        # At the latents, which no quantiser has moved, a gradient says more than at symbols.
        rounding = nearest - z_mean.astype(np.float64) / self._size(step)
        gradient = self._gradient(images, z_mean, step) + rounding @ curvature
        everything = np.tile(np.arange(len(average), dtype=np.int32), (len(nearest), 1))
        curvature = np.broadcast_to(curvature, (len(nearest), *curvature.shape))
        return _descend(nearest, everything, gradient, curvature, *self._worth(step))

    def full_round(
        self, images: np.ndarray, symbols: np.ndarray, step: int, average: np.ndarray, width: int
    ) -> np.ndarray:
        """What each image's own model suggests of ``width`` dimensions; not yet checked."""
        gradient = self._gradient(images, dequantize(symbols, self._tables, step), step)
        book, slope = self._worth(step)
        which, toward = _promising(symbols, gradient, np.diag(average), width, book, slope)
        model = self.quadratic_model(images, symbols, step, toward, which)
        return _descend(symbols, which, *model, book, slope)

    def prepare(self, step: int, effort: int) -> None:
        """What is the same for all images, once, before there are threads."""
        self.average_curvature(step)

    def average_curvature(self, step: int) -> np.ndarray:
        """Mean of G over latents as the tables have them, ``[D, D]``; always the same."""
        if self._average is None or self._average[0] != step:
            self._average = step, self._measured_curvature(step)
        return self._average[1]

    def _measured_curvature(self, step: int) -> np.ndarray:
        symbols = quantize(_typical(self._tables), self._tables, step)
        every = np.tile(np.arange(symbols.shape[1], dtype=np.int32), (PROBES, 1))
        z, move = (dequantize(s, self._tables, step) for s in (symbols, np.ones_like(symbols)))
        return stream(self._curvature, z, move, every).mean(0, dtype=np.float64)

    def _gradient(self, images: np.ndarray, z: np.ndarray, step: int) -> np.ndarray:
        """g of the quadratic model at latents, ``[N, D]``, by differentiation."""
        return self._size(step) / 2 * stream(self._slopes, images, z)

    def _size(self, step: int) -> np.ndarray:
        """Of a quantiser step in each dimension, ``[D]``."""
        return self._tables.unit.astype(np.float64) * step

    def _worth(self, step: int) -> tuple[Book, float]:
        """Where the bits of symbols are from, and the squared error that one is worth."""
        return self._tables.book(step), self._tables.slope * step**2

    def cost(self, images: np.ndarray, symbols: np.ndarray, step: int) -> np.ndarray:
        """Squared error + slope * bits of each image, ``[N]``, as a file has them."""
        book, slope = self._worth(step)
        return self.squared_errors(images, symbols, step) + slope * book.bits(symbols)


def slope_per_step(
    decode: Decode, images: np.ndarray, z_mean: np.ndarray, tables: CodingTables
) -> float:
    """What a bit is worth: squared error per bit on the codec's own curve, over step**2.

    Measured around the default step.  Where steps are fine, the error of quantising grows with
    their square while a halving costs a bit per latent, so that the ratio is a constant.
    """
    errors, middle = jax.jit(microbatched(_errors(decode))), step(DEFAULT_QUALITY)
    rate, distortion = [], []
    for at in (round(middle / 2**0.5), round(middle * 2**0.5)):
        symbols = quantize(z_mean, tables, at)
        rate.append(streams.bits(symbols, tables, at).sum())
        found = stream(errors, images, dequantize(symbols, tables, at))
        distortion.append(found.sum(dtype=np.float64))
    saved, error = rate[0] - rate[1], distortion[1] - distortion[0]
    # A model that hardly uses its latents has no curve: then bits are worth next to nothing.
    return float(error / saved / middle**2) if error > 0 and saved > 0 else 1e-12


def _errors(decode: Decode) -> Callable[[Array, Array], Array]:
    """The squared errors of images decoded from latents, summed over pixels: ``[B]``."""

    def errors(images: Array, z: Array) -> Array:
        return jnp.sum((decode(z) - to_unit(images)).reshape(len(z), -1) ** 2, axis=1)

    return errors


def _typical(tables: Tables) -> np.ndarray:
    """Latents as the tables have them, ``[PROBES, D]``: always the same ones."""
    rng = np.random.default_rng(0)
    component = rng.choice(tables.components, PROBES, p=tables.weights / tables.weights.sum())
    spread = tables.widths[component] / (SUBUNIT / 16)  # 16 of the curve's points are a sigma
    noise = rng.normal(size=spread.shape)
    return ((tables.means[component] + noise * spread) * tables.unit).astype(np.float32)


def _promising(
    symbols: np.ndarray,
    gradient: np.ndarray,
    curvature: np.ndarray,
    width: int,
    book: Book,
    slope: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The dimensions whose best single move promises most, ``[N, width]``, and its side,
    ``[N, D]``."""
    down, here, up = np.moveaxis(slope * _prices(book, _rows(book, symbols), symbols, 1), 2, 0)
    gains = curvature + np.stack([down - here - 2 * gradient, up - here + 2 * gradient])
    toward = np.where(gains[0] < gains[1], -1, 1).astype(np.int32)
    order = np.argsort(gains.min(0), axis=1, kind="stable")
    return order[:, :width].astype(np.int32), toward


def _rows(book: Book, symbols: np.ndarray) -> np.ndarray:
    """The rows of symbols in their images' components, ``[N, D]``."""
    return book.index(symbols, book.tables.assign(symbols, book.step))[0]


def _prices(book: Book, rows: np.ndarray, symbols: np.ndarray, reach: int) -> np.ndarray:
    """Bits of the symbols up to ``reach`` from each: ``[N, M]`` twice -> ``[N, M, 2 * reach + 1]``.

    Infinite outside a row; there, a symbol itself has the price of the row's end, so that it may
    move back.
    """
    index = (symbols - book.first[rows])[..., None] + np.arange(-reach, reach + 1)
    inside = np.clip(index, 0, (book.count[rows] - 1)[..., None])
    bits = book.prices(rows[..., None], inside)
    allowed = index == inside
    allowed[..., reach] = True
    return np.where(allowed, bits, np.inf)


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
    everyone = np.arange(len(symbols))
    rows, start = (np.take_along_axis(a, which, 1) for a in (_rows(book, symbols), symbols))
    prices = slope * _prices(book, rows, start, SWEEPS)
    prices = np.pad(prices, ((0, 0), (0, 0), (1, 1)), constant_values=np.inf)
    at = np.full(which.shape, SWEEPS + 1)  # in the prices
    for _ in range(SWEEPS):
        for m in range(which.shape[1]):
            price, here = prices[:, m], at[:, m]
            rise = curvature[:, m, m] - price[everyone, here]
            down = price[everyone, here - 1] + rise - 2 * gradient[:, m]
            up = price[everyone, here + 1] + rise + 2 * gradient[:, m]
            move = np.where(down <= up, -1, 1)
            moved = np.flatnonzero(np.minimum(down, up) < 0)
            at[moved, m] += move[moved]
            gradient[moved] += curvature[moved, m] * move[moved, None]
    found = start + (at - SWEEPS - 1).astype(np.int32)
    np.put_along_axis(symbols, which, found, 1)
    return symbols
