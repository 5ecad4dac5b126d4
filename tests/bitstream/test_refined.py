"""Refined archives and images: nothing is lost in them, and no damage goes unnoticed."""

import dataclasses
import io
import zlib

import numpy as np
import pytest
from archive_samples import archive_of_chunks
from conftest import Counting
from context_samples import archive_of, decoder_of, file_model, part, single_of

from benchmarks.fuzz.samples import tiny_context
from cvae_jax.bitstream import Archive, Budget, Reader, Writer, budget, records, recover, single
from cvae_jax.bitstream.records import ALONE, BASED, RAW, Refinement
from cvae_jax.bitstream.verify import verify_archive
from cvae_jax.errors import CostError, CvaeError, DataError, FormatError, ModelMismatchError

MODEL = file_model()
DECODER = decoder_of(MODEL)
PARTS = [part(7), part(5, 4, 1), part(3, 63, 2), part(4, 0, 3, modes=(BASED,))]
IMAGES = np.concatenate([p.images for p in PARTS])
EXTRAS = [
    {"names": [f"a/{i}.png" for i in range(7)], "labels": range(7)},
    {},
    {"labels": [9] * 3},
    {"names": ["w", "x", "y", "z"]},
]
DATA = archive_of(PARTS, EXTRAS)
SMALL = (4, 5, 1)
SMALL_DECODER = decoder_of(file_model(SMALL))
SINGLES = [single_of(part(1, e, modes=(mode,))) for e in (0, 4) for mode in (BASED, ALONE, RAW)]


def opened(data, **more):
    return Archive(io.BytesIO(data), DECODER, **more)


def test_an_archive_comes_back():
    for data in (DATA, archive_of(PARTS, EXTRAS, embed=True)):
        with opened(data) as archive:
            np.testing.assert_array_equal(archive.read(), IMAGES)
            assert archive.reader.chunk(0).names == EXTRAS[0]["names"]
            assert archive.reader.chunk(2).labels.tolist() == [9] * 3
            assert verify_archive(archive.reader, DECODER) == len(IMAGES)


def test_any_images_in_any_order():
    archive = opened(DATA)
    for which in ([0], [18, 0, 9], [3, 3, 12, 3], list(range(18, -1, -1)), []):
        np.testing.assert_array_equal(archive.read(which), IMAGES[which])
    np.testing.assert_array_equal(archive[-1], IMAGES[-1])
    np.testing.assert_array_equal(archive[5:14], IMAGES[5:14])
    told = []
    archive.read([1, 8, 2, 17], progress=told.append)
    assert sum(told) == 4


def test_one_image_takes_one_chunk():
    file = Counting(DATA)
    archive = Archive(file, DECODER)
    before = file.total
    np.testing.assert_array_equal(archive[8], IMAGES[8])
    assert file.total - before == archive.reader.entries[1].length


def test_a_preview_is_the_base_where_all_have_one():
    archive = opened(DATA)
    levels = PARTS[-1].levels
    np.testing.assert_array_equal(archive.read(range(15, 19), preview=True), levels)
    np.testing.assert_array_equal(archive.read([17, 15], preview=True), levels[[2, 0]])
    # Of a chunk of several modes: of image 3 the base, of 1, which has none, the image.
    np.testing.assert_array_equal(archive.read([3], preview=True)[0], PARTS[0].levels[1])
    np.testing.assert_array_equal(archive.read([1], preview=True)[0], IMAGES[1])


def test_a_preview_costs_no_distributions(monkeypatch):
    def refine(refinements, spend):
        for _ in refinements:
            raise AssertionError("a preview that refines")
        return iter([])

    decoder = DECODER._replace(context=DECODER.context._replace(refine=refine))
    archive = Archive(io.BytesIO(DATA), decoder)
    assert archive.read(range(15, 19), preview=True).shape == (4, *MODEL.image_shape)


def test_a_preview_of_a_single_image_is_its_base_and_is_checked_all_the_same():
    image = single.decode(SINGLES[0], DECODER, preview=True)
    np.testing.assert_array_equal(image.levels, part(1, modes=(BASED,)).levels[0])
    for at in range(len(SINGLES[0])):
        changed = bytearray(SINGLES[0])
        changed[at] ^= 1 << at % 8
        with pytest.raises((FormatError, ModelMismatchError)):
            single.decode(bytes(changed), DECODER, preview=True)


