"""What calibration has added to a checkpoint for files to be made and read with."""

from __future__ import annotations

from cvae_jax.coding.tables import Tables
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.exact.model import FileModel
from cvae_jax.runs.manifest import Checkpoint

TABLES, DECODER = "tables.bin", "decoder.bin"


def read(found: Checkpoint) -> FileModel | None:
    """Tables and decoder of a checkpoint, or None if it has not both yet; no other file is read.

    Raises:
      CheckpointError, FormatError: they are damaged.
    """
    if not {TABLES, DECODER} <= found.files.keys():
        return None
    return FileModel(
        Tables.from_bytes(found.read(TABLES)), IntegerDecoder.from_bytes(found.read(DECODER))
    )
