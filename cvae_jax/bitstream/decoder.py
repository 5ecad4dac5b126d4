"""What reading a file needs of a model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.budget import Budget, Meter
from cvae_jax.bitstream.header import Header
from cvae_jax.bitstream.records import Chunk, Refinement, Size
from cvae_jax.coding.streams import CodingTables
from cvae_jax.errors import CvaeError, FormatError, ModelMismatchError


class Cost(NamedTuple):
    """Of decoding one image."""

    multiply_adds: int
    memory: int  # bytes, at most, besides the image itself


Spend = Callable[[int], None]  # raises FormatError where so many distributions are too many


class Context(NamedTuple):
    """What makes images of a base and a refinement."""

    digest: bytes  # 16, of the context model
    # From refinements and their bases, [based, H, W, C] each, to images, [count, H, W, C] each.
    refine: Callable[[Iterable[tuple[Refinement, np.ndarray]], Spend], Iterator[np.ndarray]]


class FileDecoder(NamedTuple):
    """What reading a file needs of a model."""

    header: Header  # which every archive of the model has
    tables: CodingTables
    decode_symbols: Callable[[np.ndarray, int], np.ndarray]  # [N, D], step -> uint8 [N, H, W, C]
    cost: Cost | None = None  # of an image, if the model came with the file and is not trusted
    context: Context | None = None  # None: refined images cannot be read
    size: Size | None = None  # of images, where it is not the header's
    # The same for images of another size, which raises FormatError; None: there is no other.
    resized: Callable[[Size], FileDecoder] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what it decodes."""
        h, w, channels = self.header.image_shape
        return (*(self.size or (h, w)), channels)

    def of(self, chunk: Chunk) -> FileDecoder:
        """What decodes a chunk, whatever the size of its images.

        Raises:
          FormatError: the model has no images of that size.
        """
        try:
            return self.of_size(chunk.size)
        except FormatError as error:
            raise type(error)(f"{chunk.where}: {error}") from error

    def of_size(self, size: Size | None) -> FileDecoder:
        """What decodes images of a size, None: the header's; raises FormatError as ``of``."""
        if size is None:
            return self
        if self.resized is None:
            h, w, _ = self.header.image_shape
            raise FormatError(f"images of {size[0]}x{size[1]}, but its model has {h}x{w} alone")
        return self.resized(size)

    def require(self, header: Header) -> None:
        """Raises ModelMismatchError unless an archive with this header is this model's."""
        header.identity.require(self.header.identity)
        if header != self.header:
            raise FormatError("the archive's header contradicts the model that it names")

    def refined(
        self, chunks: Iterable[tuple[Chunk, np.ndarray]], meter: Meter
    ) -> Iterator[np.ndarray]:
        """The images of refined chunks, checked: uint8 ``[count, H, W, C]`` each.

        chunks: with what their symbols decode to, ``[based, H, W, C]`` each; meter: of
        budget.DISTRIBUTIONS.

        Raises:
          FormatError: damaged, or more than is allowed.
          ModelMismatchError: refined with another context model.
        """
        if self.context is None:
            for chunk, _ in chunks:
                raise ModelMismatchError(
                    f"{chunk.where}: it is refined, and this model has no context model; give the "
                    "checkpoint that compressed it"
                )
            return
        digest, refine = self.context
        pending: deque[Chunk] = deque()  # drawn, and not yet decoded
        stopped: list[CvaeError] = []  # by a fault of the next chunk, which says itself where it is

        def refinements() -> Iterator[tuple[Refinement, np.ndarray]]:
            try:
                for chunk, base in chunks:
                    refinement = _refinement_of(chunk, digest)
                    pending.append(chunk)
                    yield refinement, base
            except CvaeError as error:
                stopped.append(error)

        def decoded() -> Iterator[np.ndarray]:
            try:
                yield from refine(refinements(), meter.spend)
            except FormatError as error:
                raise type(error)(f"{pending[0].where}: {error}") from error

        for images in decoded():
            pending.popleft().check_refined(images)
            yield images
        for error in stopped:
            raise error

    def levels_of(self, chunk: Chunk, bill: Bill) -> np.ndarray:
        """What all symbols of a chunk decode to, checked: uint8 ``[based, H, W, C]``.

        Raises:
          FormatError: damaged, or more than is allowed.
        """
        decoder = self.of(chunk)
        bill.pay_images(decoder, chunk.based)
        bill.lookups.spend(chunk.work(decoder.tables))
        symbols = chunk.symbols(decoder.tables, bill.allowed)
        levels = decoder.decode_symbols(symbols, chunk.step)
        chunk.check_pixels(levels)
        return levels

    def require_affordable(self, images: int, allowed: Budget, size: int) -> None:
        """Raises FormatError unless a file of that size may cost decoding so many images."""
        allowed.require(budget.PIXELS, images * math.prod(self.image_shape), size)
        if self.cost:
            at_once = min(images, budget.MICROBATCH)
            allowed.require(budget.MULTIPLY_ADDS, images * self.cost.multiply_adds, size)
            allowed.require(budget.ACTIVATIONS, at_once * self.cost.memory, size)


class Bill:
    """What reading a file of ``size`` bytes has cost so far, in any number of threads."""

    def __init__(self, allowed: Budget, size: int):
        self.allowed, self._size = allowed, size
        self.lookups = Meter(budget.LOOKUPS, allowed, size)
        self._pixels = Meter(budget.PIXELS, allowed, size)
        self._multiply_adds = Meter(budget.MULTIPLY_ADDS, allowed, size)

    def pay_images(self, decoder: FileDecoder, images: int) -> None:
        """For decoding images, where they are of another size than the header's: all others are
        paid for when it is known how many are wanted (``require_affordable``).

        Raises:
          FormatError: that is more than is allowed.
        """
        if decoder.size is None:
            return
        decoder.require_affordable(images, self.allowed, self._size)
        self.lookups.spend(budget.RESIZING)
        self._pixels.spend(images * math.prod(decoder.image_shape))
        if decoder.cost:
            self._multiply_adds.spend(images * decoder.cost.multiply_adds)


def _refinement_of(chunk: Chunk, context: bytes) -> Refinement:
    """A refined chunk's refinement; raises ModelMismatchError if it is not the context model's."""
    assert chunk.refinement is not None
    if chunk.refinement.model != context:
        raise ModelMismatchError(
            f"{chunk.where}: refined with context model {chunk.refinement.model.hex()}, but the "
            f"checkpoint's is {context.hex()}; give the checkpoint that compressed it"
        )
    return chunk.refinement
