"""What files are made and read with, as one value: tables, integer decoder, context model."""

from __future__ import annotations

import functools
import hashlib
import io
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from cvae_jax.bitstream import budget, single
from cvae_jax.bitstream.budget import Budget, Meter
from cvae_jax.bitstream.decoder import Context, Cost, FileDecoder, OtherSizes
from cvae_jax.bitstream.header import Header, Identity
from cvae_jax.bitstream.records import Chunk, Refinement
from cvae_jax.bitstream.writer import CHUNK_IMAGES, Labels, Writer, chunk_of
from cvae_jax.coding.maps.prior import MapPrior
from cvae_jax.coding.quantize import DEFAULT_QUALITY, units
from cvae_jax.coding.streams import CodingTables, read_tables, room, turns
from cvae_jax.config import Size
from cvae_jax.errors import CheckpointError, ConfigError, FormatError
from cvae_jax.exact import by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.integers import IntegerDecoder, units_check
from cvae_jax.refinement import coder, grid
from cvae_jax.refinement.integers import ContextModel

Levels = Callable[[np.ndarray, int], np.ndarray]
Backend = Callable[[IntegerDecoder], Callable[[np.ndarray], np.ndarray]]

_LENGTH = struct.Struct("<I")


def check_costs(image_shape: tuple[int, int, int], costs: Mapping[budget.Limit, int]) -> None:
    """Raises ConfigError for images of which one alone costs more than readers allow."""
    h, w, _ = image_shape
    try:
        for limit, cost in costs.items():
            budget.DEFAULT.require(limit, cost, 0)
    except FormatError as error:
        raise ConfigError(
            f"images of {h}x{w} take too much to decode: cut them into tiles"
        ) from error


