"""Recovering what a damaged archive still holds."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cvae_jax.bitstream import records
from cvae_jax.bitstream.header import HEADER_SIZE, Header, unpack_header
from cvae_jax.bitstream.records import SECTION_ROOM, Chunk
from cvae_jax.errors import FormatError

_COUNT = struct.Struct("<Q")
_TAGS = re.compile(b"|".join((records.MODEL, records.CHUNK, records.INDEX)))


@dataclass(frozen=True)
class Salvage:
    """What a damaged archive still holds."""

    header: Header
    has_model: bool  # whether there was one
    model: bytes | None  # None also if it is damaged
    chunks: list[Chunk]  # whose bytes are intact, in the order of their images
    images: int | None  # how many there were; None if the index is lost
    faults: list[str]


def salvage(data: bytes) -> Salvage:
    """Finds every intact section of an archive by its check, whatever else is damaged.

    Raises:
      FormatError: not even a header is left (the index holds a copy of it).
    """
    header, has_model, model, images = None, False, None, None
    chunks: list[Chunk] = []
    faults: list[str] = []
    try:
        header, has_model = unpack_header(data[:HEADER_SIZE])
    except FormatError as error:
        faults.append(str(error))
    for tag, body, offset in _intact_sections(data):
        try:
            if tag == records.MODEL:
                model = body
            elif tag == records.CHUNK:
                chunks.append(records.unpack_chunk(body))
            else:
                copy, has_model = unpack_header(body[:HEADER_SIZE])
                header = header or copy
                (count,) = _COUNT.unpack_from(body, HEADER_SIZE)
                if count > records.MAX_IMAGES:
                    raise FormatError(f"it claims {count} images")
                images = count
        except (FormatError, struct.error) as error:
            faults.append(f"{tag.decode()} section at byte {offset}: {error}")
    if header is None:
        raise FormatError(f"{faults[0]}; and no intact index to recover it from")
    if has_model and model is None:
        faults.append("the embedded model is damaged")
    if images is None:
        faults.append("the index is damaged: images may be missing at the end")
    return Salvage(header, has_model, model, _without_overlaps(chunks), images, faults)


def lost(recovered: list[tuple[int, int]], images: int | None) -> list[tuple[int, int]]:
    """The ranges ``(first, last)`` of images outside the recovered ``(first, count)`` ones."""
    gaps, at = [], 0
    for first, count in [*recovered, (images or 0, 0)]:
        if first > at:
            gaps.append((at, first - 1))
        at = max(at, first + count)
    return gaps


def _without_overlaps(chunks: list[Chunk]) -> list[Chunk]:
    apart, at = [], 0
    for chunk in sorted(chunks, key=lambda chunk: chunk.first):
        if chunk.first >= at:
            apart.append(chunk)
            at = chunk.first + chunk.count
    return apart


def _intact_sections(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """``(tag, body, offset)`` of every section whose check matches."""
    end, budget = 0, 16 * len(data)  # of bytes to check: a hostile file must not cost its square
    for match in _TAGS.finditer(data):
        at = match.start()
        if at < end or at + SECTION_ROOM > len(data):
            continue
        length = records.section_length(data[at : at + 8])
        budget -= length
        if at + length > len(data) or budget < 0:
            budget += length
            continue
        try:
            body = records.unpack_section(data[at : at + length], match.group())
        except FormatError:
            continue
        end = at + length
        yield match.group(), body, at
