"""A single image's file: the guarantees of an archive in 12 bytes around the payload."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import budget, records
from cvae_jax.bitstream.budget import Budget
from cvae_jax.bitstream.decoder import FileDecoder
from cvae_jax.bitstream.header import VERSION, Identity, check_version
from cvae_jax.bitstream.records import CRC_SIZE
from cvae_jax.coding import entropy
from cvae_jax.coding.tables import Tables
from cvae_jax.errors import FormatError, ModelMismatchError

MAGIC = b"\x89v"
_HEADER = struct.Struct("<2sB3sH")
ROOM = _HEADER.size + CRC_SIZE  # around the payload


def encode(
    symbols: np.ndarray, step: int, tables: Tables, identity: Identity, levels: np.ndarray
) -> bytes:
    """One image's file: int32 ``[D]`` symbols, 12 bytes and the payload.

    levels: what the symbols decode to, uint8 ``[H, W, C]``; the file vouches for it.
    """
    data = _HEADER.pack(MAGIC, VERSION, identity.short, step)
    data += entropy.encode_one(symbols, tables.book(step))
    return data + _check(data, symbols, levels)


def head(data: bytes) -> tuple[bytes, int]:
    """What a file says of itself, unchecked: the 3 bytes of its model, and the step.

    Raises:
      FormatError: no image, or a truncated one.
      VersionError: of a newer format.
    """
    if data[:2] != MAGIC or len(data) < ROOM:
        raise FormatError(f"no cvae image, or a truncated one: {len(data)} bytes")
    _, version, short, step = _HEADER.unpack_from(data)
    check_version(version)
    if step < 1:
        raise FormatError("an impossible step of the quantiser: 0")
    return short, step


class Image(NamedTuple):
    """What a single image's file holds."""

    symbols: np.ndarray  # int32 [D]
    step: int
    levels: np.ndarray  # uint8 [H, W, C]


def decode(data: bytes, decoder: FileDecoder, allowed: Budget = budget.DEFAULT) -> Image:
    """The inverse of ``encode``.

    Raises:
      FormatError: damaged, more than the budget allows, or decoded to other pixels than when it
        was compressed.
      VersionError: of a newer format.
      ModelMismatchError: of another model.
    """
    short, step = head(data)
    if short != (own := decoder.header.identity.short):
        raise ModelMismatchError(
            f"compressed with model {short.hex()}, but the checkpoint's is {own.hex()}; "
            "give the checkpoint that compressed it"
        )
    decoder.require_affordable(1, allowed, len(data))
    content, check = data[:-CRC_SIZE], data[-CRC_SIZE:]
    symbols = entropy.decode_one(content[_HEADER.size :], decoder.tables.book(step))
    levels = decoder.decode_symbols(symbols[None], step)[0]
    if _check(content, symbols, levels) != check:
        raise FormatError(
            "its check does not match: damaged, or decoded to other pixels than when it was "
            "compressed"
        )
    return Image(symbols, step, levels)


def _check(content: bytes, symbols: np.ndarray, levels: np.ndarray) -> bytes:
    return records.pack_crc(content + records.symbol_bytes(symbols) + records.pixel_bytes(levels))
