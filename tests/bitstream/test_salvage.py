"""What is intact in a damaged archive is recovered."""

import io
import struct

import numpy as np
import pytest
from archive_samples import DATA, HEADER, PARTS, TABLES, read_all, sealed, sections_of
from conftest import ROOT

from cvae_jax.bitstream import Header, Identity, Reader, records, salvage
from cvae_jax.bitstream.header import HEADER_SIZE, pack_header
from cvae_jax.bitstream.salvage import lost
from cvae_jax.errors import FormatError


def test_intact_chunks_are_recovered():
    entry = Reader(io.BytesIO(DATA)).entries[1]
    damaged = bytearray(DATA)
    damaged[entry.offset + 40] ^= 1
    found = salvage(bytes(damaged))
    assert [chunk.first for chunk in found.chunks] == [0, 65]
    assert (found.images, found.models, found.header) == (100, [b"opaque"], HEADER)
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


HEAD, SECTIONS = DATA[:HEADER_SIZE], sections_of(DATA)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DATA + DATA, ["are no intact section", "left out", "another index"]),
        (DATA + b"\0", ["damaged, or no archive's end"]),
        (DATA[:-16], ["damaged, or no archive's end"]),
        (DATA[:-16] + b"\0" * 16, ["damaged, or no archive's end"]),
        (DATA[:-16] + records.pack_footer(1), ["the archive's end names byte 1"]),
        (HEAD + HEAD + DATA[HEADER_SIZE:], ["bytes 60 to 119 are no intact section"]),
        (sealed(HEAD, [*SECTIONS, SECTIONS[-1]]), ["another index"]),
        (sealed(HEAD, [*SECTIONS[:2], *SECTIONS[1:]]), ["images 0 to 39, some of which"]),
        (sealed(HEAD, [SECTIONS[0], *SECTIONS]), ["index: "]),
        (sealed(HEAD, [SECTIONS[0], SECTIONS[2], SECTIONS[1], *SECTIONS[3:]]), ["chunk 0"]),
    ],
)
def test_nothing_is_left_out_in_silence(data, words):
    """What a strict reader refuses is a fault, though every image is there."""
    with pytest.raises(FormatError):
        read_all(data)
    found = salvage(data)
    assert sum(chunk.count for chunk in found.chunks) == 100
    for word in words:
        assert any(word in fault for fault in found.faults), found.faults


def test_every_model_is_kept_until_it_is_known_which_is_the_right_one():
    junk = [records.MODEL, b"junk"]
    for first, second in ((SECTIONS[0], junk), (junk, SECTIONS[0])):
        found = salvage(sealed(HEAD, [first, second, *SECTIONS[1:]]))
        assert found.models == [first[1], second[1]]
        assert found.faults


def test_what_keep_going_says_of_files_joined_by_hand_and_of_their_models(cvae, tmp_path):
    whole = (ROOT / "tests/golden/v2_mnist.cvae").read_bytes()
    head, (model, *rest) = whole[:HEADER_SIZE], sections_of(whole)
    other = [records.MODEL, model[1][:-9]]
    argv = ["decompress", "bad.cvae", "-f", "--keep-going", "-o", "x.npy"]
    for content, word in (
        (whole + whole, "left out"),
        (sealed(head, [other, model, *rest]), "index: "),
        (sealed(head, [model, other, *rest]), "index: "),
        (sealed(head, [other, *rest]), "embedded model"),
    ):
        (tmp_path / "bad.cvae").write_bytes(content)
        status, out, err = cvae(*argv)
        assert (status, err) == (3, "")
        assert "fault: " in out
        assert word in out
        assert len(np.load("x.npy")) == len(Reader(io.BytesIO(whole)))


def test_a_damaged_model_is_not_replaced_by_the_released_one(cvae, tmp_path):
    """No model is left that could decode it: damage, and not another model's file."""
    identity = Identity(b"the model's name", b"the tables' name")
    packed = pack_header(Header((28, 28, 1), 4, identity), has_model=True)
    index = (records.INDEX, packed + struct.pack("<Q", 3))  # of lost images
    for sections in ([(records.MODEL, b"junk"), index], [(b"MODX", b"junk"), index]):
        (tmp_path / "bad.cvae").write_bytes(sealed(packed, sections))
        argv = ["decompress", "bad.cvae", "--keep-going", "-o", "x"]
        status, _, err = cvae(*argv)
        assert status == 3
        assert "embedded model" in err
