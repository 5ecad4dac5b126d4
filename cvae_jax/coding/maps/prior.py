"""The prior of a map of latents, in integers that never change: a map model's ``tables.bin``.

Latents are coded place by place, and at a place in groups of channels; places that do not depend on
each other, a *wave* that runs down the map slantwise, together.  A small network sees the latents
around a place that were coded before, then those of the place's earlier groups, and predicts each
latent: its mean, and how far from it the latent may be.  A symbol says
by how many steps the latent differs from that mean; its distribution is one integer curve,
stretched by one of a few widths, as in ``coding.tables``.  As the integer decoder does, the network
multiplies small integers and adds them up in float32, where sums below 2**24 are exact in any
order; ``validate`` proves that none gets there.  ``docs/FORMAT.md`` specifies all of it.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cvae_jax.coding.integers import packing
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.integers.layers import EXACT, MAX_SHIFT, Layer
from cvae_jax.coding.vectors.tables import REACH, Book, Tables
from cvae_jax.errors import FormatError

# Rows and columns, from a place, of what is known of its neighbours.
NEIGHBOURS = tuple((y, x) for y in (-2, -1, 0) for x in range(-2, 3) if y < 0 or x < 0)
DELAY = 3  # columns by which a row is coded behind the one above: its neighbours are then known
MEAN_UNIT = 16  # units that the network's means are whole multiples of
WIDTHS = 104
# 1024 * 2**(k / 8), rounded: widths have eight to an octave.
_OCTAVE = (1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878)
# By its number, the distance of the curve's points, in 1/256 units.
WIDTH = np.array([(_OCTAVE[k % 8] << k // 8) >> 4 for k in range(WIDTHS)], np.int64)
# 2**15 * 2**(k / 16), rounded up, from k = 1: a step's logarithm is in sixteenths.
_SIXTEENTHS = (
    *(34219, 35734, 37316, 38968, 40694, 42495, 44377, 46341),
    *(48393, 50536, 52773, 55109, 57549, 60097, 62758),
)
MAX_SIDE, MAX_LATENTS = 1 << 13, 1 << 22  # rows or columns, and all together
MAX_CHANNELS, MAX_GROUPS, MAX_HIDDEN = 1 << 10, 64, 1 << 10
LARGEST_INPUT = 1 << 12

_HEADER = struct.Struct("<4sBHHHBB3HdfB")
MAGIC = b"CVMP"
_VERSION = 1


class Group(NamedTuple):
    """The layers of a group of channels."""

    first: Layer  # of the context, and of the place's earlier groups
    second: Layer
    output: Layer  # means of the group's channels in MEAN_UNIT, then the numbers of their widths


class Places(NamedTuple):
    """Places of a map, int64 ``[P]`` each."""

    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True, eq=False)
class MapPrior:
    """The distribution of a map model's latents, in integers; see ``docs/FORMAT.md``."""

    grid: tuple[int, int, int]  # rows, columns and channels of the map
    unit_size: float  # latent value of one unit, a float32; not used in entropy coding
    slope: float  # squared error that a bit is worth, over step**2; for encoders that search
    curve: np.ndarray  # uint32 [2 * REACH + 1], cumulative, from 0, strictly increasing
    input_shift: int  # a latent in units is shifted right by so much
    limits: np.ndarray  # uint16 [c], the largest size of each channel as an input
    context: Layer  # of the neighbours, and of the step's logarithm
    groups: tuple[Group, ...]

    @property
    def kind(self) -> str:
        """In words."""
        return "{} x {} x {} latents".format(*self.grid)

    @property
    def latent_dim(self) -> int:
        """How many symbols an image has."""
        h, w, c = self.grid
        return h * w * c

    @property
    def width_of_group(self) -> int:
        """Channels of a group."""
        return self.grid[2] // len(self.groups)

    def resized(self, height: int, width: int) -> MapPrior:
        """The same for maps of so many rows and columns.  Raises FormatError: too many."""
        channels = self.grid[2]
        if not all(1 <= n <= MAX_SIDE for n in (height, width)):
            raise FormatError(f"a map of {height} x {width} latents")
        if height * width * channels > MAX_LATENTS:
            raise FormatError(f"a map of {height} x {width} x {channels} latents, too many for one")
        return replace(self, grid=(height, width, channels))

    @functools.cached_property
    def unit(self) -> np.ndarray:
        """float32 ``[D]``, as ``Tables.unit``."""
        return np.full(self.latent_dim, self.unit_size, np.float32)

    @functools.cached_property
    def waves(self) -> list[Places]:
        """The places of a map in the order in which they are coded, as many at once as can be."""
        h, w, _ = self.grid
        rows, columns = np.divmod(np.arange(h * w), w)
        wave = columns + DELAY * rows
        order = np.argsort(wave, kind="stable")
        starts = np.flatnonzero(np.diff(wave[order])) + 1
        return [Places(rows[at], columns[at]) for at in np.split(order, starts)]

    @functools.cached_property
    def widths(self) -> Tables:
        """The distributions of symbols, as a single component's: one "dimension" for each width."""
        return Tables(
            unit=np.full(WIDTHS, self.unit_size, np.float32),
            slope=self.slope,
            weights=np.array([TOTAL], np.uint32),
            means=np.zeros((1, WIDTHS), np.int32),
            widths=WIDTH[None].astype(np.uint32),
            curve=self.curve,
        )

    def book(self, step: int) -> Book:
        """The frequencies of one step of the quantiser, a row for each width."""
        return self.widths.book(step)

    @property
    def multiply_adds(self) -> int:
        """Of one place."""
        layers = [self.context, *(layer for group in self.groups for layer in group)]
        return sum(layer.weights.size for layer in layers)

    @property
    def activations(self) -> int:
        """The numbers that the network holds of a place, at most."""
        first, second, _ = self.groups[0]
        layers = self.context, first, second
        return sum(sum(layer.weights.shape) for layer in layers)

    def validate(self) -> None:
        """Proves that every sum of every possible map is exact, and every frequency positive.

        Raises:
          FormatError: it is not, or a shape is not the architecture's.
        """
        c, g = self.grid[2], self.width_of_group
        curve = self.curve.astype(np.int64)
        for fault, wrong in (
            ("a unit is not positive and finite", not 0 < self.unit_size < np.inf),
            ("the slope is not positive and finite", not 0 < self.slope < np.inf),
            ("the curve is not increasing from 0", curve[0] != 0 or (np.diff(curve) < 1).any()),
            ("the curve's total is too large", curve[-1] > 1 << 30),
            ("a limit is out of range", self.limits.max() > LARGEST_INPUT),
        ):
            if wrong:
                raise FormatError(f"a map's prior: {fault}")
        limits = self.limits.astype(np.int64)
        step = np.array([16 * 16], np.int64)  # above any step's logarithm
        around = np.concatenate([np.tile(limits, len(NEIGHBOURS)), step])
        self.context.check(around, "a map's prior: the context")
        context = np.full(len(self.context.bias), self.context.top, np.int64)
        for k, (first, second, output) in enumerate(self.groups):
            known = np.concatenate([context, limits[: k * g]])
            first.check(known, f"a map's prior: the first layer of group {k}")
            second.check(
                np.full(len(first.bias), first.top), f"a map's prior: the second layer of group {k}"
            )
            output.check(
                np.full(len(second.bias), second.top), f"a map's prior: the output of group {k}"
            )
            if len(output.bias) != 2 * g or g * len(self.groups) != c:
                raise FormatError("a map's prior: its groups do not make up its channels")

    # Bytes

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of ``to_bytes()``."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """As a checkpoint and an archive hold it."""
        return self.packed

    @functools.cached_property
    def packed(self) -> bytes:
        """``to_bytes``."""
        first, second, _ = self.groups[0]
        hidden = len(self.context.bias), len(first.bias), len(second.bias)
        head = _HEADER.pack(
            *(MAGIC, _VERSION, *self.grid, len(self.groups), self.input_shift, *hidden),
            *(self.slope, self.unit_size, self.context.bits),
        )
        numbers = [np.diff(self.curve.astype(np.int64)), self.limits]
        numbers += [np.array([layer.bits for group in self.groups for layer in group[:2]])]
        for layer in (self.context, *(layer for group in self.groups for layer in group)):
            numbers += [layer.shift, layer.bias, layer.weights]
        return head + b"".join(packing.pack(array) for array in numbers)

    @classmethod
    def from_bytes(cls, data: bytes, spend: packing.Spend = packing.unlimited) -> MapPrior:
        """The inverse of ``to_bytes``, proved exact.

        spend: as for ``packing.Packed``.

        Raises:
          FormatError: these bytes are no map's prior, or one that could overflow.
        """
        h, w, c, groups, input_shift, *hidden, slope, unit, bits = packing.header(
            _HEADER, data, MAGIC, _VERSION, "a map's prior"
        )
        possible = (
            all(1 <= n <= MAX_SIDE for n in (h, w))
            and 1 <= c <= MAX_CHANNELS
            and h * w * c <= MAX_LATENTS
            and 1 <= groups <= MAX_GROUPS
            and c % groups == 0
            and input_shift <= 16
            and all(1 <= n <= MAX_HIDDEN for n in hidden)
        )
        if not possible:
            raise FormatError("a map's prior of impossible dimensions")
        packed = packing.Packed(data, _HEADER.size, spend)
        differences, limits = packed.take(2 * REACH), packed.take(c)
        bits_of = packed.take(groups, 2)
        if min(bits, bits_of.min()) < 1 or max(bits, bits_of.max()) > 16:
            raise FormatError("a map's prior of impossible numbers")
        small = differences.min() >= 0 and differences.sum(dtype=np.int64) <= 1 << 30
        if not small or limits.min() < 0 or limits.max() > LARGEST_INPUT:
            raise FormatError("a map's prior of impossible numbers")

        def layer(inputs: int, outputs: int, bits: int) -> Layer:
            shift, bias = packed.take(outputs), packed.take(outputs)
            weights = packed.take(outputs, inputs)
            if shift.min() < 0 or shift.max() > MAX_SHIFT:
                raise FormatError("a map's prior that shifts too far")
            if max(np.abs(bias).max(), np.abs(weights).max(initial=0)) >= EXACT:
                raise FormatError("a map's prior of impossible numbers")
            return Layer(
                weights.astype(np.int32), bias.astype(np.int32), shift.astype(np.uint8), bits
            )

        width, (h0, h1, h2) = c // groups, hidden
        context = layer(len(NEIGHBOURS) * c + 1, h0, bits)
        made = tuple(
            Group(
                layer(h0 + k * width, h1, int(b1)), layer(h1, h2, int(b2)), layer(h2, 2 * width, 0)
            )
            for k, (b1, b2) in enumerate(bits_of)
        )
        packed.end()
        prior = cls(
            grid=(h, w, c),
            unit_size=unit,
            slope=slope,
            curve=np.concatenate([[0], np.cumsum(differences, dtype=np.int64)]).astype(np.uint32),
            input_shift=input_shift,
            limits=limits.astype(np.uint16),
            context=context,
            groups=made,
        )
        prior.validate()
        vars(prior)["packed"] = data  # as it came: another encoder may pack it differently
        return prior


def log_of_step(step: int) -> int:
    """16 times the binary logarithm of a step, rounded down: 0 to 255."""
    exponent = step.bit_length() - 1
    mantissa = step << (15 - exponent)
    return 16 * exponent + sum(mantissa >= root for root in _SIXTEENTHS)
