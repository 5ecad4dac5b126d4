"""Ways to change the files of ``samples`` that get past every check.

An archive is taken apart down to the numbers in it, one part is changed, and it is put together
again with lengths, index, digests and checks as they then have to be.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import NamedTuple

import numpy as np

from benchmarks.samples import IMAGES, TINY, Sample, levels
from cvae_jax.bitstream import Chunk, records, single
from cvae_jax.bitstream.budget import DEFAULT, LOOKUPS, SYMBOLS
from cvae_jax.bitstream.header import HEADER_SIZE
from cvae_jax.bitstream.header import MAGIC as ARCHIVE_MAGIC
from cvae_jax.coding import entropy, packing
from cvae_jax.coding.tables import Tables
from cvae_jax.errors import CvaeError
from cvae_jax.file_model import FileModel

_EXTREMES = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_LARGE_EXTREMES = (0, 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_CHUNK = "<QIHBIIII"


def mutant(rng: np.random.Generator, sample: Sample) -> bytes:
    data = sample.data
    kind = rng.random()
    if kind < 0.05:  # noise, behind a magic or not
        start = [b"", single.MAGIC + b"\2", ARCHIVE_MAGIC + b"\2"][rng.integers(3)]
        return start + rng.bytes(int(rng.integers(200)))
    if kind < 0.15:  # damage as it happens
        return _changed(rng, data)
    if data[:2] == single.MAGIC:
        return _image(rng, sample)
    parts = _Parts.of(data)
    for _ in range(int(rng.integers(1, 3))):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        if parts.chunks:  # a change before may have left none
            parts = change(rng, parts, sample.tables)
    return parts.assembled(stale_index=rng.random() < 0.15, rng=rng)


class _Parts(NamedTuple):
    header: bytes
    model: bytes | None
    chunks: list[bytes]  # bodies
    index: bytes  # as it was

    @classmethod
    def of(cls, data: bytes) -> _Parts:
        rest, sections = data[HEADER_SIZE:-16], []
        while rest:
            length = records.section_length(rest[:8])
            sections.append((rest[:4], rest[8 : length - 4]))
            rest = rest[length:]
        model = sections.pop(0)[1] if sections[0][0] == records.MODEL else None
        chunks = [body for _, body in sections[:-1]]
        return cls(data[:HEADER_SIZE], model, chunks, sections[-1][1])

    def assembled(self, stale_index: bool, rng: np.random.Generator) -> bytes:
        header = self.header[:-4] + records.pack_crc(self.header[:-4])
        out, entries, images = header, b"", 0
        if self.model is not None:
            out += records.pack_section(records.MODEL, self.model)
        for body in self.chunks:
            section = records.pack_section(records.CHUNK, body)
            (count,) = struct.unpack_from("<I", body.ljust(12, b"\0"), 8)
            entries += struct.pack("<QII", len(out), len(section), count)
            out += section
            images += count
        index = header + struct.pack("<Q", images) + entries
        if stale_index:
            index = _changed(rng, self.index)
        offset = struct.pack("<Q", len(out))
        out += records.pack_section(records.INDEX, index)
        return out + offset + records.pack_crc(offset) + b"CVAZ"


# Changes of an archive


def _any_bytes(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    which = int(rng.integers(len(parts.chunks) + 2))
    if which == 0:
        return parts._replace(header=_changed(rng, parts.header)[: len(parts.header)])
    if which == 1:
        return parts._replace(model=parts.model and _changed(rng, parts.model))
    return _with_chunk(parts, which - 2, _changed(rng, parts.chunks[which - 2]))


def _header_field(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    at, form = [(9, "<B"), (10, "<H"), (12, "<H"), (14, "<H"), (16, "<I"), (20, "<I")][
        rng.integers(6)
    ]
    return parts._replace(header=_put(parts.header, at, form, _extreme(rng, _EXTREMES)))


def _chunk_field(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    """A number in a chunk's header; the check of its symbols follows."""
    k = int(rng.integers(len(parts.chunks)))
    at, form = [(0, "<Q"), (8, "<I"), (12, "<H"), (14, "<B"), (23, "<I"), (27, "<I")][
        rng.integers(6)
    ]
    values = _LARGE_EXTREMES if form == "<Q" else _EXTREMES
    if at == 8:
        values = (0, 1, IMAGES + 1, 64, 4096, 8191, 8192, 8193, 2**32 - 1)
    body = _put(parts.chunks[k], at, form, _extreme(rng, values))
    return _with_chunk(parts, k, _with_checks(body, tables, parts.header))


