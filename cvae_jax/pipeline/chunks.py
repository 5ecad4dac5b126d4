"""A block of images to a chunk of a file: what one core does while others do the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import UNLIMITED
from cvae_jax.bitstream.budget import DISTRIBUTIONS, Meter
from cvae_jax.bitstream.records import SPOT, Chunk
from cvae_jax.errors import DataError, FormatError
from cvae_jax.file_model import FileModel, Levels
from cvae_jax.metrics import largest_error
from cvae_jax.refinement import encoder
from cvae_jax.refinement.encoder import Base


class Coded(NamedTuple):
    """A chunk of an archive, and its images."""

    chunk: Chunk
    images: np.ndarray  # uint8 [n, H, W, C], as they were given
    levels: np.ndarray  # as the file has them; if not all were decoded, of the first of them


@dataclass(frozen=True)
class Maker:
    """Makes chunks of blocks of images, in any thread."""

    model: FileModel
    to_symbols: Callable[[np.ndarray], np.ndarray]  # uint8 [n, H, W, C] -> int32 [n, D]
    step: int  # of the quantiser
    decode: Levels
    based: bool = True  # whether images with a bounded error have a base, of ``to_symbols``

    def lossy(self, images: np.ndarray, decode_all: bool = True) -> Coded:
        """Of images, uint8 ``[n, H, W, C]``; the stream is read back.

        decode_all: otherwise as many as a spot check is of, and the file vouches for no more.

        Raises:
          DataError: the stream does not hold the symbols.
        """
        symbols = self.to_symbols(images)
        levels = self.decode(symbols if decode_all else symbols[:SPOT], self.step)
        chunk = self.model.chunk(symbols, self.step, levels)
        self._read_back(chunk, symbols)
        return Coded(chunk, images, levels)

    def bounded(self, images: np.ndarray, max_error: int, check: bool = False) -> Coded:
        """The same with no pixel off by more than ``max_error``.

        check: decodes what was made, which takes longer than making it.

        Raises:
          DataError: what was made does not keep its promise.
        """
        made = self.refined(images, max_error)
        chunk = self.model.chunk(*made.base, made.refinement)
        self._read_back(chunk, made.base.symbols)
        if check:
            decoder = self.model.file_decoder(self.decode, trusted=True)
            meter = Meter(DISTRIBUTIONS, UNLIMITED, 0)
            with reading_back():
                (decoded,) = decoder.refined([(chunk, made.base.levels)], meter)
                if largest_error(decoded, images) > max_error:
                    raise FormatError("pixels beyond the bound")
        return Coded(chunk, images, made.images)

    def _read_back(self, chunk: Chunk, symbols: np.ndarray) -> None:
        with reading_back():
            if not np.array_equal(chunk.symbols(self.model.tables, UNLIMITED), symbols):
                raise FormatError("other symbols")

    def refined(self, images: np.ndarray, max_error: int) -> encoder.Refined:
        """What a chunk of images with a bounded error is made of; as ``bounded``."""
        assert self.model.context is not None
        base = None
        if self.based:
            symbols = self.to_symbols(images)
            base = Base(symbols, self.step, self.decode(symbols, self.step))
        return encoder.chunk(images, base, self.model.tables, self.model.context, max_error)


@contextlib.contextmanager
def reading_back() -> Iterator[None]:
    """Reads what was just made: a FormatError there is this program's fault, not the file's."""
    try:
        yield
    except FormatError as error:
        raise DataError(f"what was made reads back as other images ({error}); try again") from error
