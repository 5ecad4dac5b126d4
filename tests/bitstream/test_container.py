"""What is written is read again, and every damage is noticed and named."""

import dataclasses
import io
import os

import numpy as np
import pytest
from archive_samples import (
    DATA,
    DECODER,
    HEADER,
    IDENTITY,
    PARTS,
    STEP,
    SYMBOLS,
    TABLES,
    archive_of,
    archive_of_chunks,
    blank,
    empty_chunk,
    part,
    read_all,
)
from conftest import Counting, synthetic_tables, typical_symbols

from cvae_jax import bitstream
from cvae_jax.bitstream import Identity, Reader, Writer, records, single
from cvae_jax.bitstream.header import HEADER_SIZE
from cvae_jax.errors import DataError, FormatError, ModelMismatchError, VersionError

BLANK = blank([0])[0]


def verify(data, decoder):
    """As ``cvae verify`` does: the number of images of an intact file."""
    if bitstream.is_archive(data):
        return bitstream.verify_archive(Reader(io.BytesIO(data)), decoder)
    single.decode(data, decoder)
    return 1


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
    assert ledger.pop("refinements") == 0
    assert min(ledger.values()) > 0
    assert ledger["model"] == len(b"opaque") + 12


def test_large_archives_are_cut_into_chunks():
    n = bitstream.CHUNK_IMAGES + 5
    data = archive_of([part(n, names=[f"{i}" for i in range(n)])])
    reader = Reader(io.BytesIO(data))
    assert [entry.count for entry in reader.entries] == [bitstream.CHUNK_IMAGES, 5]
    assert reader.chunk(1).names == [f"{i}" for i in range(n - 5, n)]
    assert np.array_equal(read_all(data), part(n)["symbols"])


def test_one_image_costs_the_header_the_index_and_one_chunk():
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
    writer.add(tables=TABLES, levels=blank(range(3)), **part(3, 4))
    writer.finish()
    expected = np.concatenate([SYMBOLS, part(10, 9)["symbols"], part(3, 4)["symbols"]])
    assert np.array_equal(read_all(file.getvalue()), expected)
    assert Reader(file).chunk(0).names == PARTS[0]["names"]
    alien = archive_of([], header=HEADER._replace(identity=Identity(bytes(16), bytes(16))))
    with pytest.raises(ModelMismatchError, match=bytes(16).hex()):
        writer.copy(Reader(io.BytesIO(alien)))


# What is refused before it is written


def written(**more):
    return archive_of([{**part(4), **more}])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((4, 2), int), r"shape \(4, 2\)"),
        (np.array(5), r"shape \(\)"),
        (7, r"shape \(\)"),
        (["a", "b", "c", "d"], "whole numbers"),
        ([1, 2, 3], "3 labels for 4"),
        ([[1], [2, 3], [4], [5]], "one whole number for each"),
        ([0, 1, 2, -1], "whole numbers"),
        ([0, 1, 2, 2**32], "whole numbers"),
        ([0, 1, 2, 2**70], "whole numbers"),
        ([0.5] * 4, "whole numbers"),
    ],
)
def test_labels_that_no_reader_takes(labels, words):
    with pytest.raises(DataError, match=words):
        written(labels=labels)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "b", "c"], "3 names for 4"),
        (["a", "b", "c", ""], "empty"),
        (["a", "b", "c", "x\0y"], "NUL"),
        (["a", "b", "c", "n" * 1025], "too long"),
        (["a", "b", "c", b"d"], "text, not bytes"),
        (["a", "b", "c", os.fsdecode(b"caf\xe9.png")], "not Unicode"),
        (["a", "b", "c", "a"], "twice"),
        (["a", "b", "c", "../d"], "refused"),
        (["a", "a/b", "c", "d"], "folder"),
    ],
)
def test_names_that_no_reader_takes(names, words):
    with pytest.raises(DataError, match=words) as refused:
        written(names=names)
    assert str(refused.value).isprintable()


def test_symbols_of_another_shape():
    for symbols in (np.zeros((4, 5), np.int32), np.zeros(4, np.int32)):
        with pytest.raises(DataError, match="for a model of 4 latents"):
            written(symbols=symbols)
    with pytest.raises(DataError, match="65535"):
        archive_of([], header=HEADER._replace(image_shape=(65536, 1, 1)))


def test_names_that_are_there_already():
    """Of two archives, and of two parts of one."""
    file = io.BytesIO()
    writer = Writer(file, HEADER)
    writer.copy(Reader(io.BytesIO(DATA)))
    writer.copy(Reader(io.BytesIO(archive_of([part(2, names=["b", "c"])]))))
    writer.copy(Reader(io.BytesIO(DATA)))
    with pytest.raises(DataError, match="twice"):
        writer.finish()
    with pytest.raises(DataError, match="folder"):
        archive_of([part(1, names=["a"]), part(1, names=["a/b"])])


