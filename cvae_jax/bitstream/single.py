"""A single image's file: the guarantees of an archive in 12 bytes around the payload."""

from __future__ import annotations

import struct

import numpy as np

from cvae_jax.bitstream import records
from cvae_jax.bitstream.records import CRC_SIZE, Identity
from cvae_jax.coding import entropy
from cvae_jax.coding.tables import Tables
from cvae_jax.errors import FormatError, ModelMismatchError, VersionError

MAGIC = b"\x89v"
_HEADER = struct.Struct("<2sB3sH")
ROOM = _HEADER.size + CRC_SIZE  # around the payload


def encode(symbols: np.ndarray, step: int, tables: Tables, identity: Identity) -> bytes:
    """One image's file: int32 ``[D]`` symbols, 12 bytes and the payload."""
    data = _HEADER.pack(MAGIC, records.VERSION, identity.short, step)
    data += entropy.encode_one(symbols, tables.book(step))
    return data + records.pack_crc(data + records.symbol_bytes(symbols))


def head(data: bytes) -> tuple[bytes, int]:
    """What a file says of itself, unchecked: the 3 bytes of its model, and the step.

    Raises:
      FormatError: no image, or a truncated one.
      VersionError: of a newer format.
    """
    if data[:2] != MAGIC or len(data) < ROOM:
        raise FormatError(f"no cvae image, or a truncated one: {len(data)} bytes")
    _, version, short, step = _HEADER.unpack_from(data)
    if version != records.VERSION:
        raise VersionError(
            f"format version {version}, this program reads {records.VERSION}: update it"
        )
    if step < 1:
        raise FormatError("an impossible step of the quantiser: 0")
    return short, step


def decode(data: bytes, tables: Tables, identity: Identity) -> tuple[np.ndarray, int]:
    """The inverse of ``encode``: symbols int32 ``[D]`` and the step.

    Raises:
      FormatError: damaged.
      VersionError: of a newer format.
      ModelMismatchError: of another model.
    """
    short, step = head(data)
    if short != identity.short:
        raise ModelMismatchError(
            f"compressed with model {short.hex()}, but the checkpoint's is "
            f"{identity.short.hex()}; give the checkpoint that compressed it"
        )
    content, check = data[:-CRC_SIZE], data[-CRC_SIZE:]
    symbols = entropy.decode_one(content[_HEADER.size :], tables.book(step))
    if records.pack_crc(content + records.symbol_bytes(symbols)) != check:
        raise FormatError("damaged: its check does not match")
    return symbols, step
