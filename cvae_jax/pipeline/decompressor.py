"""Files to images, by a model: of a checkpoint, or one that came with an archive."""

from __future__ import annotations

import builtins
import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvae_jax import bitstream, errors, pixels
from cvae_jax.autoencoder import Autoencoder
from cvae_jax.bitstream import Archive, FileDecoder, Identity
from cvae_jax.bitstream.archive import OnProgress, unwatched
from cvae_jax.coding.streams import CodingTables
from cvae_jax.coding.usual import UsualErrors
from cvae_jax.errors import CheckpointError, DataError
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.exact.quickest import WORTH_COMPILING, Quickest
from cvae_jax.file_model import FileModel, Levels
from cvae_jax.shards import ArchiveSet, present


def _quickest(integers: IntegerDecoder) -> Quickest:
    return Quickest(integers, WORTH_COMPILING)


@dataclass(frozen=True, eq=False, repr=False)
class Decompressor(Autoencoder):
    """An autoencoder whose files can be read."""

    files: FileModel | None = None  # None: encode and decode work, files do not
    usual_errors: UsualErrors | None = None  # of calibration; None: nobody measured them

    def decompress(self, data: bytes, progress: OnProgress = unwatched) -> np.ndarray:
        """The images of an archive or of a single image's file, uint8 ``[N, H, W, C]``.

        Raises:
          DataError: no bytes.
          FormatError: damaged.
          VersionError: of a newer format.
          ModelMismatchError: compressed with another model.
        """
        data = bitstream.as_bytes(data)
        if bitstream.is_archive(data):
            return Archive(io.BytesIO(data), self.file_decoder).read(progress=progress)
        return bitstream.single.decode(data, self.file_decoder).levels[None]

    def open(self, path: str | Path) -> Archive | ArchiveSet:
        """An archive for random access: ``archive[i]``, ``archive[i:j]``, ``len(archive)``; or a
        set of them, ``name@512.cvae``.

        Raises:
          DataError: of a set, a shard is missing.
          FormatError, VersionError, ModelMismatchError: as for ``decompress``.
          OSError: it cannot be read.
        """
        shards = present(path)
        return self._open(Path(path)) if shards is None else ArchiveSet(shards, self._open)

    def _open(self, path: Path) -> Archive:
        file = builtins.open(path, "rb")  # noqa: SIM115, the archive closes it
        try:
            with errors.naming(path):
                return Archive(file, self.file_decoder)
        except BaseException:
            file.close()
            raise

    def decode_symbols(self, symbols: np.ndarray, step: int) -> np.ndarray:
        """The images of a file's symbols: int32 ``[N, D]`` -> uint8 ``[N, H, W, C]``.

        By the integer decoder, so that they are the same everywhere.

        Raises:
          DataError: no symbols of this model, or no step.
        """
        symbols = pixels.as_symbols(symbols, step, self.latent_dim)
        if symbols.ndim != 2:
            raise DataError(f"symbols of shape {list(symbols.shape)}; expected [N, D]")
        return self._file_levels(symbols, step)

    @functools.cached_property
    def _file_levels(self) -> Levels:
        return self.file_model.levels_by(_quickest)

    def unusual(self, mse: np.ndarray, step: int) -> np.ndarray:
        """Which images are far from what this model was trained on, worst first.

        mse: of each image to what was decoded of it, ``[N]`` (``metrics.mse_of_each``); step: of
        the quantiser.  Empty where nobody measured the model's usual errors.
        """
        if self.usual_errors is None:
            return np.zeros(0, np.intp)
        return self.usual_errors.far(np.asarray(mse), step)

    @property
    def file_model(self) -> FileModel:
        """What files are made and read with: coding tables and integer decoder.

        Raises:
          CheckpointError: the checkpoint has none.
        """
        if self.files is None:
            raise CheckpointError(
                "the checkpoint has no coding tables, or no integer decoder, so it cannot make or "
                "read files: add them with cvae calibrate CHECKPOINT"
            )
        return self.files

    @property
    def tables(self) -> CodingTables:
        """What symbols are coded with; raises as ``file_model``."""
        return self.file_model.tables

    @property
    def identity(self) -> Identity:
        """Digests of the integer decoder and of the tables, which every file names."""
        return self.file_model.identity

    @property
    def header(self) -> bitstream.Header:
        """What every archive of this codec starts with."""
        return self.file_model.header

    @functools.cached_property
    def file_decoder(self) -> FileDecoder:
        """What reading an archive needs of this codec; one that came with a file is not trusted."""
        # Files say themselves of which size their images are.
        own = self.file_model.original is None
        model = self.file_model.original or self.file_model
        levels = self.decode_symbols if own else model.levels_by(_quickest)
        return model.file_decoder(levels, trusted=self.record is not None, make=_quickest)

    def model_file(self) -> bytes:
        """An archive of no images that carries its model: all that reading files needs."""
        return self.file_model.model_file()
