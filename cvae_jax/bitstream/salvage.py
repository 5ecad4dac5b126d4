"""Recovering what a damaged archive still holds."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cvae_jax.bitstream import records
from cvae_jax.bitstream.container import Reader
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
    models: list[bytes]  # whose bytes are intact; at most one of them is the header's
    chunks: list[Chunk]  # whose bytes are intact, in the order of their images
    images: int | None  # how many there were; None if the index is lost
    faults: list[str]  # none only of an archive whose every byte is where it belongs


class _Section(NamedTuple):
    tag: bytes
    body: bytes
    start: int  # byte of the file
    end: int

    def __str__(self) -> str:
        return f"{self.tag.decode()} section at byte {self.start}"


def salvage(data: bytes) -> Salvage:
    """Finds every intact section of an archive by its check, whatever else is damaged.

    Raises:
      FormatError: not even a header is left (the index holds a copy of it).
    """
    header, has_model, images = None, False, None
    models: list[bytes] = []
    chunks: list[tuple[Chunk, _Section]] = []
    faults: list[str] = []
    try:
        header, has_model = unpack_header(data[:HEADER_SIZE])
    except FormatError as error:
        faults.append(str(error))
    sections = list(_intact_sections(data))
    for section in sections:
        try:
            if section.tag == records.MODEL:
                models.append(section.body)
            elif section.tag == records.CHUNK:
                chunks.append((records.unpack_chunk(section.body), section))
            elif images is not None:
                faults.append(f"{section}: another index came before it, and that one counts")
            else:
                copy, flagged = unpack_header(section.body[:HEADER_SIZE])
                header, has_model = header or copy, has_model or flagged
                (count,) = _COUNT.unpack_from(section.body, HEADER_SIZE)
                if count > records.MAX_IMAGES:
                    raise FormatError(f"it claims {count} images")
                images = count
        except (FormatError, struct.error) as error:
            faults.append(f"{section}: {error}")
    if header is None:
        raise FormatError(f"{faults[0]}; and no intact index to recover it from")
    if has_model and not models:
        faults.append("the embedded model is damaged")
    if images is None:
        faults.append("the index is damaged: images may be missing at the end")
    apart, overlapping = _without_overlaps(chunks)
    faults += overlapping
    faults += _between(data, sections)
    if not faults:
        try:  # all is intact, but perhaps not in its place
            opened = Reader(io.BytesIO(data))
            for k in range(len(opened.entries)):
                opened.chunk(k)
        except FormatError as error:
            faults.append(str(error))
    return Salvage(header, has_model, models, apart, images, faults)


def lost(recovered: list[tuple[int, int]], images: int | None) -> list[tuple[int, int]]:
    """The ranges ``(first, last)`` of images outside the recovered ``(first, count)`` ones."""
    gaps, at = [], 0
    for first, count in [*recovered, (images or 0, 0)]:
        if first > at:
            gaps.append((at, first - 1))
        at = max(at, first + count)
    return gaps


def _without_overlaps(chunks: list[tuple[Chunk, _Section]]) -> tuple[list[Chunk], list[str]]:
    """The chunks in the order of their images, each image once; and a fault for each other."""
    apart, faults, at = [], [], 0
    for chunk, section in sorted(chunks, key=lambda found: found[0].first):
        if chunk.first >= at:
            apart.append(chunk)
            at = chunk.first + chunk.count
        else:
            faults.append(f"{section}: {chunk.where}, some of which are in another chunk: left out")
    return apart, faults


def _between(data: bytes, sections: list[_Section]) -> Iterator[str]:
    """A fault for all bytes that are neither of the header nor of a section nor of the footer."""
    at = HEADER_SIZE  # a damaged header is a fault of its own
    for section in sections:
        if section.start > at:
            yield f"bytes {at} to {section.start - 1} are no intact section"
        at = section.end
    try:
        found = records.unpack_footer(data[at:])
    except FormatError:
        yield f"from byte {at} on: damaged, or no archive's end"
    else:
        if sections and found != sections[-1].start:
            yield f"the archive's end names byte {found}, where its last section does not begin"


def _intact_sections(data: bytes) -> Iterator[_Section]:
    """Every section whose check matches."""
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
        yield _Section(match.group(), body, at, end)
