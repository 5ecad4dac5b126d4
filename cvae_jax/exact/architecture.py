"""The shape of an integer decoder: which layers there are, of what sizes, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from cvae_jax.config import Size, evenly_halved
from cvae_jax.errors import FormatError

KERNEL = 3
STRIDE = 2
MAX_SIDE = 1 << 13  # pixels, and of any other number in an architecture
MAX_STAGES = 8
MAX_BLOCKS = 8


class Shape(NamedTuple):
    """One layer.

    There are four kinds: dense; a transposed convolution of stride 2; one of stride 1; and one of
    stride 1 that skips, which also adds what the layer before it was given, channel by channel.
    """

    inputs: int  # channels of what goes in; of a dense layer all numbers of it
    channels: int  # of what comes out
    before: Size  # of what goes in; of a dense layer 1, 1
    size: Size  # of what comes out
    stride: int = 1
    dense: bool = False
    skips: bool = False

    @property
    def outputs(self) -> int:
        """Sums with weights and a bias of their own."""
        return self.channels * math.prod(self.size) if self.dense else self.channels

    @property
    def weights(self) -> tuple[int, ...]:
        taps = () if self.dense else (KERNEL, KERNEL)
        return (*taps, self.inputs, self.outputs)

    @property
    def multiply_adds(self) -> int:
        """Per image."""
        skipped = self.channels if self.skips else 0
        return math.prod(self.before) * (math.prod(self.weights) + skipped)

    @property
    def scratch(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what a convolution makes of an image, all float32.

        What each tap makes of the inputs, ``[3, 3, channels, h, w]``; the sums, ``[stride, stride,
        channels, h + 2 // stride, w + 2 // stride]``; what it passes on, ``[channels, H, W]``.
        """
        (h, w), c, r = self.before, self.channels, self.stride
        spare = (KERNEL - 1) // r
        return (KERNEL, KERNEL, c, h, w), (r, r, c, h + spare, w + spare), (c, *self.size)


class Architecture(NamedTuple):
    """One dense vector of latents, and a dense layer; or a map of them, a convolution of stride 1
    and two for each residual block.  Then a stride-2 transposed convolution per filter, an output.
    """

    image_shape: tuple[int, int, int]  # H, W, C
    latent_dim: int  # 0 of a map
    filters: tuple[int, ...]  # of the encoder's convolutions; the decoder mirrors them
    latent_channels: int = 0  # of a map
    blocks: int = 0  # of a map

    @property
    def sizes(self) -> list[Size]:
        """Height and width of what goes into each transposed convolution, smallest first; and of
        the image."""
        sizes = [self.image_shape[:2]]
        for _ in self.filters:
            h, w = sizes[-1]
            sizes.append((-(-h // STRIDE), -(-w // STRIDE)))
        return [*sizes[::-1], self.image_shape[:2]]

    @property
    def places(self) -> Size:
        """Rows and columns of the latents: 1, 1 unless they are a map."""
        return self.sizes[0] if self.latent_channels else (1, 1)

    @property
    def at_a_place(self) -> int:
        """Latents at each place."""
        return self.latent_channels or self.latent_dim

    @property
    def latents(self) -> int:
        """Numbers that an image is decoded from."""
        return math.prod(self.places) * self.at_a_place

    @property
    def layers(self) -> list[Shape]:
        return list(self._layers())

    def _layers(self) -> Iterator[Shape]:
        smallest, *larger, whole = self.sizes
        c = self.filters[-1]
        yield Shape(self.at_a_place, c, self.places, smallest, dense=not self.latent_channels)
        for _ in range(self.blocks):
            yield Shape(c, c, smallest, smallest)
            yield Shape(c, c, smallest, smallest, skips=True)
        before = smallest
        for size, channels in zip(larger, self.filters[::-1], strict=True):
            yield Shape(c, channels, before, size, STRIDE)
            before, c = size, channels
        yield Shape(c, self.image_shape[2], whole, whole)

    def resized(self, height: int, width: int) -> Architecture:
        """The same layers for images of another size, or of the next larger one that its stages
        halve evenly, as they do its own: what is beyond is cut off.

        Raises:
          FormatError: the layers are of one size only, or there is no such size.
        """
        h, w, channels = self.image_shape
        scale = STRIDE ** len(self.filters)
        if not self.latent_channels:
            raise FormatError(f"a model of one dense vector of latents has images of {h}x{w} alone")
        if h % scale or w % scale:
            raise FormatError(
                f"images of other sizes need a model of a multiple of {scale} pixels each way; "
                f"this one's are {h}x{w}"
            )
        even = evenly_halved((height, width), len(self.filters))
        resized = self._replace(image_shape=(*even, channels))
        resized.check()
        return resized

    def check(self) -> None:
        """Raises FormatError for dimensions that no decoder has."""
        numbers = [*self.image_shape, self.at_a_place, *self.filters]
        kinds = self.blocks == 0 or (self.latent_channels and 0 <= self.blocks <= MAX_BLOCKS)
        stages = 1 <= len(self.filters) <= MAX_STAGES
        if not kinds or not stages or not all(1 <= n <= MAX_SIDE for n in numbers):
            raise FormatError("a decoder of impossible dimensions")

    def multiply_adds(self) -> int:
        """Per image, of a decoder that uses all its latents."""
        return sum(layer.multiply_adds for layer in self.layers)

    def memory(self) -> int:
        """Bytes that decoding takes for each image in a microbatch, at most, besides the image:
        what ``by_numpy`` holds, which is more than compiled code does."""
        # What goes into the first layer, of a map twice in compiled code; and what a dense layer
        # passes on.
        numbers = self.latents * (2 if self.latent_channels else 1)
        numbers += sum(layer.outputs for layer in self.layers if layer.dense)
        largest = [max(map(math.prod, arrays)) for arrays in zip(*self.scratch(), strict=True)]
        # The outputs of one layer are the inputs of the next.
        numbers += sum(largest) + largest[-1]
        # Of each output, an index (8 bytes) and the level that it finds (1).
        return 4 * numbers + 9 * math.prod(self.image_shape)

    def scratch(self) -> list[tuple[tuple[int, ...], ...]]:
        """``Shape.scratch`` of each convolution."""
        return [layer.scratch for layer in self.layers if not layer.dense]


def low_padding(size: tuple[int, int], stride: int, into: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a transposed convolution's first windows that lie outside its output.

    As SAME pads the convolution that it transposes, from ``into`` to ``size``.
    """
    top, left = (
        max((m - 1) * stride + KERNEL - n, 0) // 2 for m, n in zip(size, into, strict=True)
    )
    return top, left
