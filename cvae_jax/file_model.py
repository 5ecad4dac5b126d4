"""What files are made and read with, as one value: tables, integer decoder, context model."""

from __future__ import annotations

import functools
import hashlib
import io
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.budget import Budget, Meter
from cvae_jax.bitstream.decoder import Context, Cost, FileDecoder
from cvae_jax.bitstream.header import Header, Identity
from cvae_jax.bitstream.records import Chunk, Refinement
from cvae_jax.bitstream.writer import Labels, Writer, chunk_of
from cvae_jax.coding.quantize import DEFAULT_QUALITY, units
from cvae_jax.coding.streams import CodingTables, read_tables
from cvae_jax.errors import CheckpointError, FormatError
from cvae_jax.exact.integers import IntegerDecoder, units_check
from cvae_jax.refinement import coder, grid
from cvae_jax.refinement.integers import ContextModel

Levels = Callable[[np.ndarray, int], np.ndarray]
Backend = Callable[[IntegerDecoder], Callable[[np.ndarray], np.ndarray]]

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, eq=False)
class FileModel:
    """Tables and a decoder that belong together, and what refines images where there is such.

    Raises:
      FormatError: they do not.
    """

    tables: CodingTables
    decoder: IntegerDecoder
    context: ContextModel | None = None

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
        return self.decoder.architecture.image_shape

    @functools.cached_property
    def identity(self) -> Identity:
        """Digests of the decoder and of the tables, which every file names."""
        return Identity(self.decoder.digest[:16], self.tables.digest[:16])

    @property
    def header(self) -> Header:
        """What every archive of this model starts with."""
        return Header(self.image_shape, self.tables.latent_dim, self.identity)

    def levels_by(self, make: Backend) -> Levels:
        """``levels(symbols, step)``: int32 ``[N, D]`` -> uint8 ``[N, H, W, C]``.

        make: ``by_numpy.decoder`` or ``by_jax.decoder``; both give the same levels.
        """
        levels = make(self.decoder)

        def of_symbols(symbols: np.ndarray, step: int) -> np.ndarray:
            return levels(self.decoder.inputs_of(units(symbols, self.tables, step)))

        return of_symbols

    def file_decoder(self, levels: Levels, *, trusted: bool) -> FileDecoder:
        """What reading files needs; trusted: the model did not come with the file."""
        architecture = self.decoder.architecture
        cost = Cost(architecture.multiply_adds(), architecture.memory())
        context = None
        if self.context is not None:
            context = Context(self.context.digest[:16], coder.chunk_decoder(self.context))
        return FileDecoder(self.header, self.tables, levels, None if trusted else cost, context)

    # Files

    def usual_quality(self, max_error: int | None = None) -> float | None:
        """The quality where none is given: of the base of files with a bounded error what makes the
        smallest ones, None if that is no base.

        Raises:
          CheckpointError: errors are to be bounded, and there is no context model.
          ConfigError: as for ``grid.checked``.
        """
        if max_error is None:
            return DEFAULT_QUALITY
        grid.checked(max_error)
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
        return chunk_of(self.header, symbols, step, self.tables, levels, refinement)

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
