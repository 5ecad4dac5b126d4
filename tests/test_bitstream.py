"""The containers: round trips, every damage noticed, lies refused, the rest recovered."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from conftest import ROOT, synthetic_tables, typical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st

from cvae_jax import bitstream
from cvae_jax.bitstream import Header, Identity, Reader, Writer, records, salvage, single
from cvae_jax.entropy import Tables
from cvae_jax.errors import FormatError, ModelMismatchError, VersionError

TABLES = synthetic_tables(components=5, latent_dim=4)
IDENTITY = Identity(b"the model's name", b"the tables' name")
HEADER = Header((28, 28, 1), 4, IDENTITY)
STEP = 300
GOLDEN = ROOT / "tests" / "golden"


def archive_of(parts, model=None, header=HEADER):
    """An archive of a chunk for each of ``parts``: keyword arguments of ``Writer.add``."""
    file = io.BytesIO()
    writer = Writer(file, header, model)
    for part in parts:
        writer.add(tables=TABLES, **part)
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


def test_what_goes_in_comes_out():
    reader = Reader(io.BytesIO(DATA))
    assert (len(reader), reader.header, reader.model()) == (100, HEADER, b"opaque")
    assert np.array_equal(read_all(DATA), SYMBOLS)
    first, second, third = (reader.chunk(k) for k in range(3))
    assert first.names == PARTS[0]["names"]
    assert second.names is second.labels is None
    assert third.labels.tolist() == [7] * 35
    assert (first.step, second.step) == (STEP, 77)
    assert [x.tolist() for x in reader.find(np.array([0, 39, 40, 99]))] == [
        [0, 0, 1, 2],
        [0, 39, 0, 34],
    ]
    assert len(Reader(io.BytesIO(archive_of([])))) == 0


def test_the_ledger_adds_up():
    ledger = Reader(io.BytesIO(DATA)).ledger()
    assert sum(ledger.values()) == len(DATA)
    assert min(ledger.values()) > 0
    assert ledger["model"] == len(b"opaque") + 8


def test_large_archives_are_cut_into_chunks():
    n = bitstream.CHUNK_IMAGES + 5
    data = archive_of([part(n, names=[f"{i}" for i in range(n)])])
    reader = Reader(io.BytesIO(data))
    assert [entry.count for entry in reader.entries] == [bitstream.CHUNK_IMAGES, 5]
    assert reader.chunk(1).names == [f"{i}" for i in range(n - 5, n)]
    assert np.array_equal(read_all(data), part(n)["symbols"])


def test_one_image_costs_the_header_the_index_and_one_chunk():
    class Counting(io.BytesIO):
        total = 0

        def read(self, size=-1):
            data = super().read(size)
            self.total += len(data)
            return data

    data = archive_of([part(500, seed) for seed in range(20)])
    file = Counting(data)
    reader = Reader(file)
    reader.chunk(13).symbols(TABLES)
    assert file.total < reader.entries[13].length + 20 * len(reader.entries) + 250
    assert file.total < len(data) / 5


def test_joined_archives_hold_the_images_of_both():
    other = archive_of([part(10, 9)])
    file = io.BytesIO()
    writer = Writer(file, HEADER)
    for data in (DATA, other, archive_of([])):
        writer.copy(Reader(io.BytesIO(data)))
    writer.add(tables=TABLES, **part(3, 4))
    writer.finish()
    expected = np.concatenate([SYMBOLS, part(10, 9)["symbols"], part(3, 4)["symbols"]])
    assert np.array_equal(read_all(file.getvalue()), expected)
    assert Reader(file).chunk(0).names == PARTS[0]["names"]
    alien = archive_of([], header=HEADER._replace(identity=Identity(bytes(16), bytes(16))))
    with pytest.raises(ModelMismatchError, match=bytes(16).hex()):
        writer.copy(Reader(io.BytesIO(alien)))


# Damage


def flips(data):
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        yield bytes(damaged)


def test_every_flipped_bit_and_every_truncation_of_an_archive_is_noticed():
    undetected = 0
    for damaged in (*flips(DATA), *(DATA[:n] for n in range(len(DATA)))):
        try:
            read_all(damaged)
        except FormatError:
            continue
        undetected += 1
    assert undetected == 0


def test_every_flipped_bit_and_every_truncation_of_single_images_is_noticed():
    for symbols in typical_symbols(TABLES, STEP, 50):
        data = single.encode(symbols, STEP, TABLES, IDENTITY)
        again, step = single.decode(data, TABLES, IDENTITY)
        assert np.array_equal(again, symbols)
        assert step == STEP
        for damaged in (*flips(data), *(data[:n] for n in range(len(data))), data + b"\0"):
            with pytest.raises((FormatError, ModelMismatchError)):
                single.decode(damaged, TABLES, IDENTITY)


def test_other_damage_is_noticed():
    reader = Reader(io.BytesIO(DATA))
    a, b, c = (DATA[e.offset : e.offset + e.length] for e in reader.entries)
    start, end = DATA[: reader.entries[0].offset], DATA[reader.index_offset :]
    for damaged in (
        *(start + b + a + c + end, start + a + a + c + end, start + a + c + end),
        *(DATA + b"\0", b"\0" + DATA, DATA + DATA, DATA.replace(b"\r\n", b"\n"), b""),
    ):
        with pytest.raises(FormatError):
            read_all(damaged)


def test_the_damaged_place_is_named():
    entry = Reader(io.BytesIO(DATA)).entries[1]
    damaged = bytearray(DATA)
    damaged[entry.offset + 40] ^= 1
    with pytest.raises(FormatError, match=rf"chunk 1 \(images 40 to 64, byte {entry.offset}\)"):
        read_all(bytes(damaged))


def test_other_versions_and_models_are_named():
    newer = bytearray(DATA)
    newer[8] = 2
    with pytest.raises(VersionError, match="version 2"):
        Reader(io.BytesIO(bytes(newer)))
    flagged = bytearray(DATA)
    flagged[9] |= 64
    end = records.HEADER_SIZE - 4
    flagged[end : end + 4] = records.pack_crc(bytes(flagged[:end]))
    with pytest.raises(VersionError, match="update"):
        Reader(io.BytesIO(bytes(flagged)))
    image = single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY)
    with pytest.raises(VersionError, match="version 2"):
        single.decode(image[:2] + b"\2" + image[3:], TABLES, IDENTITY)
    other = Identity(bytes(16), IDENTITY.tables)
    with pytest.raises(ModelMismatchError, match=f"{IDENTITY.short.hex()}.*{other.short.hex()}"):
        single.decode(image, TABLES, other)
    with pytest.raises(ModelMismatchError, match=f"{IDENTITY.model.hex()}.*{bytes(16).hex()}"):
        IDENTITY.require(other)


def test_other_tables_are_noticed_even_if_their_name_is_right():
    """The check of the symbols: the bytes are intact, and still not what was compressed."""
    others = synthetic_tables(components=5, latent_dim=4, seed=1)
    with pytest.raises(FormatError):
        Reader(io.BytesIO(DATA)).chunk(0).symbols(others)
    with pytest.raises(FormatError):
        single.decode(single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY), others, IDENTITY)


def test_neither_kind_of_file():
    assert bitstream.is_archive(DATA)
    assert not bitstream.is_archive(single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY))
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\x89CVAE\n"):
        with pytest.raises(FormatError, match="neither"):
            bitstream.is_archive(data)


# Lies: the checks are right, the numbers are not


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


# Recovery


def test_intact_chunks_are_recovered():
    entry = Reader(io.BytesIO(DATA)).entries[1]
    damaged = bytearray(DATA)
    damaged[entry.offset + 40] ^= 1
    found = salvage(bytes(damaged))
    assert [chunk.first for chunk in found.chunks] == [0, 65]
    assert (found.images, found.model, found.header) == (100, b"opaque", HEADER)
    ranges = [(c.first, c.count) for c in found.chunks]
    assert bitstream.lost(ranges, found.images) == [(40, 64)]
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


# For ever


def test_golden_files_of_version_1_decode():
    """Made by the first release of format version 1; not to be made anew."""
    tables = Tables.from_bytes((GOLDEN / "v1_tables.bin").read_bytes())
    expected = np.load(GOLDEN / "v1_symbols.npy")
    data = (GOLDEN / "v1_archive.cvae").read_bytes()
    reader = Reader(io.BytesIO(data))
    assert reader.header.image_shape == (28, 28, 1)
    chunks = [reader.chunk(k) for k in range(len(reader.entries))]
    assert np.array_equal(np.concatenate([c.symbols(tables) for c in chunks]), expected)
    assert chunks[0].names == ["zero.png", "deeper/one.png", "zwei-ü.png"]
    assert chunks[1].labels.tolist() == [7, 4294967295]
    assert reader.model() == b"a model"
    image = (GOLDEN / "v1_single.cvae").read_bytes()
    symbols, step = single.decode(image, tables, reader.header.identity)
    assert np.array_equal(symbols, expected[0])
    assert step == 300


def test_the_worked_example_of_the_specification_is_the_golden_files():
    text = (ROOT / "docs" / "FORMAT.md").read_text()

    def block(name):
        return text.split(f"<!-- {name} -->\n```\n")[1].split("\n```")[0]

    image = (GOLDEN / "v1_single.cvae").read_bytes()
    assert bytes.fromhex(block("single")) == image
    lines = block("archive").splitlines()
    dump = bytes.fromhex("".join(line.split("  ", 1)[1] for line in lines))
    assert dump == (GOLDEN / "v1_archive.cvae").read_bytes()
    assert [int(line[:4], 16) for line in lines] == list(range(0, len(dump), 16))
    tables = Tables.from_bytes((GOLDEN / "v1_tables.bin").read_bytes())
    book = tables.book(300)
    row = book.row(1, 1)
    assert block("sums").split() == [str(s) for s in book.sums(row)]
    assert (book.first[row], book.count[row]) == (-5, 12)
    assert np.load(GOLDEN / "v1_symbols.npy")[0].tolist() == [3, 0, -2]
    entries = Reader(io.BytesIO(dump)).entries
    assert [entry.offset for entry in entries] == [0x4F, 0xA7]