def test_archives_are_joined_as_they_are():
    file = io.BytesIO()
    writer = Writer(file, MODEL.header)
    for _ in range(2):
        writer.copy(Reader(io.BytesIO(archive_of(PARTS))))
    writer.finish()
    again = opened(file.getvalue())
    np.testing.assert_array_equal(again.read(), np.concatenate([IMAGES, IMAGES]))
    old, new = Reader(io.BytesIO(archive_of(PARTS))), again.reader
    for k in range(len(PARTS)):
        one, other = old.chunk(k), new.chunk(len(PARTS) + k)
        assert dataclasses.replace(other, first=one.first, refinement=None).__dict__ == (
            dataclasses.replace(one, refinement=None).__dict__
        )
        assert one.refinement.stream == other.refinement.stream


def test_refined_chunks_beside_others():
    file = io.BytesIO()
    writer = Writer(file, MODEL.header)
    symbols = np.arange(12, dtype=np.int32).reshape(4, 3)
    levels = DECODER.decode_symbols(symbols, 300)
    writer.add(symbols, 300, MODEL.tables, levels)
    writer.add_refined(*PARTS[0][:-1])
    writer.add(symbols, 300, MODEL.tables, levels)
    writer.finish()
    both = np.concatenate([levels, PARTS[0].images, levels])
    np.testing.assert_array_equal(opened(file.getvalue()).read(), both)
    np.testing.assert_array_equal(opened(file.getvalue())[3:6], both[3:6])


def test_what_is_intact_is_recovered():
    entry = Reader(io.BytesIO(DATA)).entries[1]
    damaged = bytearray(DATA)
    damaged[entry.offset + 60] ^= 1
    found = recover(bytes(damaged), DECODER)
    assert found.lost == [(7, 11)]
    kept = np.concatenate([np.arange(7), np.arange(12, 19)])
    np.testing.assert_array_equal(found.numbers, kept)
    np.testing.assert_array_equal(np.concatenate(found.images), IMAGES[kept])
    assert found.names[-1] == "z"
    assert found.faults
    assert recover(DATA, DECODER).faults == []


def test_the_ledger_adds_up():
    reader = Reader(io.BytesIO(archive_of(PARTS, EXTRAS, embed=True)))
    spent = reader.ledger()
    assert sum(spent.values()) == reader.size
    assert spent["refinements"] == sum(len(p.refinement.stream) for p in PARTS)
    for data in SINGLES:
        assert sum(single.ledger(data).values()) == len(data)


@pytest.mark.parametrize("max_error", [0, 4])
@pytest.mark.parametrize("mode", [BASED, ALONE, RAW])
def test_a_single_image_comes_back(mode, max_error):
    chunk = part(1, max_error, modes=(mode,))
    image = single.decode(single_of(chunk), DECODER)
    np.testing.assert_array_equal(image.levels, chunk.images[0])
    np.testing.assert_array_equal(image.symbols, chunk.symbols)
    assert (image.step, image.refinement.max_error) == (600, max_error)
    assert image.refinement.modes.tolist() == [mode]


