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
from cvae_jax.bitstream.records import Chunk, Refinement
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

    def require_affordable(self, images: int, allowed: Budget, size: int) -> None:
        """Raises FormatError unless a file of that size may cost decoding so many images."""
        allowed.require(budget.PIXELS, images * math.prod(self.header.image_shape), size)
        if self.cost:
            at_once = min(images, budget.MICROBATCH)
            allowed.require(budget.MULTIPLY_ADDS, images * self.cost.multiply_adds, size)
            allowed.require(budget.ACTIVATIONS, at_once * self.cost.memory, size)


def _refinement_of(chunk: Chunk, context: bytes) -> Refinement:
    """A refined chunk's refinement; raises ModelMismatchError if it is not the context model's."""
    assert chunk.refinement is not None
    if chunk.refinement.model != context:
        raise ModelMismatchError(
            f"{chunk.where}: refined with context model {chunk.refinement.model.hex()}, but the "
            f"checkpoint's is {context.hex()}; give the checkpoint that compressed it"
        )
    return chunk.refinement
