"""The distribution of a model's latents, as integers that never change.

An image's symbols are modelled by a mixture: an image belongs to one of K components (coded
first, like a symbol), in which each of its D symbols has a distribution of its own.  All of these
are one integer ``curve``, shifted and stretched by integers, so that every quantiser step gets its
frequency tables from the same few numbers.  A decoder uses no floating-point number from here;
``docs/FORMAT.md`` has the arithmetic.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvae_jax.coding.integers import escapes, packing
from cvae_jax.coding.integers.frequencies import PRECISION, TOTAL, categorical
from cvae_jax.errors import FormatError

SUBUNIT = 256  # widths are in this fraction of a unit
REACH = 128  # points of the curve on each side of its centre
MAX_ROW = 1 << 20  # symbols; any valid tables stay below it at steps of 17 units or more
MAX_MADE = 1 << 16  # symbols in a row that is built; bounds memory
ENTRIES = 1 << 23  # of all built rows that are kept
_ROOM = 64  # entries that a model takes besides its own
_PIECE = 1 << 17  # entries built at once; their temporaries are 64-bit
LOOKUPS = 256  # entries that are built in about the time of one bisection
_CALL = 160  # symbols looked up in about the time of one call of the coder
_HEADER = struct.Struct("<4sHHIdBH")
_MAGIC = b"CVTB"
_VERSION = 2
_MOST = 1 << 24  # largest mean or width


@dataclass(frozen=True, eq=False)
class Tables:
    """The distribution of a model's latents, in integers; see ``docs/FORMAT.md``.

    Latents are measured in units, one per dimension, much finer than any step.
    """

    unit: np.ndarray  # float32 [D], latent value of one unit; not used in entropy coding
    slope: float  # squared error that a bit is worth, over step**2; for encoders that search
    weights: np.ndarray  # uint32 [K], frequencies of the components, sum TOTAL
    means: np.ndarray  # int32 [K, D], in units
    widths: np.ndarray  # uint32 [K, D], distance of the curve's points, in units / SUBUNIT
    curve: np.ndarray  # uint32 [2 * REACH + 1], cumulative, from 0, strictly increasing

    @property
    def components(self) -> int:
        return self.means.shape[0]

    @property
    def kind(self) -> str:
        """In words."""
        return f"{self.components} components"

    @property
    def latent_dim(self) -> int:
        return self.means.shape[1]

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of ``to_bytes()``."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """As a checkpoint and an archive hold it."""
        return self.packed

    @functools.cached_property
    def packed(self) -> bytes:
        """``to_bytes``: short if means share a power of two, and widths take few values."""
        shift = _trailing_zeros(self.means)
        palette, index = np.unique(self.widths, return_inverse=True)
        header = _HEADER.pack(
            *(_MAGIC, _VERSION, self.components, self.latent_dim, self.slope),
            *(shift, len(palette)),
        )
        curve = np.diff(self.curve.astype(np.int64))
        numbers = (self.weights, self.means >> shift, palette, index, curve)
        unit = self.unit.astype("<f4").tobytes()
        return header + unit + b"".join(packing.pack(array) for array in numbers)

    @classmethod
    def from_bytes(cls, data: bytes, spend: packing.Spend = packing.unlimited) -> Tables:
        """The inverse of ``to_bytes``, checked before anything is built from it.

        spend: as for ``packing.Packed``.

        Raises:
          FormatError: these bytes are not coding tables, or not usable ones.
        """
        try:
            magic, version, k, d, slope, shift, colours = _HEADER.unpack_from(data)
        except struct.error as error:
            raise FormatError("coding tables: shorter than their header") from error
        if magic != _MAGIC or version != _VERSION:
            raise FormatError(
                f"coding tables: start with {magic + bytes([version % 256])!r}, and this program "
                f"reads version {_VERSION}; cvae calibrate -f makes new ones"
            )
        start = _HEADER.size + 4 * d
        if k < 1 or d < 1 or shift > 24 or colours < 1 or len(data) < start:
            raise FormatError(
                f"coding tables: {len(data)} bytes for {k} components of {d} dimensions"
            )
        packed = packing.Packed(data, start, spend)
        weights, means = packed.take(k), packed.take(k, d)
        palette, index, curve = packed.take(colours), packed.take(k, d), packed.take(2 * REACH)
        packed.end()
        for name, numbers, low, high in (
            ("a weight", weights, 0, TOTAL),
            ("a mean", means, -_MOST >> shift, _MOST >> shift),
            ("a width", palette, 0, _MOST),
            ("a width's number", index, 0, colours - 1),
            ("the curve or its total", curve, 0, 1 << 30),
        ):
            if numbers.min() < low or numbers.max() > high:
                raise FormatError(f"coding tables: {name} is out of range")
        if curve.sum(dtype=np.int64) > 1 << 30:
            raise FormatError("coding tables: the curve's total is too large")
        tables = cls(
            unit=np.frombuffer(data, "<f4", d, _HEADER.size),
            slope=slope,
            weights=weights.astype(np.uint32),
            means=(means << shift).astype(np.int32, copy=False),
            widths=palette[index].astype(np.uint32),
            curve=np.concatenate([[0], np.cumsum(curve, dtype=np.int64)]).astype(np.uint32),
        )
        tables.validate()
        vars(tables)["packed"] = data  # as they came: another encoder may pack them differently
        return tables

    def validate(self) -> None:
        """Raises FormatError unless every symbol gets a frequency and no sum overflows."""
        curve = self.curve.astype(np.int64)
        usable = np.isfinite(self.unit) & (self.unit > 0)
        for fault, wrong in (
            ("a unit is not positive and finite", not usable.all()),
            ("the slope is not positive and finite", not 0 < self.slope < np.inf),
            ("a component's weight is zero", (self.weights < 1).any()),
            (f"weights do not add up to {TOTAL}", int(self.weights.sum(dtype=np.int64)) != TOTAL),
            ("a mean is out of range", max(self.means.max(), -self.means.min()) > _MOST),
            ("a width is out of range", (self.widths < 1).any() or (self.widths > _MOST).any()),
            ("the curve is not increasing from 0", curve[0] != 0 or (np.diff(curve) < 1).any()),
            ("the curve's total is too large", curve[-1] > 1 << 30),
        ):
            if wrong:
                raise FormatError(f"coding tables: {fault}")

    def book(self, step: int) -> Book:
        """The frequencies of one step of the quantiser (in units).

        Raises:
          FormatError: the step is not from 1 to 65535, or so fine that a row has more than MAX_ROW
          symbols.
        """
        return _book(self, step)

    def assign(self, symbols: np.ndarray, step: int) -> np.ndarray:
        """The component of each image, about the cheapest one: ``[N, D] -> int32 [N]``.

        The encoder is free to choose (here a Gaussian approximates the tables); any would decode.
        """
        means = self.means / step
        # Sheppard's correction: the quantiser adds the variance of a uniform step.
        precision = 1 / ((self.widths / (SUBUNIT / 16 * step)) ** 2 + 1 / 12)
        constant = np.log(self.weights) + 0.5 * (np.log(precision) - means**2 * precision).sum(1)
        x = symbols.astype(np.float64)
        log_p = x @ (means * precision).T - 0.5 * (x**2 @ precision.T) + constant
        return log_p.argmax(1).astype(np.int32)


class Book:
    """The frequencies at one step: a row of symbols for each component and dimension.

    Row number ``component * D + dimension`` has the symbols ``first .. first + count - 1`` and
    then the escape: count + 2 sums, from 0 to TOTAL.  Each sum can be computed on its own from the
    tables, so rows are built only if a decoder looks up many symbols in them.
    """

    def __init__(self, tables: Tables, step: int):
        if not 1 <= step < 1 << 16:
            raise FormatError(f"a quantiser step of {step} units; expected 1 to 65535")
        self.tables, self.step = tables, step
        self._means, self._widths = tables.means.ravel(), tables.widths.ravel()
        self._curve = tables.curve.astype(np.int64)
        means = self._means.astype(np.int64)
        reach = -(-REACH * self._widths.astype(np.int64) // SUBUNIT)
        low = step >> 1  # symbol s covers the units from s * step - low to below (s+1) * step - low
        self.first = (means - reach + low) // step
        self.count = (means + reach + low) // step - self.first + 1
        if (longest := int(self.count.max())) > MAX_ROW:
            raise FormatError(
                f"a quantiser step of {step} units is too fine for these tables: it takes "
                f"{longest} symbols for a latent, and {MAX_ROW} is the most there can be"
            )
        self._models: dict[int, Any] = {}
        self._held = 0  # their entries

    def row(self, component: int, dimension: int) -> int:
        return component * self.tables.latent_dim + dimension

    def cumulative(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The sums below indices, from 0 to count + 1, of rows: int64, of their common shape."""
        curve, width = self._curve, self._widths[rows].astype(np.int64)
        # From the row's mean to the lower end of each symbol, on the curve's grid.
        lower = (self.first[rows] + index) * self.step - (self.step >> 1)
        cell, within = np.divmod((lower - self._means[rows]) * SUBUNIT, width)
        at = np.clip(cell + REACH, 0, 2 * REACH - 1)
        below = curve[at] + (curve[at + 1] - curve[at]) * within // width
        below = np.where(cell < -REACH, 0, np.where(cell >= REACH, curve[-1], below))
        # One for each symbol, the rest in proportion: exact, so no error can accumulate.  The last
        # symbol reaches beyond the curve, which leaves the escape its one.
        return below * (TOTAL - 1 - self.count[rows]) // curve[-1] + index

    def locate(self, row: int, slot: int) -> tuple[int, int, int]:
        """The index in a row with ``start <= slot < stop``, and these two sums; by bisection."""
        mean, width = int(self._means[row]), int(self._widths[row])
        count, curve = int(self.count[row]), self._curve_list
        offset = int(self.first[row]) * self.step - (self.step >> 1) - mean
        index, start, beyond, stop = 0, 0, count + 1, TOTAL
        while beyond - index > 1:
            middle = (index + beyond) // 2
            cell, within = divmod((offset + middle * self.step) * SUBUNIT, width)
            below = curve[-1]
            if cell < REACH:
                at = cell + REACH
                below = curve[at] + (curve[at + 1] - curve[at]) * within // width
            middle_sum = below * (TOTAL - 1 - count) // curve[-1] + middle
            if middle_sum <= slot:
                index, start = middle, middle_sum
            else:
                beyond, stop = middle, middle_sum
        return index, start, stop

    @functools.cached_property
    def _curve_list(self) -> list[int]:
        return self._curve.tolist()

    def is_made(self, rows: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Whether looking up this many symbols of rows is faster by ``models`` than ``locate``."""
        return self.count[rows] <= np.minimum(LOOKUPS * symbols, MAX_MADE)

    def models(self, rows: np.ndarray) -> list[Any]:
        """Rows as constriction models; built together, and kept while ENTRIES leaves room."""
        missing = np.array([row for row in rows.tolist() if row not in self._models], np.int64)
        if not len(missing):
            return [self._models[row] for row in rows.tolist()]
        size = self.count[missing] + 2 + _ROOM
        pieces = np.cumsum(size) // _PIECE
        made: dict[int, Any] = {}
        for piece in np.split(missing, np.flatnonzero(np.diff(pieces)) + 1):
            self._make(piece, made)
        models = [made.get(row) or self._models[row] for row in rows.tolist()]
        if self._held + size.sum() <= ENTRIES:
            self._models |= made
            self._held += int(size.sum())
        return models

    def _make(self, rows: np.ndarray, made: dict[int, Any]) -> None:
        size = self.count[rows] + 2
        stops = np.cumsum(size)
        index = np.arange(stops[-1]) - np.repeat(stops - size, size)
        frequencies = np.diff(self.cumulative(np.repeat(rows, size), index))
        for row, start, stop in zip(rows.tolist(), stops - size, stops, strict=True):
            made[row] = categorical(frequencies[start : stop - 1])

    def work(self, images: int) -> int:
        """About the most that decoding this many images takes, in symbol lookups."""
        d, k = self.tables.latent_dim, min(self.tables.components, images)
        bisected = LOOKUPS * images
        makes = np.where(self.count > MAX_MADE, bisected, np.minimum(self.count, bisected))
        return images * d + _CALL * k * d + min(int(makes.sum()), bisected * d)

    def prices(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Bits of each index from 0 to count, ``-log2 p``; for encoders."""
        return PRECISION - np.log2(self.cumulative(rows, index + 1) - self.cumulative(rows, index))

    def index(self, symbols: np.ndarray, component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows, and indices in them, of images in components: ``[N, D]`` each."""
        d = self.tables.latent_dim
        rows = component.astype(np.int64)[:, None] * d + np.arange(d)
        return rows, self.indices(rows, symbols)

    def indices(self, rows: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Of symbols in rows, arrays of one shape; the escape's for symbols outside."""
        index = symbols - self.first[rows]
        return np.where((index < 0) | (index >= self.count[rows]), self.count[rows], index)

    def bits(self, symbols: np.ndarray) -> np.ndarray:
        """Bits that a perfect coder with these tables spends on each image, ``[N, D] -> [N]``."""
        component = self.tables.assign(symbols, self.step)
        rows, _ = self.index(symbols, component)
        return PRECISION - np.log2(self.tables.weights[component]) + self.bits_in(rows, symbols)

    def bits_in(self, rows: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """The same of symbols whose rows are known, ``[N, D]`` twice ``-> [N]``."""
        index = self.indices(rows, symbols)
        prices = self.prices(rows, index).sum(1)
        count, first = self.count[rows], self.first[rows]
        for n in np.flatnonzero((index == count).any(1)):
            one = slice(n, n + 1)
            prices[n] += 8 * len(escapes.write(symbols[one], index[one], first[one], count[one]))
        return prices


# One book at a time: a program that alternates between two steps rebuilds what it looks up.
@functools.lru_cache(maxsize=1)
def _book(tables: Tables, step: int) -> Book:
    return Book(tables, step)


def _trailing_zeros(numbers: np.ndarray) -> int:
    """The exponent of the largest power of two that divides all numbers, at most 24."""
    bits = int(np.bitwise_or.reduce(numbers.ravel())) | 1 << 24
    return (bits & -bits).bit_length() - 1
