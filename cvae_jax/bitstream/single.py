"""A single image's file: the guarantees of an archive in 12 bytes around the payload."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import budget, records
from cvae_jax.bitstream.budget import Budget, Meter
from cvae_jax.bitstream.decoder import FileDecoder
from cvae_jax.bitstream.header import VERSION, Identity, check_version
from cvae_jax.bitstream.records import CRC_SIZE, Refinement
from cvae_jax.coding import streams
from cvae_jax.coding.streams import CodingTables
from cvae_jax.config import Size
from cvae_jax.errors import FormatError, ModelMismatchError

MAGIC = b"\x89v"
REFINED_MAGIC = b"\x89w"
SIZED_MAGIC = b"\x89x"  # of another size than the model's own
MAGICS = MAGIC, REFINED_MAGIC, SIZED_MAGIC
_HEADER = struct.Struct("<2sB3sH")
_REFINED = struct.Struct("<3sBBH")  # context model, largest error, mode, bytes of the payload
ROOM = _HEADER.size + CRC_SIZE  # around the payload


def encode(
    symbols: np.ndarray,
    step: int,
    tables: CodingTables,
    identity: Identity,
    levels: np.ndarray,
    size: Size | None = None,
) -> bytes:
    """One image's file: int32 ``[D]`` symbols, 12 bytes and the payload.

    levels: what the symbols decode to, uint8 ``[H, W, C]``; the file vouches for it.
    size: its height and width where they are not the model's own; 4 bytes more.
    """
    if size is None:
        data = _HEADER.pack(MAGIC, VERSION, identity.short, step)
        data += streams.encode_one(symbols, tables, step)
    else:
        # Arithmetic coding takes the fewest bytes, but a time that grows with their square.
        data = _HEADER.pack(SIZED_MAGIC, VERSION, identity.short, step)
        data += records.pack_size(size) + streams.encode(symbols[None], tables, step)
    return data + _check(data, symbols, levels)


def encode_refined(
    symbols: np.ndarray,
    step: int,
    tables: CodingTables,
    identity: Identity,
    levels: np.ndarray,
    refinement: Refinement,
    image: np.ndarray,
) -> bytes:
    """A refined image's file.

    symbols, levels: as in ``encode``, but ``[b, D]`` and ``[b, H, W, C]``, b being 1 where the mode
    is BASED and else 0; image: what the file decodes to, uint8 ``[H, W, C]``.
    """
    payload = streams.encode_one(symbols[0], tables, step) if len(symbols) else b""
    (mode,) = refinement.modes
    data = _HEADER.pack(REFINED_MAGIC, VERSION, identity.short, step)
    data += _REFINED.pack(refinement.model[:3], refinement.max_error, mode, len(payload))
    data += payload + refinement.stream
    return data + _check(data, symbols, levels, image)


def head(data: bytes) -> tuple[bytes, int]:
    """What a file says of itself, unchecked: the 3 bytes of its model, and the step.

    Raises:
      FormatError: no image, or a truncated one.
      VersionError: of a newer format.
    """
    more = {REFINED_MAGIC: _REFINED.size, SIZED_MAGIC: records.SIZE_ROOM}.get(data[:2], 0)
    if data[:2] not in MAGICS or len(data) < ROOM + more:
        raise FormatError(f"no cvae image, or a truncated one: {len(data)} bytes")
    _, version, short, step = _HEADER.unpack_from(data)
    check_version(version)
    if step < 1:
        raise FormatError("an impossible step of the quantiser: 0")
    return short, step


def ledger(data: bytes) -> dict[str, int]:
    """Bytes of a file by what they are for; they add up to its size.  Raises as ``head``."""
    head(data)
    spent = {"header": _HEADER.size, "checks": CRC_SIZE}
    if data[:2] == REFINED_MAGIC:
        spent["header"] += _REFINED.size
        *_, size = _REFINED.unpack_from(data, _HEADER.size)
        rest = len(data) - sum(spent.values())
        return {**spent, "streams": min(size, rest), "refinements": max(rest - size, 0)}
    spent["header"] += records.SIZE_ROOM * (data[:2] == SIZED_MAGIC)
    return {**spent, "streams": len(data) - sum(spent.values())}


def max_error(data: bytes) -> int | None:
    """The largest error that a pixel may have, None if the image is not refined."""
    if data[:2] != REFINED_MAGIC:
        return None
    _, bound, *_ = _REFINED.unpack_from(data, _HEADER.size)
    return bound


def size_of(data: bytes) -> Size | None:
    """Height and width of the image where they are not the model's own; raises as ``head``."""
    head(data)
    return records.unpack_size(data[_HEADER.size :])[0] if data[:2] == SIZED_MAGIC else None


