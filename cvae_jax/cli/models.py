"""Which model reads a file, and the files that a command is asked about, each section read once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from cvae_jax import bitstream, errors, reader
from cvae_jax.bitstream import Budget
from cvae_jax.errors import FormatError
from cvae_jax.exact import quickest
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.reader import Model
from cvae_jax.runs.find import known_maker, maker
from cvae_jax.shards import ArchiveSet, Shards


@functools.lru_cache(maxsize=1)  # of many files, most are of one model
def load(ckpt: str | Path, allowed: Budget) -> Model:
    """The model of ``--ckpt``, or of a released checkpoint."""
    return _kept(reader.load(ckpt, allowed))


def open_archive(content: bytes, allowed: Budget) -> bitstream.Reader:
    """An archive in memory; raises FormatError if it is damaged."""
    return bitstream.Reader(io.BytesIO(content), allowed)


def open_set(shards: Shards, ckpt: str | None, allowed: Budget) -> ArchiveSet:
    """A set of archives, read with the model of ``--ckpt``, or else of its first shard.

    Raises: as ``of_archive``.
    """
    with open_shard(shards.path(0), allowed) as first:
        model = of_archive(first, ckpt)

    def opened(path: Path) -> bitstream.Archive:
        file = path.open("rb")
        try:
            with errors.naming(path):
                archive = bitstream.Reader(file, allowed)
                return bitstream.Archive(file, model.decoder(len(archive)), archive)
        except BaseException:
            file.close()
            raise

    return ArchiveSet(shards, opened)


@contextlib.contextmanager
def open_shard(path: Path, allowed: Budget) -> Iterator[bitstream.Reader]:
    """An archive in a file; what is raised in here names it."""
    with errors.naming(path), path.open("rb") as file:
        yield bitstream.Reader(file, allowed)


def images_of(shards: Shards) -> int:
    """How many images the shards hold that can be opened."""
    total = 0
    for path in shards.paths:
        with contextlib.suppress(OSError, FormatError), path.open("rb") as file:
            total += len(bitstream.Reader(file))
    return total


def read(name: str) -> bytes:
    """The content of a file, or of standard input for ``-``."""
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def naming(name: str) -> contextlib.AbstractContextManager[None]:
    """``errors.naming`` of a command's input, which may be standard input."""
    return contextlib.nullcontext() if name == "-" else errors.naming(name)


def of_single(content: bytes, ckpt: str | None, allowed: Budget) -> Model:
    """The model that is to decode a single image's file: of ``--ckpt``, or the released one that
    made it; raises ModelMismatchError if there is none."""
    short, _ = bitstream.single.head(content)
    return load(ckpt or known_maker(lambda identity: identity.short == short), allowed)


def of_archive(archive: bitstream.Reader, ckpt: str | None) -> Model:
    """The model that is to decode an archive: of ``--ckpt``, its own, or the released one that
    made it.

    Raises:
      FormatError: the embedded model is damaged.
      ModelMismatchError: no released one did.
    """
    if archive.has_model and not ckpt:
        return _kept(reader.embedded(archive, archive.allowed))
    return _maker(archive.header, ckpt, archive.allowed)


def of_damaged(content: bytes, ckpt: str | None, allowed: Budget) -> tuple[Model, list[str]]:
    """As ``of_archive``, for an archive of which a part may be lost; and the faults of its model.

    Raises:
      FormatError: no model is left that could decode it, or nothing else is.
      ModelMismatchError: it never carried one, and no released one made it.
    """
    if ckpt:
        return load(ckpt, allowed), []
    found = bitstream.salvage(content)
    if not found.has_model and not found.models:
        return _maker(found.header, None, allowed), []
    try:
        return _kept(reader.embedded(found, allowed)), []
    except FormatError as error:
        released = maker(lambda identity: identity == found.header.identity)
        if released is None:
            raise
        return load(released, allowed), [str(error)]


def _maker(header: bitstream.Header, ckpt: str | None, allowed: Budget) -> Model:
    return load(ckpt or known_maker(lambda identity: identity == header.identity), allowed)


def _kept(model: Model) -> Model:
    """Where it comes to compiled code, that is kept between runs."""
    return dataclasses.replace(model, compiled=_compiled)


def _compiled(integers: IntegerDecoder) -> quickest.Levels:
    from cvae_jax import backend

    backend.use_compilation_cache()
    return quickest.compiled(integers)
