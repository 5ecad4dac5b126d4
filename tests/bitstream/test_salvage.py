"""What is intact in a damaged archive is recovered."""

import io

import numpy as np
import pytest
from archive_samples import DATA, HEADER, PARTS, TABLES

from cvae_jax.bitstream import Reader, salvage
from cvae_jax.bitstream.salvage import lost
from cvae_jax.errors import FormatError


def test_intact_chunks_are_recovered():
    entry = Reader(io.BytesIO(DATA)).entries[1]
    damaged = bytearray(DATA)
    damaged[entry.offset + 40] ^= 1
    found = salvage(bytes(damaged))
    assert [chunk.first for chunk in found.chunks] == [0, 65]
    assert (found.images, found.model, found.header) == (100, b"opaque", HEADER)
    ranges = [(c.first, c.count) for c in found.chunks]
    assert lost(ranges, found.images) == [(40, 64)]
    assert np.array_equal(found.chunks[1].symbols(TABLES), PARTS[2]["symbols"])


def test_a_lost_index_a_lost_header_and_a_lost_end():
    reader = Reader(io.BytesIO(DATA))
    no_index = salvage(DATA[: reader.index_offset])
    assert (len(no_index.chunks), no_index.images) == (3, None)
    assert any("missing at the end" in fault for fault in no_index.faults)
    no_header = salvage(b"\xff" * 20 + DATA[20:])
    assert (len(no_header.chunks), no_header.header) == (3, HEADER)
    assert no_header.faults
    no_end = salvage(DATA[: reader.entries[2].offset + 30])
    assert [chunk.first for chunk in no_end.chunks] == [0, 40]
    no_start = salvage(DATA[reader.entries[1].offset :])
    assert [chunk.first for chunk in no_start.chunks] == [40, 65]
    assert salvage(DATA).faults == []
    with pytest.raises(FormatError, match="index"):
        salvage(DATA[reader.entries[0].offset : reader.index_offset])


def test_overlapping_chunks_are_recovered_once():
    reader = Reader(io.BytesIO(DATA))
    a = DATA[reader.entries[0].offset : reader.entries[1].offset]
    found = salvage(DATA[: reader.entries[0].offset] + a + DATA[reader.entries[0].offset :])
    assert [chunk.first for chunk in found.chunks] == [0, 40, 65]