class Image(NamedTuple):
    """What a single image's file holds."""

    symbols: np.ndarray  # int32 [D]; of a refined image [b, D], see ``encode_refined``
    step: int
    levels: np.ndarray  # uint8 [H, W, C]
    refinement: Refinement | None = None


def decode(
    data: bytes, decoder: FileDecoder, allowed: Budget = budget.DEFAULT, *, preview: bool = False
) -> Image:
    """The inverse of ``encode`` and ``encode_refined``.

    preview: of a refined image that has a base, the base.

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
    size = size_of(data)
    decoder.require_affordable({size: 1}, allowed, len(data))
    decoder = decoder.of_size(size)
    content, check = data[:-CRC_SIZE], data[-CRC_SIZE:]
    if data[:2] == REFINED_MAGIC:
        return _decode_refined(content, check, step, decoder, allowed, preview)
    payload, tables = content[_HEADER.size :], decoder.tables
    work = streams.work(1, tables, step) + (budget.RESIZING if size else 0)
    allowed.require(budget.LOOKUPS, work, len(data))
    allowed.require(budget.TURNS, streams.turns(tables), len(data))
    if size is None:
        symbols = streams.decode_one(payload, tables, step)
    else:
        (symbols,) = streams.decode(payload[records.SIZE_ROOM :], 1, tables, step)
    levels = decoder.decode_symbols(symbols[None], step)[0]
    _compare(check, content, symbols, levels)
    return Image(symbols, step, levels)


def _decode_refined(
    content: bytes,
    check: bytes,
    step: int,
    decoder: FileDecoder,
    allowed: Budget,
    preview: bool,
) -> Image:
    short, max_error, mode, size = _REFINED.unpack_from(content, _HEADER.size)
    start = _HEADER.size + _REFINED.size
    payload, stream = content[start : start + size], content[start + size :]
    is_based = mode == records.BASED
    if max_error > records.MAX_ERROR or mode > records.BASED or len(payload) != size:
        raise FormatError("a refined image with an impossible header")
    if size and not is_based:
        raise FormatError("a refined image with symbols that it does not use")
    symbols = np.empty((0, decoder.tables.latent_dim), np.int32)
    if is_based:
        symbols = streams.decode_one(payload, decoder.tables, step)[None]
    levels = decoder.decode_symbols(symbols, step)
    if decoder.context is None or decoder.context.digest[:3] != short:
        raise ModelMismatchError(
            f"refined with context model {short.hex()}, which the checkpoint does not have; "
            "give the checkpoint that compressed it"
        )
    modes = np.array([mode], np.uint8)
    refinement = Refinement(max_error, decoder.context.digest, 0, modes, stream)
    meter = Meter(budget.DISTRIBUTIONS, allowed, len(content))
    (images,) = decoder.context.refine([(refinement, levels)], meter.spend)
    # The one check is of all, so that a preview takes as long as the image itself.
    _compare(check, content, symbols, levels, images)
    return Image(symbols, step, (levels if preview and is_based else images)[0], refinement)


def _compare(check: bytes, content: bytes, symbols: np.ndarray, *levels: np.ndarray) -> None:
    if _check(content, symbols, *levels) != check:
        raise FormatError(
            "its check does not match: damaged, or decoded to other pixels than when it was "
            "compressed"
        )


def _check(content: bytes, symbols: np.ndarray, *levels: np.ndarray) -> bytes:
    pixels = b"".join(map(records.pixel_bytes, levels))
    return records.pack_crc(content + records.symbol_bytes(symbols) + pixels)
