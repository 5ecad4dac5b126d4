"""Which model a command uses, and the files that it is asked about, each section read once."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from pathlib import Path

from cvae_jax import bitstream, codec
from cvae_jax.bitstream import Budget
from cvae_jax.codec import Codec
from cvae_jax.errors import FormatError

load = functools.lru_cache(maxsize=1)(codec.load)  # of many files, most are of one model


def open_archive(content: bytes, allowed: Budget) -> bitstream.Reader:
    """An archive in memory; raises FormatError if it is damaged."""
    return bitstream.Reader(io.BytesIO(content), allowed)


def read(name: str) -> bytes:
    """The content of a file, or of standard input for ``-``."""
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def named(ckpt: str | None) -> Codec:
    """The codec of ``--ckpt``; without it, of the released checkpoint."""
    return load(ckpt)


def of_archive(reader: bitstream.Reader, ckpt: str | None) -> Codec:
    """The codec that is to decode an archive: of ``--ckpt``, its own, or the released one.

    Raises:
      FormatError: the embedded model is damaged.
      CheckpointError: there is no other.
    """
    if reader.has_model and not ckpt:
        return codec.from_embedded(reader.model(), reader.header.identity)
    return named(ckpt)


def of_damaged(content: bytes, ckpt: str | None, allowed: Budget) -> Codec:
    """As ``of_archive``, for an archive of which a part may be lost."""
    if not ckpt:
        with contextlib.suppress(FormatError):  # damage is reported where the file is read
            return of_archive(open_archive(content, allowed), None)
        with contextlib.suppress(FormatError):
            found = bitstream.salvage(content)
            if found.model is not None:
                return codec.from_embedded(found.model, found.header.identity)
    return named(ckpt)