def test_what_was_written_is_read_back():
    for data in (DATA, archive_of([])):
        assert verify(data, DECODER) == len(Reader(io.BytesIO(data)))
    image = single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY, BLANK)
    assert verify(image, DECODER) == 1
    for good in (DATA, image):
        for at in range(0, len(good), 7):
            damaged = bytearray(good)
            damaged[at] ^= 16
            with pytest.raises((FormatError, ModelMismatchError)):
                verify(bytes(damaged), DECODER)
    with pytest.raises(ModelMismatchError):
        verify(DATA, of(Identity(bytes(16), bytes(16))))
    for packed in ({"packed_labels": b"x"}, {"packed_names": b"x"}):
        chunk = dataclasses.replace(empty_chunk(3), **packed)
        with pytest.raises(FormatError, match=next(iter(packed))[7:]):
            verify(archive_of_chunks([chunk]), DECODER)


# Damage


def of(identity):
    return DECODER._replace(header=HEADER._replace(identity=identity))


def marked(symbols, step):
    """What a reader that computes something else makes of symbols: one level in one pixel."""
    out = blank(symbols)
    if len(out):
        out[-1, -1, -1, -1] = 1
    return out


def test_other_pixels_are_refused_and_not_returned():
    wrong = DECODER._replace(decode_symbols=marked)
    image = single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY, BLANK)
    for read in (
        lambda: single.decode(image, wrong),
        lambda: bitstream.Archive(io.BytesIO(DATA), wrong).read(),
        lambda: bitstream.Archive(io.BytesIO(DATA), wrong)[:40],
        lambda: verify(DATA, wrong),
        lambda: verify(image, wrong),
    ):
        with pytest.raises(FormatError, match="other pixels than when"):
            read()
    found = bitstream.recover(DATA, wrong)
    assert (len(found.images), found.lost) == (0, [(0, 99)])
    assert all("other pixels" in fault for fault in found.faults)
    # Of one image, nothing vouches but its symbols.
    assert bitstream.Archive(io.BytesIO(DATA), wrong)[3].shape == (28, 28, 1)


def test_files_of_version_1_are_refused():
    for older in (DATA[:8] + b"\1" + DATA[9:], single.MAGIC + b"\1" + bytes(20)):
        with pytest.raises(FormatError, match=r"version 1, .* compress the images again"):
            verify(older, DECODER)


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
        data = single.encode(symbols, STEP, TABLES, IDENTITY, BLANK)
        again = single.decode(data, DECODER)
        assert np.array_equal(again.symbols, symbols)
        assert again.step == STEP
        for damaged in (*flips(data), *(data[:n] for n in range(len(data))), data + b"\0"):
            with pytest.raises((FormatError, ModelMismatchError)):
                single.decode(damaged, DECODER)


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
    newer[8] = 3
    with pytest.raises(VersionError, match="version 3"):
        Reader(io.BytesIO(bytes(newer)))
    flagged = bytearray(DATA)
    flagged[9] |= 64
    end = HEADER_SIZE - 4
    flagged[end : end + 4] = records.pack_crc(bytes(flagged[:end]))
    with pytest.raises(VersionError, match="update"):
        Reader(io.BytesIO(bytes(flagged)))
    image = single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY, BLANK)
    with pytest.raises(VersionError, match="version 3"):
        single.decode(image[:2] + b"\3" + image[3:], DECODER)
    other = Identity(bytes(16), IDENTITY.tables)
    with pytest.raises(ModelMismatchError, match=f"{IDENTITY.short.hex()}.*{other.short.hex()}"):
        single.decode(image, of(other))
    with pytest.raises(ModelMismatchError, match=f"{IDENTITY.model.hex()}.*{bytes(16).hex()}"):
        IDENTITY.require(other)


def test_other_tables_are_noticed_even_if_their_name_is_right():
    """The check of the symbols: the bytes are intact, and still not what was compressed."""
    others = synthetic_tables(components=5, latent_dim=4, seed=1)
    with pytest.raises(FormatError):
        Reader(io.BytesIO(DATA)).chunk(0).symbols(others)
    with pytest.raises(FormatError):
        single.decode(
            single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY, BLANK),
            DECODER._replace(tables=others),
        )


def test_neither_kind_of_file():
    assert bitstream.is_archive(DATA)
    assert not bitstream.is_archive(single.encode(SYMBOLS[0], STEP, TABLES, IDENTITY, BLANK))
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\x89CVAE\n"):
        with pytest.raises(FormatError, match="neither"):
            bitstream.is_archive(data)
