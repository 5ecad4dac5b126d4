"""Lies: the checks are right, the numbers behind them are not."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import pytest
from archive_samples import DATA, IDENTITY, TABLES, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from cvae_jax.bitstream import Reader, records, salvage, single
from cvae_jax.errors import FormatError


def resealed(change):
    """The archive with the body of its index, or a chunk, changed and every check made anew."""
    reader = Reader(io.BytesIO(DATA))
    header, rest = DATA[: records.HEADER_SIZE], DATA[records.HEADER_SIZE :]
    sections = []
    while len(rest) > 16:
        length = records.section_length(rest[:8])
        sections.append((rest[:4], rest[8 : length - 4]))
        rest = rest[length:]
    header, sections = change(header, sections)
    out = header + b"".join(records.pack_section(tag, body) for tag, body in sections[:-1])
    offset = struct.pack("<Q", len(out))
    out += records.pack_section(*sections[-1])
    assert reader.index_offset
    return out + offset + records.pack_crc(offset) + b"CVAZ"


def index_with(images=None, **fields):
    def change(header, sections):
        tag, body = sections[-1]
        fixed = records.HEADER_SIZE + 8
        entries = [list(e) for e in struct.iter_unpack("<QII", body[fixed:])]
        for name, value in fields.items():
            entries[1][("offset", "length", "count").index(name)] = value
        count = struct.unpack_from("<Q", body, fixed - 8)[0] if images is None else images
        packed = b"".join(struct.pack("<QII", *entry) for entry in entries)
        return header, [
            *sections[:-1],
            (tag, body[: fixed - 8] + struct.pack("<Q", count) + packed),
        ]

    return change


def chunk_with(offset, packed):
    def change(header, sections):
        tag, body = sections[1]
        body = body[:offset] + packed + body[offset + len(packed) :]
        return header, [sections[0], (tag, body), *sections[2:]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        index_with(images=10**9),
        index_with(images=2**64 - 1),
        index_with(count=2**32 - 1),
        index_with(count=0),
        index_with(length=0),
        index_with(length=2**32 - 1),
        index_with(offset=2**63),
        index_with(offset=60),
        chunk_with(0, struct.pack("<Q", 2**63)),
        chunk_with(8, struct.pack("<I", 2**32 - 1)),
        chunk_with(8, struct.pack("<I", 0)),
        chunk_with(12, struct.pack("<H", 0)),
        chunk_with(12, struct.pack("<H", 1)),
        chunk_with(14, b"\0"),
        chunk_with(14, b"\xff"),
        chunk_with(19, struct.pack("<I", 2**32 - 1)),
        chunk_with(23, struct.pack("<I", 2**32 - 1)),
        chunk_with(19, struct.pack("<I", 0)),
        lambda header, sections: (header, sections[1:]),
        lambda header, sections: (header, [sections[0], sections[1], *sections[1:]]),
        lambda header, sections: (header, sections[:-1]),
        lambda header, sections: (header, [*sections[:-1], (b"INDX", b"")]),
        lambda header, sections: (header, [*sections[:-1], (b"INDX", sections[-1][1] + b"\0")]),
    ],
)
def test_lies_are_refused_in_little_memory(change):
    data = resealed(change)
    tracemalloc.start()
    with pytest.raises(FormatError):
        read_all(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_resealing_without_a_change_changes_nothing():
    assert resealed(lambda header, sections: (header, sections)) == DATA


def test_names_that_unpack_to_too_much_are_refused():
    bomb = zlib.compress(bytes(10**8), 9)

    def change(header, sections):
        tag, body = sections[1]
        fields = list(struct.unpack_from("<QIHBIII", body))
        fields[5:] = [len(bomb), 0]
        fields[3] = 1
        return header, [sections[0], (tag, struct.pack("<QIHBIII", *fields) + bomb), *sections[2:]]

    tracemalloc.start()
    with pytest.raises(FormatError):
        read_all(resealed(change))
    for chunk in salvage(resealed(change)).chunks:
        assert chunk.first != 0
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutations_behind_the_checks_are_errors_or_images(data):
    """Bytes of any section changed, all checks made anew: nothing but FormatError comes out."""

    def change(header, sections):
        which = data.draw(st.integers(0, len(sections) - 1))
        tag, body = sections[which]
        body = bytearray(body)
        for _ in range(data.draw(st.integers(1, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.sampled_from([None, None, -1, -4, 20]))
        return header, [*sections[:which], (tag, bytes(body[:cut])), *sections[which + 1 :]]

    mutated = resealed(change)
    for read in (read_all, lambda d: [c.symbols(TABLES) for c in salvage(d).chunks]):
        with contextlib.suppress(FormatError):
            read(mutated)


@settings(max_examples=100, deadline=None)
@given(payload=st.binary(max_size=40), step=st.integers(0, 65535))
def test_any_payload_of_a_single_image_is_an_error_or_an_image(payload, step):
    data = struct.pack("<2sB3sH", single.MAGIC, 1, IDENTITY.short, step) + payload
    for check in (b"\0\0\0\0", records.pack_crc(data)):
        try:
            symbols, _ = single.decode(data + check, TABLES, IDENTITY)
        except FormatError:
            continue
        assert single.encode(symbols, step, TABLES, IDENTITY) == data + check
