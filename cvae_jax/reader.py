"""Reading files without JAX: NumPy, the entropy coder and the checksum are enough.

    from cvae_jax import reader

    images = reader.decompress(data)            # [N, 28, 28, 1] uint8
    with reader.open("digits.cvae") as archive:
        image = archive[1234]

The pixels are those of ``codec``, whatever computes them: where JAX is installed, it takes over
from NumPy once there is enough to decode to repay its start (``exact.quickest``).
"""

from __future__ import annotations

import builtins
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvae_jax import bitstream
from cvae_jax.bitstream import Archive, Budget, FileDecoder, budget
from cvae_jax.errors import CheckpointError, FormatError, naming
from cvae_jax.exact import quickest
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.file_model import FileModel
from cvae_jax.runs.find import CONTEXT, DECODER, TABLES, file_model, find, known_maker
from cvae_jax.shards import ArchiveSet, present

__all__ = ["Model", "decompress", "embedded", "load", "of_archive", "of_single", "open"]


@dataclass(frozen=True, eq=False)
class Model:
    """What files are read with."""

    files: FileModel
    foreign: bool = False  # it came with a file, so its cost is limited
    compiled: Callable[[IntegerDecoder], quickest.Levels] = quickest.compiled

    def decoder(self, images: int = 0) -> FileDecoder:
        """What files are decoded with; images: how many there will be, if that is known."""
        self._own.expect(images)
        levels = self.files.levels_by(lambda _: self._own)
        return self.files.file_decoder(levels, trusted=not self.foreign, make=self._quickest)

    @functools.cached_property
    def _own(self) -> quickest.Quickest:
        return self._quickest(self.files.decoder)

    def _quickest(self, integers: IntegerDecoder) -> quickest.Quickest:
        return quickest.Quickest(integers, quickest.WORTH_STARTING, self.compiled)


def load(name: str | Path | None = None, allowed: Budget = budget.DEFAULT) -> Model:
    """The model of a checkpoint: a workdir, a step in it, a released one or its name (None: the
    default), or an archive that carries its own.

    Only the files that reading needs are read from a checkpoint.

    Raises:
      CheckpointError: there is nothing usable; the message says what was looked for.
      FormatError: an archive has no model, or it or the checkpoint is damaged.
    """
    if name is not None and Path(name).is_file():
        with naming(name), builtins.open(name, "rb") as file:
            return embedded(bitstream.Reader(file, allowed), allowed)
    found = find(name, files=(TABLES, DECODER, CONTEXT))
    files = file_model(found)
    if files is None:
        raise CheckpointError(
            f"the checkpoint {found.path} has no coding tables or no integer decoder, so files "
            "cannot be read with it: add them with cvae calibrate CHECKPOINT"
        )
    return Model(files)


def embedded(
    archive: bitstream.Reader | bitstream.Salvage, allowed: Budget = budget.DEFAULT
) -> Model:
    """The model that an archive carries; of several in a damaged one, that which its header names.

    Raises:
      FormatError: it carries none, or a damaged one.
    """
    identity = archive.header.identity
    if isinstance(archive, bitstream.Reader):
        return Model(FileModel.unpack(archive.model(), identity, allowed), foreign=True)
    fault = FormatError("the embedded model is damaged; name the checkpoint that made the archive")
    for blob in archive.models:
        try:
            return Model(FileModel.unpack(blob, identity, allowed), foreign=True)
        except FormatError as error:
            fault = error
    raise fault


def of_archive(archive: bitstream.Reader, name: str | Path | None = None) -> Model:
    """The model that is to decode an archive: the named one, its own, or the released one that made
    it.

    Raises:
      CheckpointError, FormatError: as for ``load`` and ``embedded``.
      ModelMismatchError: no released one did.
    """
    if name is None and archive.has_model:
        return embedded(archive, archive.allowed)
    return load(name or known_maker(lambda identity: identity == archive.header.identity))


def of_single(data: bytes, name: str | Path | None = None) -> Model:
    """The model that is to decode a single image's file; as ``of_archive``."""
    short, _ = bitstream.single.head(data)
    return load(name or known_maker(lambda identity: identity.short == short))


def open(path: str | Path, model: Model | str | Path | None = None) -> Archive | ArchiveSet:
    """An archive for random access: ``archive[i]``, ``archive[i:j]``, ``len(archive)``; or a set of
    them, ``name@512.cvae``.

    model: from ``load``, or what ``load`` takes; None: the archive's own (of a set, its first
    shard's), or the released one that made it.

    Raises:
      DataError: of a set, a shard is missing.
      FormatError: it is damaged.
      VersionError: it is of a newer format.
      ModelMismatchError: it was compressed with another model.
      CheckpointError: the model is not there, or is damaged.
      OSError: it cannot be read.
    """
    shards = present(path)
    if shards is None:
        return _open(Path(path), model)
    known = model if isinstance(model, Model) else _model_of(shards.path(0), model)
    return ArchiveSet(shards, lambda path: _open(path, known))


def _model_of(path: Path, name: str | Path | None) -> Model:
    with naming(path), builtins.open(path, "rb") as file:
        return of_archive(bitstream.Reader(file), name)


def _open(path: Path, model: Model | str | Path | None) -> Archive:
    file = builtins.open(path, "rb")  # noqa: SIM115, the archive closes it
    try:
        with naming(path):
            return _archive(bitstream.Reader(file), file, model)
    except BaseException:
        file.close()
        raise


def decompress(data: bytes, model: Model | str | Path | None = None) -> np.ndarray:
    """The images of an archive or of a single image's file, uint8 ``[N, H, W, C]``.

    model, and what is raised: as for ``open``; and DataError for what is no bytes.
    """
    data = bitstream.as_bytes(data)
    if bitstream.is_archive(data):
        file = io.BytesIO(data)
        archive = bitstream.Reader(file)
        return _archive(archive, file, model, images=len(archive)).read()
    known = model if isinstance(model, Model) else of_single(data, model)
    return bitstream.single.decode(data, known.decoder(1)).levels[None]


def _archive(
    archive: bitstream.Reader,
    file: io.BufferedReader | io.BytesIO,
    model: Model | str | Path | None,
    images: int = 0,
) -> Archive:
    known = model if isinstance(model, Model) else of_archive(archive, model)
    return Archive(file, known.decoder(images), archive)
