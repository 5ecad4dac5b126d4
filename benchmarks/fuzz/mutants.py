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

from benchmarks.fuzz import changes
from benchmarks.fuzz.changes import changed, extreme, pick, put
from benchmarks.fuzz.samples import IMAGES, Sample, levels
from cvae_jax.bitstream import Chunk, records, single
from cvae_jax.bitstream.budget import DEFAULT, LOOKUPS
from cvae_jax.bitstream.header import HEADER_SIZE
from cvae_jax.bitstream.header import MAGIC as ARCHIVE_MAGIC
from cvae_jax.coding import streams
from cvae_jax.coding.integers import packing
from cvae_jax.errors import CvaeError
from cvae_jax.file_model import FileModel

_EXTREMES = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_LARGE_EXTREMES = (0, 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_CHUNK = "<QIHBIIII"
_SMALL = None, (1, 1), (5, 14), (8, 12), (9, 9)
_SIZES = (*_SMALL, (300, 300), (1, 65535), (8192, 8192), (65535, 65535))


def mutant(rng: np.random.Generator, sample: Sample) -> bytes:
    data = sample.data
    kind = rng.random()
    if kind < 0.05:  # noise, behind a magic or not
        magics = (*single.MAGICS, ARCHIVE_MAGIC)
        start = [b"", *(magic + b"\2" for magic in magics)][rng.integers(5)]
        return start + rng.bytes(int(rng.integers(200)))
    if kind < 0.15:  # damage as it happens
        return changed(rng, data)
    if data[:2] == single.REFINED_MAGIC:
        return changes.of_refined_image(rng, sample)
    if data[:2] in single.MAGICS:
        return _image(rng, sample)
    parts = _Parts.of(data)
    for _ in range(int(rng.integers(1, 3))):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        if parts.chunks:  # a change before may have left none
            parts = change(rng, parts, sample)
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
            index = changed(rng, self.index)
        offset = struct.pack("<Q", len(out))
        out += records.pack_section(records.INDEX, index)
        return out + offset + records.pack_crc(offset) + b"CVAZ"


# Changes of an archive


def _any_bytes(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    which = int(rng.integers(len(parts.chunks) + 2))
    if which == 0:
        return parts._replace(header=changed(rng, parts.header)[: len(parts.header)])
    if which == 1:
        return parts._replace(model=parts.model and changed(rng, parts.model))
    return _with_chunk(parts, which - 2, changed(rng, parts.chunks[which - 2]))


def _header_field(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    at, form = [(9, "<B"), (10, "<H"), (12, "<H"), (14, "<H"), (16, "<I"), (20, "<I")][
        rng.integers(6)
    ]
    return parts._replace(header=put(parts.header, at, form, extreme(rng, _EXTREMES)))


def _chunk_field(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    """A number in a chunk's header; the check of its symbols follows."""
    k = int(rng.integers(len(parts.chunks)))
    at, form = [(0, "<Q"), (8, "<I"), (12, "<H"), (14, "<B"), (23, "<I"), (27, "<I")][
        rng.integers(6)
    ]
    values = _LARGE_EXTREMES if form == "<Q" else _EXTREMES
    if at == 8:
        values = (0, 1, IMAGES + 1, 64, 4096, 8191, 8192, 8193, 2**32 - 1)
    body = put(parts.chunks[k], at, form, extreme(rng, values))
    return _with_chunk(parts, k, _with_checks(body, sample))


def _stream(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    k = int(rng.integers(len(parts.chunks)))
    body = parts.chunks[k]
    at = _stream_start(body)
    stream = [b"", rng.bytes(4 * int(rng.integers(60))), changed(rng, body[at:])][rng.integers(3)]
    return _with_chunk(parts, k, _with_checks(body[:at] + stream, sample))


def _names_or_labels(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
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
        changed(rng, names),
        b"\0".join([pick(rng, odd).encode(errors="surrogatepass")] * count),
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


def _order(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
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


def _refinement(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    """What refines a chunk, with the checks that then belong; or a chunk of very many images."""
    k = int(rng.integers(len(parts.chunks)))
    try:
        chunk = records.unpack_chunk(parts.chunks[k])
    except CvaeError:
        return parts
    if chunk.refinement is None or sample.context is None:
        return parts
    if rng.random() < 0.2:
        return parts._replace(chunks=[records.pack_chunk(changes.flood(rng, sample))])
    return _with_chunk(parts, k, records.pack_chunk(changes.of_refinement(rng, chunk, sample)))


def _size(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    """Another size of a chunk's images, with the checks that then belong."""
    k = int(rng.integers(len(parts.chunks)))
    try:
        chunk = records.unpack_chunk(parts.chunks[k])
    except CvaeError:
        return parts
    chunk = dataclasses.replace(chunk, size=_SIZES[rng.integers(len(_SIZES))])
    return _with_chunk(parts, k, records.pack_chunk(changes.checked(chunk, sample)))


def _flood(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    """Very many images in no bytes."""
    count, copies = int(rng.integers(1, 8193)), int(pick(rng, [1, 1, 1, 1, 1, 2, 2, 2, 5, 60]))
    step = int(pick(rng, [87, 600, 4096, 65535, 1, 17]))
    crc = pixels = 0
    tables = sample.tables
    h, w, c = struct.unpack_from("<3H", parts.header, 10)
    if count * h * w * c < 1 << 24:
        pixels = records.crc32c(levels(count, (h, w, c), step).tobytes())
    if count * tables.latent_dim < 1 << 20:
        try:
            (first,) = streams.decode(b"", 1, tables, step)
        except CvaeError:
            return parts
        crc = records.crc32c(np.tile(first, (count, 1)).astype("<i4").tobytes())
    names = _deflated(rng, b"\0".join([b"n" * 1000] * count)) if rng.random() < 0.3 else None
    chunk = Chunk(0, count, step, crc, pixels, names, None, b"")
    bodies = [
        records.pack_chunk(dataclasses.replace(chunk, first=i * count)) for i in range(copies)
    ]
    return parts._replace(chunks=bodies)


def _embedded(rng: np.random.Generator, parts: _Parts, sample: Sample) -> _Parts:
    """The model that the archive carries: numbers of its decoder or its tables, packed again, and
    a header that names what came of it."""
    if parts.model is None:
        return parts
    try:
        model = FileModel.unpack(parts.model)
    except CvaeError:  # changed before
        return parts
    kind = rng.integers(4 + 3 * (model.context is not None))
    coding, decoder = model.tables.to_bytes(), model.decoder.to_bytes()
    if kind == 0:  # any number of a header, or of an array's
        decoder = put(decoder, int(rng.integers(60)), "<H", extreme(rng, _EXTREMES))
    elif kind == 1:  # one layer's numbers
        k = int(rng.integers(len(model.decoder.layers)))
        layer = model.decoder.layers[k]
        field = pick(rng, ["weights", "bias", "shift", "bits"])
        scale = int(pick(rng, [0, -1, 3, 1 << 12, 1 << 20]))
        other = layer._replace(
            **{field: np.asarray(getattr(layer, field)).astype(np.int64) * scale}
        )
        layers = (*model.decoder.layers[:k], other, *model.decoder.layers[k + 1 :])
        try:
            with np.errstate(divide="ignore"):  # of shifts that leave no grain
                decoder = dataclasses.replace(model.decoder, layers=layers).to_bytes()
        except (ValueError, OverflowError):  # no bytes hold it
            return parts
    elif kind == 2:  # an architecture whose weights are not there, or cost much
        shape = struct.pack("<3H", *(int(pick(rng, [0, 1, 7, 500, 8192, 65535])) for _ in "hwc"))
        decoder = decoder[:5] + shape + decoder[11:]
        if rng.random() < 0.5:
            found = model.decoder.architecture.filters
            filters = packing.pack(np.array(found))
            many = rng.choice([1, 30, 8192, 1 << 20], len(found))
            decoder = decoder.replace(filters, packing.pack(many))
        parts = parts._replace(header=parts.header[:10] + shape + parts.header[16:])
    elif kind == 3:
        coding = changed(rng, coding)
    of_model = [coding, decoder]
    if model.context is not None:
        context = model.context.packed
        if kind > 3:
            context = changes.another_context(rng, model.context)
            parts = parts._replace(
                chunks=[changes.named(body, context, sample) for body in parts.chunks]
            )
        of_model.append(context)
    packed = b"".join(struct.pack("<I", len(part)) + part for part in of_model)
    return _renamed(parts._replace(model=packed))


_CHANGES = (
    *(_any_bytes, _header_field, _chunk_field, _chunk_field, _stream, _stream, _stream),
    *(_names_or_labels, _names_or_labels, _order, _order, _flood, _embedded, _embedded),
    *(_refinement, _refinement, _refinement, _refinement, _size),
)


# Changes of a single image's file


def _image(rng: np.random.Generator, sample: Sample) -> bytes:
    """The step or the payload, with the check that then belongs."""
    content = sample.data[:6] + changed(rng, sample.data[6:-4])
    try:
        (step,) = struct.unpack_from("<H", content, 6)
        size = single.size_of(content + bytes(4))
        tables, shape = sample.of_size(size)
        DEFAULT.require(LOOKUPS, streams.work(1, tables, step), len(content))
        if size is None:
            symbols = streams.decode_one(content[8:], tables, step)
        else:
            (symbols,) = streams.decode(content[12:], 1, tables, step)
    except (CvaeError, struct.error):
        return content + sample.data[-4:]
    pixels = levels(1, shape, step).tobytes()
    return content + records.pack_crc(content + records.symbol_bytes(symbols) + pixels)


# Tools


def _with_chunk(parts: _Parts, k: int, body: bytes) -> _Parts:
    return parts._replace(chunks=[*parts.chunks[:k], body, *parts.chunks[k + 1 :]])


def _stream_start(body: bytes) -> int:
    if len(body) < struct.calcsize(_CHUNK):
        return len(body)
    *_, names, labels = struct.unpack_from(_CHUNK, body)
    return min(struct.calcsize(_CHUNK) + names + labels, len(body))


def _with_checks(body: bytes, sample: Sample) -> bytes:
    """The body with the checks of whatever symbols and images its streams hold, if they hold any,
    and of what stands for the pixels."""
    try:
        chunk = records.unpack_chunk(body)
        return records.pack_chunk(changes.checked(chunk, sample))
    except CvaeError:
        return body


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
