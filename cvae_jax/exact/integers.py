"""A decoder in integers: what takes symbols to grey levels, and the proof that it is exact.

Layers multiply small integers and add them up.  Held in float32, integers below 2**24 are exact
in any order of summation, so that an ordinary matrix product on any device gives the same sums;
``validate`` proves from the weights themselves that no sum can get there.  Between layers a sum
is shifted right and cut to a few bits; at the end a sorted list of thresholds turns it into a
grey level.  ``docs/FORMAT.md`` specifies all of it.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c
import numpy as np

from cvae_jax.coding.integers import packing
from cvae_jax.errors import FormatError

EXACT = 1 << 24  # float32 holds every integer up to here
KERNEL = 3
STRIDE = 2
LEVELS = 255  # thresholds, of the levels from 1 on
MAX_SIDE = 1 << 13  # pixels, and of any other number in an architecture
MAX_STAGES = 8
MAX_SHIFT = 23  # of a sum
MAX_SPAN = 1 << 16  # from the lowest threshold to the highest

_HEADER = struct.Struct("<4sBHHHIIBBI")
_MAGIC = b"CVID"
_VERSION = 1


class Architecture(NamedTuple):
    """The shape of a decoder: dense, a stride-2 transposed convolution per filter, an output."""

    image_shape: tuple[int, int, int]  # H, W, C
    latent_dim: int
    filters: tuple[int, ...]  # of the encoder's convolutions; the decoder mirrors them

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of what goes into each transposed convolution, smallest first; and of
        the image."""
        sizes = [self.image_shape[:2]]
        for _ in self.filters:
            h, w = sizes[-1]
            sizes.append((-(-h // STRIDE), -(-w // STRIDE)))
        return [*sizes[::-1], self.image_shape[:2]]

    @property
    def channels(self) -> list[int]:
        """Channels after each layer: dense, one transposed convolution per filter, output."""
        return [self.filters[-1], *self.filters[::-1], self.image_shape[2]]

    def check(self) -> None:
        """Raises FormatError for dimensions that no decoder has."""
        numbers = [*self.image_shape, self.latent_dim, *self.filters]
        if not 1 <= len(self.filters) <= MAX_STAGES or not all(1 <= n <= MAX_SIDE for n in numbers):
            raise FormatError("a decoder of impossible dimensions")

    def multiply_adds(self) -> int:
        """Per image, of a decoder that uses all its latents."""
        (h, w), *_ = self.sizes
        total, inputs = self.latent_dim * h * w * self.channels[0], self.channels[0]
        for size, outputs in zip(self.sizes, self.channels[1:], strict=False):
            total += size[0] * size[1] * KERNEL**2 * inputs * outputs
            inputs = outputs
        return total

    def memory(self) -> int:
        """Bytes that decoding takes for each image in a microbatch, at most, besides the image:
        what ``by_numpy`` holds, which is more than compiled code does."""
        sizes, channels = self.sizes, self.channels
        dense = self.latent_dim + math.prod(sizes[0]) * channels[0]
        largest = [max(map(math.prod, arrays)) for arrays in zip(*self.scratch(), strict=True)]
        # The outputs of one layer are the inputs of the next.
        numbers = dense + sum(largest) + largest[-1]
        # Of each output, an index (8 bytes) and the level that it finds (1).
        return 4 * numbers + 9 * math.prod(self.image_shape)

    def scratch(self) -> list[tuple[tuple[int, ...], ...]]:
        """Shapes of what each transposed convolution makes of an image, all float32.

        What each tap makes of the inputs, ``[3, 3, channels, h, w]``; the sums, ``[stride, stride,
        channels, h + 2 // stride, w + 2 // stride]``; what it passes on, ``[channels, H, W]``.
        """
        sizes, channels = self.sizes, self.channels
        shapes: list[tuple[tuple[int, ...], ...]] = []
        for k, (h, w) in enumerate(sizes[:-1]):
            stride = STRIDE if k < len(sizes) - 2 else 1
            c, spare = channels[k + 1], (KERNEL - 1) // stride
            taps = (KERNEL, KERNEL, c, h, w)
            sums = (stride, stride, c, h + spare, w + spare)
            shapes.append((taps, sums, (c, *sizes[k + 1])))
        return shapes


class Layer(NamedTuple):
    """Sums of weights times inputs, plus a bias; the sums are then shifted right."""

    weights: np.ndarray  # int [inputs, pixels * channels], or [3, 3, inputs, channels] by tap
    bias: np.ndarray  # int, one per output: [pixels * channels], or [channels]; of whole `grains`
    shift: np.ndarray  # uint8 [channels], of the sum of a channel
    bits: int  # what it passes on is from 0 to 2**bits - 1; 0 for the last layer

    @property
    def top(self) -> int:
        """The largest number that it passes on."""
        return (1 << self.bits) - 1

    @property
    def grain(self) -> np.ndarray:
        """What a bias is a whole multiple of, int64 like ``bias``: an eighth of what its sum is
        shifted by.  Nothing finer would be seen in many outputs."""
        each = np.maximum(self.shift.astype(np.int64) - 3, 0)
        return 1 << np.tile(each, len(self.bias) // len(each))


@dataclass(frozen=True, eq=False)
class IntegerDecoder:
    """A decoder in integers; ``by_numpy`` and ``by_jax`` compute it."""

    architecture: Architecture
    inputs: np.ndarray  # uint32 [L], the latents that it uses, in rising order
    limits: np.ndarray  # uint16 [L], the largest size of each as an input
    input_shift: int  # a latent in units is shifted right by so much
    layers: tuple[Layer, ...]  # dense, transposed convolutions, output
    thresholds: np.ndarray  # int32 [255], rising: the lowest output of each level from 1 on
    units_check: int  # CRC-32C of the units of the latents (``Tables.unit``), float32 [D]

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of ``to_bytes()``."""
        return hashlib.sha256(self.to_bytes()).digest()

    def inputs_of(self, symbols: np.ndarray, step: int) -> np.ndarray:
        """What goes into the first layer, int32 ``[N, L]``, of int32 ``[N, D]`` symbols."""
        units = symbols[:, self.inputs].astype(np.int64) * step
        half = 1 << self.input_shift >> 1
        limits = self.limits.astype(np.int64)
        return np.clip((units + half) >> self.input_shift, -limits, limits).astype(np.int32)

    def validate(self) -> None:
        """Proves that every sum of every possible image is exact.

        Raises:
          FormatError: it is not, or a shape is not the architecture's.
        """
        channels, sizes = self.architecture.channels, self.architecture.sizes
        inputs, taps = len(self.inputs), (KERNEL, KERNEL)
        pixels = math.prod(sizes[0])
        if len(self.layers) != len(channels):
            raise FormatError("an integer decoder with too few or too many layers")
        for k, layer in enumerate(self.layers):
            outputs = pixels * channels[0] if k == 0 else channels[k]
            shape = (inputs, outputs) if k == 0 else (*taps, channels[k - 1], outputs)
            if layer.weights.shape != shape or layer.bias.shape != (outputs,):
                raise FormatError("an integer decoder whose weights are not of its architecture")
            if layer.shift.shape != (channels[k],) or layer.shift.max() > MAX_SHIFT:
                raise FormatError("an integer decoder that shifts too far")
            largest = self.largest_sum(k)
            if largest >= EXACT:
                raise FormatError(
                    f"an integer decoder whose layer {k} could reach {largest}, beyond 2**24: "
                    "its sums would not be exact"
                )
        rises = np.diff(self.thresholds.astype(np.int64))
        if self.thresholds.shape != (LEVELS,) or rises.min() < 0 or rises.sum() > MAX_SPAN:
            raise FormatError("an integer decoder whose thresholds do not rise, or rise too far")

    def largest_sum(self, k: int) -> int:
        """A bound on the size of any sum, and any part of one, in layer ``k``: of its weights'
        sizes times the largest inputs, and the bias."""
        layer = self.layers[k]
        sizes = np.abs(layer.weights)
        # Of a convolution all nine taps at once: no output pixel has more.
        sums = (
            sizes.sum((0, 1, 2), dtype=np.int64) * self.layers[k - 1].top
            if k
            else np.einsum("l,lo->o", self.limits.astype(np.int64), sizes)
        )
        return int((sums + np.abs(layer.bias.astype(np.int64))).max())

    # Bytes

    def to_bytes(self) -> bytes:
        """As a checkpoint and an archive hold it."""
        return self.packed

    @functools.cached_property
    def packed(self) -> bytes:
        """``to_bytes``."""
        (h, w, c), d, filters = self.architecture
        head = _HEADER.pack(
            *(_MAGIC, _VERSION, h, w, c, d, len(self.inputs)),
            *(len(filters), self.input_shift, self.units_check),
        )
        bits = [layer.bits for layer in self.layers]
        numbers = [
            np.array(filters),
            np.array(bits),
            np.diff(self.inputs.astype(np.int64), prepend=0),
        ]
        numbers += [self.limits, np.diff(self.thresholds.astype(np.int64), prepend=0)]
        for layer in self.layers:
            numbers += [layer.shift, layer.bias // layer.grain, layer.weights]
        body = b"".join(packing.pack(array) for array in numbers)
        return head + body

    @classmethod
    def from_bytes(cls, data: bytes, spend: packing.Spend = packing.unlimited) -> IntegerDecoder:
        """The inverse of ``to_bytes``, proved exact.

        spend: as for ``packing.Packed``.

        Raises:
          FormatError: these bytes are no integer decoder, or one that could overflow.
        """
        h, w, c, d, used, stages, input_shift, units_check = packing.header(
            _HEADER, data, _MAGIC, _VERSION, "an integer decoder"
        )
        if not 1 <= stages <= MAX_STAGES or used > d or input_shift > 16:
            raise FormatError("an integer decoder of impossible dimensions")
        packed = packing.Packed(data, _HEADER.size, spend)
        take = packed.take

        filters = tuple(int(n) for n in take(stages))
        architecture = Architecture((h, w, c), d, filters)
        architecture.check()
        bits = take(stages + 2)
        inputs = np.cumsum(take(used), dtype=np.int64)
        if used and not (inputs[0] >= 0 and (np.diff(inputs) > 0).all() and inputs[-1] < d):
            raise FormatError("an integer decoder that uses latents that there are not")
        limits, thresholds = take(used), np.cumsum(take(LEVELS), dtype=np.int64)
        if bits.min() < 0 or bits.max() > 16 or bits[-1]:
            raise FormatError("an integer decoder of impossible numbers")
        if _largest(thresholds) >= EXACT or limits.min(initial=0) < 0 or _largest(limits) >> 16:
            raise FormatError("an integer decoder of impossible numbers")
        pixels, channels = math.prod(architecture.sizes[0]), architecture.channels
        layers = []
        for k, outputs in enumerate(channels):
            many = outputs * pixels if k == 0 else outputs
            shift, grains = take(outputs), take(many)
            shape = (used, many) if k == 0 else (KERNEL, KERNEL, channels[k - 1], many)
            weights = take(*shape)
            if shift.min() < 0 or shift.max() > MAX_SHIFT or _largest(weights, grains) >= EXACT:
                raise FormatError("an integer decoder of impossible numbers")
            layer = Layer(
                weights.astype(np.int32, copy=False), grains, shift.astype(np.uint8), int(bits[k])
            )
            layers.append(layer._replace(bias=grains * layer.grain))
        packed.end()
        decoder = cls(
            architecture,
            inputs.astype(np.uint32),
            limits.astype(np.uint16),
            input_shift,
            tuple(layers),
            thresholds.astype(np.int32),
            units_check,
        )
        decoder.validate()
        vars(decoder)["packed"] = data  # as it came: packing it anew takes long
        return decoder


def units_check(unit: np.ndarray) -> int:
    """What a decoder keeps of the units that it counts in: CRC-32C of float32 ``[D]``."""
    return google_crc32c.value(unit.astype("<f4").tobytes())


def low_padding(size: tuple[int, int], stride: int, into: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a transposed convolution's first windows that lie outside its output.

    As SAME pads the convolution that it transposes, from ``into`` to ``size``.
    """
    top, left = (
        max((m - 1) * stride + KERNEL - n, 0) // 2 for m, n in zip(size, into, strict=True)
    )
    return top, left


def _largest(*arrays: np.ndarray) -> int:
    """The largest size of any number in the arrays."""
    return max(max(int(a.max(initial=0)), -int(a.min(initial=0))) for a in arrays)
