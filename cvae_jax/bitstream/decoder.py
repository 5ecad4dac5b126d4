"""What reading a file needs of a model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.budget import Budget, Meter
from cvae_jax.bitstream.header import Header
from cvae_jax.bitstream.records import Chunk, Refinement
from cvae_jax.coding.streams import CodingTables
from cvae_jax.config import Size
from cvae_jax.errors import CvaeError, FormatError, ModelMismatchError


class Cost(NamedTuple):
    """Of decoding one image."""

    multiply_adds: int
    memory: int  # bytes, at most, besides the image itself


Counts = Mapping[Size | None, int]  # images, by their size
Spend = Callable[[int], None]  # raises FormatError where so many distributions are too many


class Context(NamedTuple):
    """What makes images of a base and a refinement."""

    digest: bytes  # 16, of the context model
    # From refinements and their bases, [based, H, W, C] each, to images, [count, H, W, C] each.
    refine: Callable[[Iterable[tuple[Refinement, np.ndarray]], Spend], Iterator[np.ndarray]]


class OtherSizes(NamedTuple):
    """What a model has for images of other sizes; both raise FormatError where it has nothing."""

    cost: Callable[[Size], Cost]
    decoder: Callable[[Size], FileDecoder]


class FileDecoder(NamedTuple):
    """What reading a file needs of a model."""

    header: Header  # which every archive of the model has
    tables: CodingTables
    decode_symbols: Callable[[np.ndarray, int], np.ndarray]  # [N, D], step -> uint8 [N, H, W, C]
    # Of an image, if the model came with the file and is not trusted, or the file names its size.
    cost: Cost | None = None
    context: Context | None = None  # None: refined images cannot be read
    size: Size | None = None  # of images, where it is not the header's
    sizes: OtherSizes | None = None  # None: the model has images of one size alone

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
        return self._sizes(size).decoder(size)

    def cost_of_size(self, size: Size | None) -> Cost | None:
        """Of an image of that size, with nothing made for it yet; raises as ``of_size``."""
        return self.cost if size is None else self._sizes(size).cost(size)

    def _sizes(self, size: Size) -> OtherSizes:
        h, w, _ = self.header.image_shape
        if size == (h, w):
            raise FormatError(f"it names {h}x{w} as another size, and that is the model's own")
        if self.sizes is None:
            raise FormatError(f"images of {size[0]}x{size[1]}, but its model has {h}x{w} alone")
        return self.sizes

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

        bill: nothing of what ``require_affordable`` knows.

        Raises:
          FormatError: damaged, or more than is allowed.
        """
        bill.pay_size(chunk)
        decoder = self.of(chunk)
        bill.pay_symbols(chunk, decoder.tables)
        symbols = chunk.symbols(decoder.tables, bill.allowed)
        levels = decoder.decode_symbols(symbols, chunk.step)
        chunk.check_pixels(levels)
        return levels

    def require_affordable(self, images: Counts, allowed: Budget, paid: int) -> None:
        """Raises FormatError unless a file may cost decoding so many images.

        images: by their size, None: the header's; paid: bytes of the file.
        """
        (*own, channels), pixels, multiply_adds = self.header.image_shape, 0, 0
        for size, count in images.items():
            pixels += count * math.prod(size or own) * channels
        allowed.require(budget.PIXELS, pixels, paid)
        memory = 0
        for size, count in images.items():
            if cost := self.cost_of_size(size):
                multiply_adds += count * cost.multiply_adds
                memory = max(memory, min(count, budget.at_once(cost.memory)) * cost.memory)
        allowed.require(budget.MULTIPLY_ADDS, multiply_adds, paid)
        allowed.require(budget.ACTIVATIONS, memory, paid)


class Bill:
    """What reading a file of ``paid`` bytes has cost so far, in any number of threads; besides what
    ``FileDecoder.require_affordable`` knows before."""

    def __init__(self, allowed: Budget, paid: int):
        self.allowed = allowed
        self._lookups = Meter(budget.LOOKUPS, allowed, paid)
        self._turns = Meter(budget.TURNS, allowed, paid)

    def pay_size(self, chunk: Chunk) -> None:
        """For making the model ready for a chunk's size.  Raises FormatError: more than allowed."""
        if chunk.size is not None:
            self._lookups.spend(budget.RESIZING)

    def pay_symbols(self, chunk: Chunk, tables: CodingTables) -> None:
        """For the symbols of a chunk; raises as ``pay_size``."""
        self._lookups.spend(chunk.work(tables))
        self._turns.spend(chunk.turns(tables))


def _refinement_of(chunk: Chunk, context: bytes) -> Refinement:
    """A refined chunk's refinement; raises ModelMismatchError if it is not the context model's."""
    assert chunk.refinement is not None
    if chunk.refinement.model != context:
        raise ModelMismatchError(
            f"{chunk.where}: refined with context model {chunk.refinement.model.hex()}, but the "
            f"checkpoint's is {context.hex()}; give the checkpoint that compressed it"
        )
    return chunk.refinement
