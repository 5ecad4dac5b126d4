"""What is written is read again, and every damage is noticed and named."""

import io

import numpy as np
import pytest
from archive_samples import (
    DATA,
    HEADER,
    IDENTITY,
    PARTS,
    STEP,
    SYMBOLS,
    TABLES,
    archive_of,
    part,
    read_all,
)
from conftest import synthetic_tables, typical_symbols

from cvae_jax import bitstream
from cvae_jax.bitstream import Identity, Reader, Writer, records, single
from cvae_jax.errors import FormatError, ModelMismatchError, VersionError


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
