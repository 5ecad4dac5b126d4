"""What reading a file needs of a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.budget import Budget
from cvae_jax.bitstream.header import Header
from cvae_jax.coding.tables import Tables
from cvae_jax.errors import FormatError


class Cost(NamedTuple):
    """Of decoding one image."""

    multiply_adds: int
    memory: int  # bytes, at most, besides the image itself


class FileDecoder(NamedTuple):
    """What reading a file needs of a model."""

    header: Header  # which every archive of the model has
    tables: Tables
    decode_symbols: Callable[[np.ndarray, int], np.ndarray]  # [N, D], step -> uint8 [N, H, W, C]
    cost: Cost | None = None  # of an image, if the model came with the file and is not trusted

    def require(self, header: Header) -> None:
        """Raises ModelMismatchError unless an archive with this header is this model's."""
        header.identity.require(self.header.identity)
        if header != self.header:
            raise FormatError("the archive's header contradicts the model that it names")

    def require_affordable(self, images: int, allowed: Budget, size: int) -> None:
        """Raises FormatError unless a file of that size may cost decoding so many images."""
        allowed.require(budget.PIXELS, images * math.prod(self.header.image_shape), size)
        if self.cost:
            at_once = min(images, budget.MICROBATCH)
            allowed.require(budget.MULTIPLY_ADDS, images * self.cost.multiply_adds, size)
            allowed.require(budget.ACTIVATIONS, at_once * self.cost.memory, size)
