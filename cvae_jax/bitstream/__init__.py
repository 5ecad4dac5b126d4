"""The file format: archives of many images, and single images, as ``docs/FORMAT.md`` specifies.

Knows no model, only what reading needs of one (``FileDecoder``): it moves symbols, names, labels,
digests and checks of pixels, and limits what reading a file may cost.
"""

from __future__ import annotations

from cvae_jax.bitstream import single
from cvae_jax.bitstream.archive import Archive, recover
from cvae_jax.bitstream.budget import UNLIMITED, Budget
from cvae_jax.bitstream.container import Reader
from cvae_jax.bitstream.decoder import Context, Cost, FileDecoder
from cvae_jax.bitstream.header import MAGIC as ARCHIVE_MAGIC
from cvae_jax.bitstream.header import Header, Identity
from cvae_jax.bitstream.records import Chunk, Refinement
from cvae_jax.bitstream.salvage import Salvage, salvage
from cvae_jax.bitstream.verify import verify_archive
from cvae_jax.bitstream.writer import CHUNK_IMAGES, Writer
from cvae_jax.errors import DataError, FormatError

__all__ = [
    "CHUNK_IMAGES",
    "UNLIMITED",
    "Archive",
    "Budget",
    "Chunk",
    "Context",
    "Cost",
    "FileDecoder",
    "Header",
    "Identity",
    "Reader",
    "Refinement",
    "Salvage",
    "Writer",
    "as_bytes",
    "is_archive",
    "recover",
    "salvage",
    "single",
    "verify_archive",
]


def as_bytes(data: object) -> bytes:
    """The bytes of a file, from whatever holds them.

    Raises:
      DataError: they are no bytes, but text, say.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise DataError(f"expected the bytes of a file, not {type(data).__name__}")
    return bytes(data)


def is_archive(data: bytes) -> bool:
    """Whether a file that starts so is an archive.

    Raises:
      FormatError: it is neither an archive nor a single image.
    """
    if data[: len(single.MAGIC)] in single.MAGICS:
        return False
    if data[: len(ARCHIVE_MAGIC)] == ARCHIVE_MAGIC:
        return True
    raise FormatError(f"neither an archive nor an image of cvae: it starts with {data[:8].hex()}")