def damages(data):
    """Every bit flip, and every truncation."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        yield data[:at]
    yield data + b"\0"


def test_every_damage_of_a_single_image_is_noticed():
    for max_error, mode in ((0, BASED), (4, ALONE)):
        data = single_of(part(1, max_error, modes=(mode,), shape=SMALL))
        expected = single.decode(data, SMALL_DECODER).levels
        for damaged in damages(data):
            try:
                image = single.decode(damaged, SMALL_DECODER)
            except CvaeError:
                continue
            np.testing.assert_array_equal(image.levels, expected)


def test_every_damage_of_an_archive_is_noticed():
    chunk = part(2, 4, modes=(BASED, ALONE), shape=SMALL)
    data = archive_of([chunk], shape=SMALL)
    for damaged in damages(data):
        with pytest.raises(CvaeError):
            Archive(io.BytesIO(damaged), SMALL_DECODER).read()
        try:
            found = recover(damaged, SMALL_DECODER)
        except CvaeError:
            continue
        for images in found.images:  # the one chunk, or nothing
            np.testing.assert_array_equal(images, chunk.images[found.numbers])


def test_a_refinement_of_other_bytes_is_noticed_behind_every_check():
    """Its stream changed, with checks of bytes as they should be: the pixels' own check is left."""
    chunk = Reader(io.BytesIO(archive_of([PARTS[0]]))).chunk(0)
    rng = np.random.default_rng(0)
    stream = chunk.refinement.stream
    for _ in range(60):
        changed = bytearray(stream)
        changed[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        refinement = chunk.refinement._replace(stream=bytes(changed))
        data = archive_of_chunks([dataclasses.replace(chunk, refinement=refinement)], MODEL.header)
        with pytest.raises(FormatError, match=r"chunk of images 0 to 6|refinement"):
            opened(data)[3]
        assert recover(data, DECODER).lost == [(0, 6)]


def changed(**fields):
    chunk = Reader(io.BytesIO(archive_of([PARTS[0]]))).chunk(0)
    refinement = chunk.refinement._replace(**fields)
    return archive_of_chunks([dataclasses.replace(chunk, refinement=refinement)], MODEL.header)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_error": 64}, "impossible header"),
        ({"max_error": 1}, "chunk of images|refinement"),
        ({"modes": np.full(7, 3, np.uint8)}, "how 7 images are coded"),
        ({"modes": np.zeros(6, np.uint8)}, "how 7 images are coded"),
        ({"modes": np.zeros(8, np.uint8)}, "longer or shorter"),
        ({"modes": np.full(7, RAW, np.uint8)}, "left over|not those"),
        ({"modes": np.full(7, BASED, np.uint8)}, "left over|not those|stream"),
        ({"stream": b""}, "other pixels"),
        ({"stream": bytes(4)}, "ends in zeros"),
        ({"stream": b"abc"}, "multiple of 4"),
        ({"pixel_crc": 0}, "other pixels"),
    ],
)
def test_contradictions_are_one_line(fields, words):
    data = changed(**fields)
    with pytest.raises(FormatError, match=words) as refused:
        opened(data).read()
    assert str(refused.value).isprintable()
    assert str(refused.value).count("images 0 to 6") == 1


def test_a_preview_between_leaves_the_newest_chunk():
    asked = []

    def refine(refinements, spend):
        asked.append(1)
        return DECODER.context.refine(refinements, spend)

    decoder = DECODER._replace(context=DECODER.context._replace(refine=refine))
    archive = Archive(io.BytesIO(DATA), decoder)
    np.testing.assert_array_equal(archive[8], IMAGES[8])
    archive.read(range(15, 19), preview=True)
    np.testing.assert_array_equal(archive[9], IMAGES[9])
    assert len(asked) == 1


def test_a_refinement_that_is_cut_or_unknown():
    body = records.pack_chunk(Reader(io.BytesIO(archive_of([PARTS[0]]))).chunk(0))
    for end in range(31, len(body)):
        try:
            chunk = records.unpack_chunk(body[:end])
        except FormatError:
            continue
        assert len(chunk.stream) < len(PARTS[0].symbols) * 64
    with pytest.raises(FormatError, match="update"):
        records.unpack_chunk(body[:14] + bytes([body[14] | 32]) + body[15:])


def test_modes_that_inflate_to_more_than_there_are():
    chunk = Reader(io.BytesIO(archive_of([PARTS[0]]))).chunk(0)
    body = records.pack_chunk(chunk)
    packed = zlib.compress(chunk.refinement.modes.tobytes(), 9)
    bomb = zlib.compress(bytes(10**7), 9)
    at = body.index(packed)
    head = body[: at - 8] + len(bomb).to_bytes(4, "little") + body[at - 4 : at]
    with pytest.raises(FormatError, match="modes: longer"):
        records.unpack_chunk(head + bomb + body[at + len(packed) :])


