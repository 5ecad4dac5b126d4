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
from dataclasses import dataclass, replace
from typing import NamedTuple

import google_crc32c
import numpy as np

from cvae_jax.coding.integers import packing
from cvae_jax.errors import FormatError
from cvae_jax.exact.architecture import MAX_STAGES, Architecture, Shape

EXACT = 1 << 24  # float32 holds every integer up to here
LEVELS = 255  # thresholds, of the levels from 1 on
MAX_SHIFT = 23  # of a sum
MAX_INPUT_SHIFT = 16
MAX_SPAN = 1 << 16  # from the lowest threshold to the highest

_MAGIC = b"CVID"
_DENSE, _MAP = 1, 2  # versions, of decoders of a vector and of a map
_HEADERS = {_DENSE: struct.Struct("<4sBHHHIIBBI"), _MAP: struct.Struct("<4sBHHHIIBBIB")}


class Layer(NamedTuple):
    """Sums of weights times inputs, plus a bias; the sums are then shifted right."""

    weights: np.ndarray  # int [inputs, pixels * channels], or [3, 3, inputs, channels] by tap
    bias: np.ndarray  # int, one per output: [pixels * channels], or [channels]; of whole `grains`
    shift: np.ndarray  # uint8 [channels], of the sum of a channel
    bits: int  # what it passes on is from 0 to 2**bits - 1; 0 for the last layer
    # int [channels] of one that skips: what the inputs of the layer before it are added times.
    skip: np.ndarray | None = None

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
    inputs: np.ndarray  # uint32 [L], the latents of a place that it uses, in rising order
    limits: np.ndarray  # uint16 [L], the largest size of each as an input
    input_shift: int  # a latent in units is shifted right by so much
    layers: tuple[Layer, ...]  # as the architecture has them
    thresholds: np.ndarray  # int32 [255], rising: the lowest output of each level from 1 on
    units_check: int  # CRC-32C of the units of the latents (``Tables.unit``), float32 [D]

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of ``to_bytes()``."""
        return hashlib.sha256(self.to_bytes()).digest()

    @property
    def shapes(self) -> list[Shape]:
        """Of the layers; the first has the inputs that are used, and no others."""
        first, *others = self.architecture.layers
        return [first._replace(inputs=len(self.inputs)), *others]

    def resized(self, height: int, width: int) -> IntegerDecoder:
        """The same layers for images of another size, as exact as this; raises what
        ``Architecture.resized`` does."""
        return replace(self, architecture=self.architecture.resized(height, width))

    def inputs_of(self, units: np.ndarray) -> np.ndarray:
        """What goes into the first layer, of latents, int64 ``[N, D]`` in units: int32
        ``[N, P * L]``, for each of the P places of the latents those that are used."""
        n, places = len(units), math.prod(self.architecture.places)
        used = units.reshape(n, places, self.architecture.at_a_place)[..., self.inputs]
        half = 1 << self.input_shift >> 1
        limits = self.limits.astype(np.int64)
        whole = np.clip((used + half) >> self.input_shift, -limits, limits).astype(np.int32)
        return whole.reshape(n, places * len(limits))

    def validate(self) -> None:
        """Proves that every sum of every possible image is exact.

        Raises:
          FormatError: it is not, or a shape is not the architecture's.
        """
        shapes = self.shapes
        if len(self.layers) != len(shapes):
            raise FormatError("an integer decoder with too few or too many layers")
        for k, (layer, shape) in enumerate(zip(self.layers, shapes, strict=True)):
            found = layer.weights.shape, layer.bias.shape, layer.skip is None or layer.skip.shape
            skip = (shape.channels,) if shape.skips else True
            if found != (shape.weights, (shape.outputs,), skip):
                raise FormatError("an integer decoder whose weights are not of its architecture")
            if layer.shift.shape != (shape.channels,) or layer.shift.max() > MAX_SHIFT:
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
        layer, largest = self.layers[k], self._largest_inputs(k)
        # Of a convolution all nine taps at once: no output pixel has more.
        taps = math.prod(layer.weights.shape[:-2])
        sizes = np.abs(layer.weights).reshape(taps, len(largest), len(layer.bias))
        sums = np.einsum("tio,i->o", sizes, largest) + np.abs(layer.bias.astype(np.int64))
        if layer.skip is not None:
            sums += np.abs(layer.skip.astype(np.int64)) * self._largest_inputs(k - 1)
        return int(sums.max())

    def _largest_inputs(self, k: int) -> np.ndarray:
        """The largest size of each number, or of a convolution each channel, that goes into layer
        ``k``: int64."""
        if k == 0:
            return self.limits.astype(np.int64)
        return np.full(self.layers[k].weights.shape[-2], self.layers[k - 1].top, np.int64)

    # Bytes

    def to_bytes(self) -> bytes:
        """As a checkpoint and an archive hold it."""
        return self.packed

    @functools.cached_property
    def packed(self) -> bytes:
        """``to_bytes``."""
        shape = self.architecture
        version = _MAP if shape.latent_channels else _DENSE
        head = _HEADERS[version].pack(
            *(_MAGIC, version, *shape.image_shape, shape.at_a_place, len(self.inputs)),
            *(len(shape.filters), self.input_shift, self.units_check),
            *([shape.blocks] if version == _MAP else []),
        )
        bits = [layer.bits for layer in self.layers]
        numbers = [
            np.array(shape.filters),
            np.array(bits),
            np.diff(self.inputs.astype(np.int64), prepend=0),
        ]
        numbers += [self.limits, np.diff(self.thresholds.astype(np.int64), prepend=0)]
        for layer in self.layers:
            skip = [] if layer.skip is None else [layer.skip]
            numbers += [layer.shift, layer.bias // layer.grain, *skip, layer.weights]
        body = b"".join(packing.pack(array) for array in numbers)
        return head + body

    @classmethod
    def from_bytes(cls, data: bytes, spend: packing.Spend = packing.unlimited) -> IntegerDecoder:
        """The inverse of ``to_bytes``, proved exact.

        spend: as for ``packing.Packed``.

        Raises:
          FormatError: these bytes are no integer decoder, or one that could overflow.
        """
        version = _MAP if data[4:5] == bytes([_MAP]) else _DENSE
        h, w, c, latents, used, stages, input_shift, units_check, *blocks = packing.header(
            _HEADERS[version], data, _MAGIC, version, "an integer decoder"
        )
        if not 1 <= stages <= MAX_STAGES or used > latents or input_shift > MAX_INPUT_SHIFT:
            raise FormatError("an integer decoder of impossible dimensions")
        packed = packing.Packed(data, _HEADERS[version].size, spend)
        take = packed.take

        filters = tuple(int(n) for n in take(stages))
        of_map = (0, filters, latents, *blocks)
        architecture = Architecture((h, w, c), *(of_map if blocks else (latents, filters)))
        architecture.check()
        shapes = architecture.layers
        bits = take(len(shapes))
        inputs = np.cumsum(take(used), dtype=np.int64)
        if used and not (inputs[0] >= 0 and (np.diff(inputs) > 0).all() and inputs[-1] < latents):
            raise FormatError("an integer decoder that uses latents that there are not")
        limits, thresholds = take(used), np.cumsum(take(LEVELS), dtype=np.int64)
        if bits.min() < 0 or bits.max() > 16 or bits[-1]:
            raise FormatError("an integer decoder of impossible numbers")
        if _largest(thresholds) >= EXACT or limits.min(initial=0) < 0 or _largest(limits) >> 16:
            raise FormatError("an integer decoder of impossible numbers")
        shapes[0] = shapes[0]._replace(inputs=used)
        layers = []
        for shape, of_layer in zip(shapes, bits, strict=True):
            shift, grains = take(shape.channels), take(shape.outputs)
            skip = take(shape.channels) if shape.skips else None
            weights = take(*shape.weights)
            sizes = _largest(weights, grains, *([] if skip is None else [skip]))
            if shift.min() < 0 or shift.max() > MAX_SHIFT or sizes >= EXACT:
                raise FormatError("an integer decoder of impossible numbers")
            layer = Layer(
                weights.astype(np.int32, copy=False),
                grains,
                shift.astype(np.uint8),
                int(of_layer),
                skip,
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


def _largest(*arrays: np.ndarray) -> int:
    """The largest size of any number in the arrays."""
    return max(max(int(a.max(initial=0)), -int(a.min(initial=0))) for a in arrays)