@dataclass(frozen=True, eq=False)
class FileModel:
    """Tables and a decoder that belong together, and what refines images where there is such.

    Raises:
      FormatError: they do not.
    """

    tables: CodingTables
    decoder: IntegerDecoder
    context: ContextModel | None = None
    # Of a resized one: the original, which its files name; and the size of its images.
    original: FileModel | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        if self.tables.latent_dim != self.decoder.architecture.latents:
            raise FormatError("coding tables and an integer decoder of different models")
        if units_check(self.tables.unit) != self.decoder.units_check:
            raise FormatError(
                "an integer decoder that counts in other units than the coding tables: "
                "cvae calibrate -f makes both anew"
            )
        if self.context is not None and self.context.image_shape != self.image_shape:
            raise FormatError("an integer decoder and a context model of different images")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        h, w, channels = self.decoder.architecture.image_shape
        return (*(self.size or (h, w)), channels)

    @property
    def identity(self) -> Identity:
        """Digests of the decoder and of the tables, which every file names."""
        return self.header.identity

    @functools.cached_property
    def header(self) -> Header:
        """What every archive of this model starts with."""
        if self.original is not None:
            return self.original.header
        identity = Identity(self.decoder.digest[:16], self.tables.digest[:16])
        return Header(self.image_shape, self.tables.latent_dim, identity)

    def resized(self, size: Size) -> FileModel:
        """The same for images of another size, whose files name this one.

        Raises:
          FormatError: the model has images of its own size alone, or they would be too large.
        """
        decoder = self.decoder.resized(*size)
        if not isinstance(self.tables, MapPrior):
            raise FormatError("coding tables of a vector beside a decoder of a map")
        tables = self.tables.resized(*decoder.architecture.places)
        decoder = replace(decoder, units_check=units_check(tables.unit))
        return FileModel(tables, decoder, None, self, size)

    def levels_by(self, make: Backend) -> Levels:
        """``levels(symbols, step)``: int32 ``[N, D]`` -> uint8 ``[N, H, W, C]``.

        make: ``by_numpy.decoder`` or ``by_jax.decoder``; both give the same levels.
        """
        levels, (h, w, _) = make(self.decoder), self.image_shape

        def of_symbols(symbols: np.ndarray, step: int) -> np.ndarray:
            whole = levels(self.decoder.inputs_of(units(symbols, self.tables, step)))
            return np.ascontiguousarray(whole[:, :h, :w])

        return of_symbols

    def file_decoder(
        self, levels: Levels, *, trusted: bool, make: Backend = by_numpy.decoder
    ) -> FileDecoder:
        """What reading files needs; trusted: the model did not come with the file; make: as for
        ``levels_by``, for images of other sizes."""
        context = None
        if self.context is not None:
            context = Context(self.context.digest[:16], coder.chunk_decoder(self.context))

        @functools.lru_cache(maxsize=4)
        def resized(size: Size) -> FileDecoder:
            other = self.resized(size)
            # It is the file that says how large, so that no model is trusted with that.
            return FileDecoder(
                self.header, other.tables, other.levels_by(make), other.cost, size=size
            )

        def cost_of(size: Size) -> Cost:
            return _cost(self.decoder.architecture.resized(*size))

        sizes, cost = OtherSizes(cost_of, resized), None if trusted else self.cost
        return FileDecoder(self.header, self.tables, levels, cost, context, sizes=sizes)

    @property
    def cost(self) -> Cost:
        """Of decoding an image."""
        return _cost(self.decoder.architecture)

    @property
    def chunk_images(self) -> int:
        """How many images are written into a chunk at most: no more than readers always allow."""
        return max(min(CHUNK_IMAGES, budget.SYMBOLS.always // room(self.tables)), 1)

    def require_readable(self) -> None:
        """Raises ConfigError for images so large, or so long, that readers refuse them."""
        costs = {
            budget.SYMBOLS: room(self.tables),
            budget.TURNS: turns(self.tables),
            budget.ACTIVATIONS: self.cost.memory,
            budget.PIXELS: math.prod(self.image_shape),
        }
        check_costs(self.image_shape, costs)

    # Files

    def usual_quality(self, max_error: int | None = None) -> float | None:
        """The quality where none is given: of the base of files with a bounded error what makes the
        smallest ones, None if that is no base.

        Raises:
          CheckpointError: errors are to be bounded, and there is no context model.
          ConfigError: as for ``grid.checked``, or images of another size than the context model's.
        """
        if max_error is None:
            return DEFAULT_QUALITY
        grid.checked(max_error)
        if self.size is not None:
            h, w, _ = self.header.image_shape  # of the original
            raise ConfigError(
                f"lossless files, and those with a largest error, are of {h}x{w} images alone: "
                "compress these at a quality, or train a model of their size"
            )
        if self.context is None:
            raise CheckpointError(
                "the checkpoint has no context model, so it cannot bound errors: add one with "
                "cvae calibrate CHECKPOINT --context-steps N"
            )
        return self.context.base_quality

    def chunk(
        self,
        symbols: np.ndarray,
        step: int,
        levels: np.ndarray,
        refinement: Refinement | None = None,
    ) -> Chunk:
        """A chunk of an archive; arguments, and what is raised, as for ``writer.chunk_of``."""
        return chunk_of(self.header, symbols, step, self.tables, levels, refinement, self.size)

    def single(self, symbols: np.ndarray, step: int, levels: np.ndarray) -> bytes:
        """A single image's file; arguments, and what is raised, as for ``single.encode``."""
        return single.encode(symbols, step, self.tables, self.identity, levels, self.size)

    def writer(self, file: BinaryIO, *, embed_model: bool = False, refined: bool = False) -> Writer:
        """What writes an archive, which may carry its model; refined: of refined images."""
        model = self.pack(with_context=refined) if embed_model else None
        return Writer(file, self.header, model)

    def archive(
        self,
        chunks: Iterable[Chunk],
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        *,
        embed_model: bool = False,
        refined: bool = False,
    ) -> bytes:
        """A whole archive; names, labels: of all images.

        Raises:
          DataError: names or labels that cannot be stored, or not one for each image.
        """
        file = io.BytesIO()
        writer = self.writer(file, embed_model=embed_model, refined=refined)
        writer.append_all(chunks, names, labels)
        writer.finish()
        return file.getvalue()

    def model_file(self) -> bytes:
        """An archive of no images that carries its model: all that reading files needs."""
        return self.archive([], embed_model=True, refined=True)

    # Bytes

    def pack(self, *, with_context: bool = True) -> bytes:
        """As an archive carries it: each part behind its length.

        with_context: also the context model, if there is one; only refined images need it.
        """
        if self.original is not None:
            return self.original.pack(with_context=with_context)
        parts = [self.tables.to_bytes(), self.decoder.to_bytes()]
        if self.context is not None and with_context:
            parts.append(self.context.packed)
        return b"".join(_LENGTH.pack(len(part)) + part for part in parts)

    @classmethod
    def unpack(
        cls,
        data: bytes | None,
        identity: Identity | None = None,
        allowed: Budget = budget.DEFAULT,
    ) -> FileModel:
        """The inverse of ``pack``.

        data: None of an archive that carries no model; identity: that it must have.

        Raises:
          FormatError: there is none, these bytes are no model, one that could overflow, one that
            is larger than is allowed, or another one.
        """
        if data is None:
            raise FormatError("this archive carries no model; name the checkpoint that made it")
        parts, at = [], 0
        for _ in range(3):  # the last, the context model, need not be there
            if len(data) < at + _LENGTH.size:
                break
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            parts.append(data[at - length : at])
        if len(parts) < 2 and len(data) < at + _LENGTH.size:
            raise FormatError("the embedded model is truncated")
        if at != len(data):
            raise FormatError("the embedded model is longer or shorter than its parts")
        model, tables = (hashlib.sha256(part).digest()[:16] for part in (parts[1], parts[0]))
        if identity not in (None, Identity(model, tables)):
            raise FormatError("the embedded model is not the one that the header names")
        spend = Meter(budget.NUMBERS, allowed, len(data)).spend
        return cls(
            read_tables(parts[0], spend),
            IntegerDecoder.from_bytes(parts[1], spend),
            ContextModel.from_bytes(parts[2], spend) if len(parts) == 3 else None,
        )


def _cost(architecture: Architecture) -> Cost:
    return Cost(architecture.multiply_adds(), architecture.memory())