def test_another_context_model_is_a_mismatch():
    other = tiny_context(np.random.default_rng(99), MODEL.image_shape)
    without = dataclasses.replace(MODEL, context=None)
    for model, words in (
        (dataclasses.replace(MODEL, context=other), other.digest[:3].hex()),
        (without, "context model"),
    ):
        decoder = decoder_of(model)
        with pytest.raises(ModelMismatchError, match=words):
            Archive(io.BytesIO(DATA), decoder).read()
        with pytest.raises(ModelMismatchError, match="context model"):
            verify_archive(Reader(io.BytesIO(DATA)), decoder)
        with pytest.raises(ModelMismatchError, match="context model"):
            recover(DATA, decoder)
        for data in SINGLES:
            with pytest.raises(ModelMismatchError, match="context model"):
                single.decode(data, decoder)
        # What has a base can be seen all the same.
        levels = Archive(io.BytesIO(DATA), decoder).read(range(15, 19), preview=True)
        np.testing.assert_array_equal(levels, PARTS[-1].levels)


def flood(count, mode, stream=b"", max_error=0, model=MODEL):
    """A chunk of very many refined images in no bytes."""
    based = count * (mode == BASED)
    first = MODEL.tables.book(600).first[: MODEL.tables.latent_dim].astype("<i4").tobytes()
    levels = DECODER.decode_symbols(np.frombuffer(first, "<i4")[None], 600).tobytes()
    modes = np.full(count, mode, np.uint8)
    refinement = Refinement(max_error, model.context.digest[:16], 0, modes, stream)
    crcs = records.crc32c(first * based), records.crc32c(levels * based)
    return records.Chunk(0, count, 600, *crcs, None, None, b"", refinement)


@pytest.mark.parametrize("max_error", [0, 63])
@pytest.mark.parametrize("mode", [BASED, ALONE, RAW])
def test_a_flood_of_refined_images_is_refused(mode, max_error):
    """Images in no bytes are refused, at a cost that is bounded, as they are no honest file's."""
    chunks = [flood(8192, mode, max_error=max_error)] * 100
    data = archive_of_chunks(chunks, MODEL.header)
    with pytest.raises(FormatError):
        opened(data).read([0, 8192])
    with pytest.raises(CostError, match=r"pixel values|distributions"):
        opened(data).read()


def test_distributions_beyond_the_budget_are_refused(monkeypatch):
    monkeypatch.setattr(budget, "DISTRIBUTIONS", budget.Limit("distributions of pixels", 1000, 0))
    for read in (
        lambda: opened(DATA).read(),
        lambda: opened(DATA)[0],
        lambda: verify_archive(Reader(io.BytesIO(DATA)), DECODER),
        lambda: single.decode(SINGLES[1], DECODER),
    ):
        with pytest.raises(CostError, match="distributions of pixels, and 1000 is the limit"):
            read()
    found = recover(DATA, DECODER)
    assert len(found.images) == 0
    assert any("distributions" in fault for fault in found.faults)
    np.testing.assert_array_equal(opened(DATA, allowed=Budget(1e4)).read(), IMAGES)


@pytest.mark.parametrize("max_error", [0, 63])
@pytest.mark.parametrize("mode", [BASED, ALONE, RAW])
def test_even_chunks_of_one_image_stay_below_the_budget(mode, max_error):
    """Without what is allowed whatever a file's size."""
    data = archive_of([part(1, max_error, seed, modes=(mode,)) for seed in range(20)])
    cost = []
    refine = DECODER.context.refine
    watched = DECODER.context._replace(refine=lambda given, spend: refine(given, cost.append))
    Archive(io.BytesIO(data), DECODER._replace(context=watched)).read()
    assert sum(cost) < budget.DISTRIBUTIONS.per_byte * len(data)
    assert sum(cost) > 20 * 100 * 12 * 10  # each place counts


def test_what_does_not_fit_is_not_written():
    chunk = PARTS[0]
    writer = Writer(io.BytesIO(), MODEL.header)
    for fields, more in (
        (chunk._replace(symbols=chunk.symbols[:, :2]), {}),
        (chunk._replace(levels=chunk.levels[:, :5]), {}),
        (chunk, {"names": ["one"]}),
        (chunk, {"labels": [1]}),
    ):
        with pytest.raises(DataError):
            writer.add_refined(*fields[:-1], **more)