def _stream(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    k = int(rng.integers(len(parts.chunks)))
    body = parts.chunks[k]
    at = _stream_start(body)
    stream = [b"", rng.bytes(4 * int(rng.integers(60))), _changed(rng, body[at:])][rng.integers(3)]
    return _with_chunk(parts, k, _with_checks(body[:at] + stream, tables, parts.header))


def _names_or_labels(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    """What is in them, packed again."""
    k = int(rng.integers(len(parts.chunks)))
    body = parts.chunks[k]
    try:
        chunk = records.unpack_chunk(body)
        names = chunk.joined_names or b""
    except CvaeError:
        return parts
    count = chunk.count
    odd = ["../up", "a/b", "a", "A", "nul", "e\u0301", "\u00e9", "\u202e", "\ud800", "n" * 1025]
    new_names = [
        _changed(rng, names),
        b"\0".join([_pick(rng, odd).encode(errors="surrogatepass")] * count),
        b"\0".join([b"n"] * count),
        b"n" * 1024 * count,
        bytes(int(rng.integers(10**6))),
        b"\0".join(str(i).encode() for i in range(count)),
    ][rng.integers(6)]
    new_labels = [rng.bytes(4 * count), rng.bytes(count), bytes(10**6)][rng.integers(3)]
    if rng.random() < 0.7:
        chunk = dataclasses.replace(chunk, packed_names=_deflated(rng, new_names))
    if rng.random() < 0.3:
        chunk = dataclasses.replace(chunk, packed_labels=_deflated(rng, new_labels))
    return _with_chunk(parts, k, records.pack_chunk(chunk))


def _order(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    """Chunks in another order, missing, or many times; numbered as they then stand, or not."""
    n = int(rng.integers(1, 6)) if rng.random() < 0.98 else int(rng.integers(100))
    chunks = [parts.chunks[i] for i in rng.integers(len(parts.chunks), size=n)]
    if rng.random() < 0.8:
        first = 0
        for i, body in enumerate(chunks):
            chunks[i] = struct.pack("<Q", first) + body[8:]
            first += struct.unpack_from("<I", body.ljust(12, b"\0"), 8)[0]
            first %= 2**63
    return parts._replace(chunks=chunks)


def _flood(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    """Very many images in no bytes."""
    count, copies = int(rng.integers(1, 8193)), int(_pick(rng, [1, 1, 1, 1, 1, 2, 2, 2, 5, 60]))
    step = int(_pick(rng, [87, 600, 4096, 65535, 1, 17]))
    crc = pixels = 0
    h, w, c = struct.unpack_from("<3H", parts.header, 10)
    if count * h * w * c < 1 << 24:
        pixels = records.crc32c(levels(count, (h, w, c), step).tobytes())
    if count * tables.latent_dim < 1 << 20:
        try:
            first = tables.book(step).first[: tables.latent_dim]
        except CvaeError:
            return parts
        crc = records.crc32c(np.tile(first, (count, 1)).astype("<i4").tobytes())
    names = _deflated(rng, b"\0".join([b"n" * 1000] * count)) if rng.random() < 0.3 else None
    chunk = Chunk(0, count, step, crc, pixels, names, None, b"")
    bodies = [
        records.pack_chunk(dataclasses.replace(chunk, first=i * count)) for i in range(copies)
    ]
    return parts._replace(chunks=bodies)


def _embedded(rng: np.random.Generator, parts: _Parts, tables: Tables) -> _Parts:
    """The model that the archive carries: numbers of its decoder or its tables, packed again, and
    a header that names what came of it."""
    if parts.model is None:
        return parts
    try:
        model = FileModel.unpack(parts.model)
    except CvaeError:  # changed before
        return parts
    kind = rng.integers(4)
    coding, decoder = model.tables.to_bytes(), model.decoder.to_bytes()
    if kind == 0:  # any number of a header, or of an array's
        decoder = _put(decoder, int(rng.integers(60)), "<H", _extreme(rng, _EXTREMES))
    elif kind == 1:  # one layer's numbers
        k = int(rng.integers(len(model.decoder.layers)))
        layer = model.decoder.layers[k]
        field = _pick(rng, ["weights", "bias", "shift", "bits"])
        scale = int(_pick(rng, [0, -1, 3, 1 << 12, 1 << 20]))
        changed = layer._replace(
            **{field: np.asarray(getattr(layer, field)).astype(np.int64) * scale}
        )
        layers = (*model.decoder.layers[:k], changed, *model.decoder.layers[k + 1 :])
        try:
            with np.errstate(divide="ignore"):  # of shifts that leave no grain
                decoder = dataclasses.replace(model.decoder, layers=layers).to_bytes()
        except (ValueError, OverflowError):  # no bytes hold it
            return parts
    elif kind == 2:  # an architecture whose weights are not there, or cost much
        shape = struct.pack("<3H", *(int(_pick(rng, [0, 1, 7, 500, 8192, 65535])) for _ in "hwc"))
        decoder = decoder[:5] + shape + decoder[11:]
        if rng.random() < 0.5:
            filters = packing.pack(np.array(TINY.filters))
            many = rng.choice([1, 30, 8192, 1 << 20], len(TINY.filters))
            decoder = decoder.replace(filters, packing.pack(many))
        parts = parts._replace(header=parts.header[:10] + shape + parts.header[16:])
    else:
        coding = _changed(rng, coding)
    packed = b"".join(struct.pack("<I", len(part)) + part for part in (coding, decoder))
    return _renamed(parts._replace(model=packed))


_CHANGES = (
    *(_any_bytes, _header_field, _chunk_field, _chunk_field, _stream, _stream, _stream),
    *(_names_or_labels, _names_or_labels, _order, _order, _flood, _embedded, _embedded),
)


# Changes of a single image's file


def _image(rng: np.random.Generator, sample: Sample) -> bytes:
    """The step or the payload, with the check that then belongs."""
    content = sample.data[:6] + _changed(rng, sample.data[6:-4])
    try:
        book = sample.tables.book(*struct.unpack_from("<H", content, 6))
        symbols = entropy.decode_one(content[8:], book)
    except (CvaeError, struct.error):
        return content + sample.data[-4:]
    pixels = levels(1, (28, 28, 1), book.step).tobytes()
    return content + records.pack_crc(content + records.symbol_bytes(symbols) + pixels)


# Tools


def _changed(rng: np.random.Generator, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(out) + 1))
        change = rng.integers(4)
        if change == 0 and at < len(out):
            out[at] ^= 1 << int(rng.integers(8))
        elif change == 1 and at < len(out):
            out[at] = int(rng.integers(256))
        elif change == 2:
            out[at : at + int(rng.integers(8))] = b""
        else:
            out[at:at] = rng.bytes(int(rng.integers(1, 8)))
    return bytes(out)


def _pick(rng: np.random.Generator, values: list):
    return values[rng.integers(len(values))]


def _extreme(rng: np.random.Generator, values: tuple[int, ...]) -> int:
    return int(values[rng.integers(len(values))])


def _put(data: bytes, at: int, form: str, value: int) -> bytes:
    size = struct.calcsize(form)
    if len(data) < at + size:
        return data
    return data[:at] + struct.pack(form, value % (1 << 8 * size)) + data[at + size :]


def _with_chunk(parts: _Parts, k: int, body: bytes) -> _Parts:
    return parts._replace(chunks=[*parts.chunks[:k], body, *parts.chunks[k + 1 :]])


def _stream_start(body: bytes) -> int:
    if len(body) < struct.calcsize(_CHUNK):
        return len(body)
    *_, names, labels = struct.unpack_from(_CHUNK, body)
    return min(struct.calcsize(_CHUNK) + names + labels, len(body))


def _with_checks(body: bytes, tables: Tables, header: bytes) -> bytes:
    """The body with the checks of whatever symbols its stream holds, if it holds any, and of what
    stands for their pixels."""
    try:
        chunk = records.unpack_chunk(body)
        DEFAULT.require(SYMBOLS, chunk.count * tables.latent_dim, len(chunk.stream))
        DEFAULT.require(LOOKUPS, chunk.work(tables), len(chunk.stream))
        symbols = entropy.decode(chunk.stream, chunk.count, tables.book(chunk.step))
    except CvaeError:
        return body
    body = _put(body, 15, "<I", records.crc32c(records.symbol_bytes(symbols)))
    h, w, c = struct.unpack_from("<3H", header, 10)
    if chunk.count * h * w * c >= 1 << 24:
        return body
    pixels = levels(chunk.count, (h, w, c), chunk.step)
    return _put(body, 19, "<I", records.crc32c(records.pixel_bytes(pixels)))


def _deflated(rng: np.random.Generator, data: bytes) -> bytes:
    packed = zlib.compress(data, 9)
    return packed if rng.random() < 0.9 else packed[: int(rng.integers(len(packed)))]


def _renamed(parts: _Parts) -> _Parts:
    """With a header that names its model, if that is one."""
    try:
        identity = FileModel.unpack(parts.model or b"").identity
    except CvaeError:
        return parts
    return parts._replace(header=parts.header[:24] + b"".join(identity) + parts.header[56:])
