"""A small archive for the tests, and ways to write others."""

import dataclasses
import io
import struct

import numpy as np
from conftest import synthetic_tables, typical_symbols

from cvae_jax.bitstream import FileDecoder, Header, Identity, Reader, Writer, records
from cvae_jax.bitstream.header import HEADER_SIZE, pack_header

TABLES = synthetic_tables(components=5, latent_dim=4)
IDENTITY = Identity(b"the model's name", b"the tables' name")
HEADER = Header((28, 28, 1), 4, IDENTITY)
STEP = 300


def blank(symbols, step=STEP, shape=(28, 28, 1)):
    """What stands for a network: images without a mark."""
    return np.zeros((len(symbols), *shape), np.uint8)


DECODER = FileDecoder(HEADER, TABLES, blank)


def archive_of(parts, model=None, header=HEADER):
    """An archive of a chunk for each of ``parts``: keyword arguments of ``Writer.add``."""
    file = io.BytesIO()
    writer = Writer(file, header, model)
    for part in parts:
        writer.add(tables=TABLES, levels=blank(part["symbols"]), **part)
    writer.finish()
    return file.getvalue()


def part(n, seed=0, step=STEP, **more):
    return {"symbols": typical_symbols(TABLES, step, n, seed), "step": step, **more}


def read_all(data):
    """Every image's symbols, as a strict reader gets them."""
    reader = Reader(io.BytesIO(data))
    reader.model()
    chunks = [reader.chunk(k) for k in range(len(reader.entries))]
    return np.concatenate([np.zeros((0, 4), np.int32), *(c.symbols(TABLES) for c in chunks)])


PARTS = [
    part(40, 1, names=[f"a/{i}.png" for i in range(40)], labels=range(40)),
    part(25, 2, step=77),
    part(35, 3, labels=[7] * 35),
]
SYMBOLS = np.concatenate([p["symbols"] for p in PARTS])
DATA = archive_of(PARTS, model=b"opaque")


def sections_of(data):
    """The sections of an intact archive, index included: ``[tag, body]`` each."""
    rest, sections = data[HEADER_SIZE:-16], []
    while rest:
        length = records.section_length(rest[:8])
        sections.append([rest[:4], rest[8 : length - 4]])
        rest = rest[length:]
    return sections


def sealed(header, sections):
    """A file of a packed header and sections, every check and the footer as they should be."""
    out = header + b"".join(records.pack_section(*section) for section in sections[:-1])
    offset = struct.pack("<Q", len(out))
    return out + records.pack_section(*sections[-1]) + offset + records.pack_crc(offset) + b"CVAZ"


def archive_of_chunks(chunks, header=HEADER, model=None):
    """A file of these chunks, whatever they hold, with an index that fits them."""
    packed = pack_header(header, model is not None)
    sections = [] if model is None else [(records.MODEL, model)]
    at, first, entries = len(packed) + sum(len(m) + 12 for _, m in sections), 0, b""
    for chunk in chunks:
        body = records.pack_chunk(dataclasses.replace(chunk, first=first))
        sections.append((records.CHUNK, body))
        entries += struct.pack("<QII", at, len(body) + 12, chunk.count)
        at, first = at + len(body) + 12, first + chunk.count
    return sealed(packed, [*sections, (records.INDEX, packed + struct.pack("<Q", first) + entries)])


def empty_chunk(count, tables=TABLES, step=STEP, names=None, labels=None, pixels=28 * 28):
    """A chunk of many images in no bytes: an empty stream is every row's first symbol."""
    book = tables.book(step)
    one = book.first[: tables.latent_dim].astype("<i4").tobytes()
    crc = records.crc32c(one * count)
    pixel_crc = records.crc32c(bytes(count * pixels))
    return records.Chunk(0, count, step, crc, pixel_crc, names, labels, b"")
