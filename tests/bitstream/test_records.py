"""Lies: the checks are right, the numbers behind them are not."""

import contextlib
import struct
import tracemalloc
import zlib

import pytest
from archive_samples import (
    DATA,
    DECODER,
    IDENTITY,
    TABLES,
    read_all,
    sealed,
    sections_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from cvae_jax.bitstream import records, recover, salvage, single
from cvae_jax.bitstream.header import HEADER_SIZE
from cvae_jax.errors import FormatError


def resealed(change):
    """The archive with the body of its index, or a chunk, changed and every check made anew."""
    return sealed(*change(DATA[:HEADER_SIZE], sections_of(DATA)))


def index_with(images=None, **fields):
    def change(header, sections):
        tag, body = sections[-1]
        fixed = HEADER_SIZE + 8
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
        chunk_with(0, struct.pack("<Q", 2**64 - 1)),
        chunk_with(8, struct.pack("<I", 2**32 - 1)),
        chunk_with(8, struct.pack("<I", 0)),
        chunk_with(12, struct.pack("<H", 0)),
        chunk_with(12, struct.pack("<H", 1)),
        chunk_with(14, b"\0"),
        chunk_with(14, b"\xff"),
        chunk_with(23, struct.pack("<I", 2**32 - 1)),
        chunk_with(27, struct.pack("<I", 2**32 - 1)),
        chunk_with(23, struct.pack("<I", 0)),
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


@pytest.mark.parametrize("first", [2**63 - 39, 2**63, 2**64 - 1])
def test_a_chunk_of_an_impossible_number_is_not_recovered(first):
    """Numbers of images are signed 64-bit ones in numpy."""
    data = resealed(chunk_with(0, struct.pack("<Q", first)))
    found = recover(data, DECODER)
    assert found.lost == [(0, 39)]
    assert found.numbers.tolist() == list(range(40, 100))
    assert any(f"number {first}" in fault for fault in found.faults)


def test_an_index_of_an_impossible_number_is_a_fault():
    found = salvage(resealed(index_with(images=2**64 - 1)))
    assert found.images is None
    assert any("18446744073709551615" in fault for fault in found.faults)


def test_names_that_unpack_to_too_much_are_refused():
    bomb = zlib.compress(bytes(10**8), 9)

    def change(header, sections):
        tag, body = sections[1]
        fields = list(struct.unpack_from("<QIHBIIII", body))
        fields[6:] = [len(bomb), 0]
        fields[3] = 1
        return header, [sections[0], (tag, struct.pack("<QIHBIIII", *fields) + bomb), *sections[2:]]

    tracemalloc.start()
    with pytest.raises(FormatError):
        read_all(resealed(change))
    with pytest.raises(FormatError, match="names"):
        salvage(resealed(change)).chunks[0].names  # noqa: B018
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
    data = struct.pack("<2sB3sH", single.MAGIC, 2, IDENTITY.short, step) + payload
    for check in (b"\0\0\0\0", records.pack_crc(data)):
        try:
            image = single.decode(data + check, DECODER)
        except FormatError:
            continue
        again = single.encode(image.symbols, step, TABLES, IDENTITY, image.levels)
        assert again == data + check
