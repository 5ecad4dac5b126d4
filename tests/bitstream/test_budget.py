"""Files whose checks are right, and that would cost far more than they are worth."""

import dataclasses
import io
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from archive_samples import (
    DATA,
    HEADER,
    IDENTITY,
    STEP,
    TABLES,
    archive_of_chunks,
    blank,
    empty_chunk,
    part,
)
from conftest import (
    RELEASED,
    ROOT,
    Counting,
    decoder_of_zeros,
    synthetic_tables,
    typical_symbols,
)

from benchmarks.memory import Peak
from cvae_jax import bitstream, codec
from cvae_jax.bitstream import (
    Archive,
    Budget,
    Cost,
    FileDecoder,
    Header,
    Reader,
    budget,
    records,
)
from cvae_jax.bitstream.names import MAX_PARTS, check_distinct, check_names
from cvae_jax.coding import quantize
from cvae_jax.coding.integers import packing
from cvae_jax.coding.vectors.tables import Tables
from cvae_jax.errors import CostError, FormatError
from cvae_jax.exact import by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.integers import IntegerDecoder, units_check
from cvae_jax.file_model import FileModel

SECONDS, MEGABYTES = 2.0, 64.0  # that refusing a small file may take


def decoder_of(tables, header):
    return FileDecoder(header, tables, lambda s, step: blank(s, step, header.image_shape))


@pytest.fixture
def cheaply():
    """Everything in the test is done in little time and memory."""
    peak, started = Peak(), time.process_time()
    yield
    assert time.process_time() - started < SECONDS
    assert peak.megabytes() < MEGABYTES


def test_a_model_that_makes_a_huge_image_of_nothing(cheaply):
    tables = synthetic_tables(1, 1)
    architecture = Architecture((8192, 8192, 1), 1, (1,) * 8)
    model = FileModel(tables, decoder_of_zeros(architecture, units_check=units_check(tables.unit)))
    data = archive_of_chunks([empty_chunk(1, tables, pixels=1)], model.header, model.pack())
    assert len(data) < 8000
    reader = Reader(io.BytesIO(data))
    own = codec.from_embedded(reader.model(), reader.header.identity)
    with pytest.raises(FormatError, match="67108864 pixel values"):
        own.decompress(data)
    with pytest.raises(FormatError, match="67108864 pixel values"):
        bitstream.recover(data, own.file_decoder)
    with pytest.raises(FormatError, match="67108864 pixel values"):
        bitstream.verify_archive(reader, own.file_decoder)
    image = bitstream.single.encode(
        np.zeros(1, np.int32), STEP, tables, model.identity, np.zeros((1, 1, 1), np.uint8)
    )
    with pytest.raises(FormatError, match="67108864 pixel values"):
        own.decompress(image)


@pytest.mark.parametrize(
    "sizes", [(1, (1,) * 8), (1, (16,) * 8), (0, (16,) * 8, 4, 8)], ids=["1", "16", "map"]
)
def test_a_model_of_no_inputs_and_as_many_layers_as_there_can_be(sizes):
    """Stages on a single pixel, which a compiler once took minutes for."""
    architecture = Architecture((1, 1, 1), *sizes)
    tables = synthetic_tables(1, architecture.latents)
    decoder = decoder_of_zeros(architecture, units_check=units_check(tables.unit))
    model = FileModel(tables, decoder)
    data = archive_of_chunks([empty_chunk(2000, tables, pixels=1)], model.header, model.pack())
    started = time.process_time()
    reader = Reader(io.BytesIO(data))
    compiled = codec.from_embedded(reader.model(), reader.header.identity).file_decoder
    interpreted = model.file_decoder(model.levels_by(by_numpy.decoder), trusted=False)
    symbols = np.zeros((2000, architecture.latents), np.int32)
    levels = interpreted.decode_symbols(symbols, STEP)
    assert levels.shape == (2000, 1, 1, 1)
    assert np.array_equal(compiled.decode_symbols(symbols, STEP), levels)
    assert time.process_time() - started < 30


def test_a_map_that_no_model_has_is_refused_as_a_damaged_file():
    architecture = Architecture((1, 1, 1), 0, (1,), 3)
    tables = synthetic_tables(1, 3)
    model = FileModel(tables, decoder_of_zeros(architecture, units_check=units_check(tables.unit)))
    with pytest.raises(FormatError, match="that no checkpoint has: latent_channels must be a mult"):
        codec.from_embedded(model.pack(), model.identity)


@pytest.mark.parametrize(
    ("size", "sizes", "words"),
    [
        (2048, (1, (1, 8192)), "multiply-adds"),
        (1024, (1, (40,)), "bytes of memory"),
        (1024, (0, (1, 512), 1, 8), "multiply-adds"),
        (1024, (0, (1,), 200), "bytes of memory"),
    ],
)
def test_a_model_that_works_hard_for_an_image(cheaply, size, sizes, words):
    architecture = Architecture((size, size, 1), *sizes)
    cost = Cost(architecture.multiply_adds(), architecture.memory())
    header = Header((size, size, 1), 4, IDENTITY)
    decoder = decoder_of(TABLES, header)._replace(cost=cost)
    data = archive_of_chunks([empty_chunk(1)], header)
    with pytest.raises(FormatError, match=words):
        Archive(io.BytesIO(data), decoder).read()


def test_a_model_of_many_weights_in_no_bytes(cheaply):
    """All of them the same: a few bytes that would take gigabytes."""
    decoder = decoder_of_zeros(Architecture((8, 8, 1), 1, (8, 8))).to_bytes()
    filters = packing.pack(np.array([8, 8]))
    assert filters in decoder
    for many in ([8192, 8192], [1024, 1024]):
        large = decoder.replace(filters, packing.pack(np.array(many)))
        with pytest.raises(FormatError, match="packed integers"):
            IntegerDecoder.from_bytes(large)


def test_a_model_of_many_numbers(monkeypatch):
    """Its bytes pay for them, but not whoever reads the file; those of a checkpoint may be more."""
    released = codec.load(RELEASED)
    blob = released.file_model.pack(with_context=False)
    most = 106_309 + 8_748  # of decoder and tables
    monkeypatch.setattr(budget, "NUMBERS", budget.NUMBERS._replace(always=most))
    assert FileModel.unpack(blob).identity == released.identity
    monkeypatch.setattr(budget, "NUMBERS", budget.NUMBERS._replace(always=most - 1))
    with pytest.raises(FormatError, match=f"take {most} numbers of its model"):
        FileModel.unpack(blob)
    assert FileModel.unpack(blob, allowed=Budget(2)).identity == released.identity
    assert codec.load(RELEASED).file_model.identity == released.identity


def test_a_byte_pays_for_a_few_numbers(cheaply):
    rng = np.random.default_rng(0)
    many = packing.pack(rng.integers(0, 1 << 16, 50_000)) + packing.pack(np.zeros(1))
    numbers = packing.Packed(many, 0)
    numbers.take(50_000)
    with pytest.raises(FormatError, match="packed integers"):
        numbers.take(packing.ALWAYS + 8 * len(many) - 50_000 + 1)


def test_a_larger_budget_lifts_the_limits():
    data = archive_of_chunks([empty_chunk(8000)] * 4)
    decoder = decoder_of(TABLES, HEADER)
    with pytest.raises(FormatError, match="pixel values"):
        Archive(io.BytesIO(data), decoder).read()
    assert len(Archive(io.BytesIO(data), decoder, allowed=Budget(10)).read()) == 32000
    assert len(bitstream.recover(data, decoder, Budget(10)).numbers) == 32000


def test_a_few_bytes_that_claim_a_flood_of_images(cheaply):
    data = archive_of_chunks([empty_chunk(8192)] * 60)
    assert len(data) < 9300
    decoder = decoder_of(TABLES, HEADER)
    with Archive(io.BytesIO(data), decoder) as opened:
        assert len(opened) == 491_520
        with pytest.raises(FormatError, match="read fewer images at once"):
            opened.read()
        assert opened[-3:].shape == (3, 28, 28, 1)
    with pytest.raises(FormatError, match="pixel values"):
        bitstream.recover(data, decoder)


@pytest.mark.parametrize(
    ("count", "words"), [(8192, "symbols"), (2000, "lookups"), (60, "lookups")]
)
def test_many_dimensions_times_many_steps(count, words):
    tables = synthetic_tables(256, 2048)
    header = Header((1, 1, 1), 2048, IDENTITY)
    chunks = [empty_chunk(count, tables, step, pixels=1) for step in range(300, 2400, 300)]
    data = archive_of_chunks([*chunks, *chunks], header)
    decoder = decoder_of(tables, header)
    peak, started = Peak(), time.process_time()
    with pytest.raises(FormatError, match=words):
        Archive(io.BytesIO(data), decoder).read()
    found = bitstream.recover(data, decoder)
    assert any(words in fault for fault in found.faults)
    assert time.process_time() - started < 2 * SECONDS  # two readings
    tables_size = len(tables.to_bytes()) / 1e6
    assert peak.megabytes() < MEGABYTES + 10 * tables_size


def test_names_that_inflate_without_end(cheaply):
    names = zlib.compress(b"\0".join([b"n" * 1000] * 8192), 9)
    chunk = empty_chunk(8192, names=names)
    data = archive_of_chunks([chunk] * 60)
    found = bitstream.salvage(data)  # keeps them all, as they are stored
    assert len(found.chunks) == 60
    reader = Reader(io.BytesIO(data))
    assert reader.model() is None
    for ask in (lambda: reader.names, lambda: reader.names_of_chunks):
        with pytest.raises(FormatError, match="bytes of names"):
            ask()


@pytest.mark.parametrize("depth", [31, 508])
def test_names_of_many_folders_inside_each_other(cheaply, depth):
    """Linear in the names' length, whatever their number of folders."""
    names = [f"{i}/{'a/' * (depth - 1)}x" for i in range(7000)]
    if depth < MAX_PARTS:
        check_names(names)
    else:
        with pytest.raises(FormatError, match="more than 32 parts"):
            check_names(names)
    check_distinct(names)
    with pytest.raises(FormatError, match="also a folder"):
        check_distinct([*names, names[5].rpartition("/")[0].upper(), "6 other"])


def test_labels_that_inflate_without_end(cheaply):
    chunk = empty_chunk(8192, labels=zlib.compress(bytes(4 * 8192), 9))
    reader = Reader(io.BytesIO(archive_of_chunks([chunk] * 2000)))
    with pytest.raises(FormatError, match="bytes of names or labels"):
        reader.labels  # noqa: B018


def test_reading_everything_vouches_for_names_and_labels_too():
    for packed, words in (({"packed_labels": b"x"}, "labels"), ({"packed_names": b"x"}, "names")):
        data = archive_of_chunks([dataclasses.replace(empty_chunk(3), **packed)])
        with Archive(io.BytesIO(data), decoder_of(TABLES, HEADER)) as opened:
            assert opened[1].shape == (28, 28, 1)
            with pytest.raises(FormatError, match=words):
                opened.read()


def test_short_names_in_many_chunks_are_kept_packed(cheaply):
    chunk = empty_chunk(8192, names=zlib.compress(b"\0".join([b"n"] * 8192), 9))
    data = archive_of_chunks([chunk] * 2000)
    bitstream.salvage(data)
    with pytest.raises(FormatError, match="bytes of names"):
        Reader(io.BytesIO(data)).names  # noqa: B018


def test_eight_steps_of_a_large_model_take_the_memory_of_one():
    tables = Tables.from_bytes((ROOT / "checkpoints/mnist-hq/tables.bin").read_bytes())
    header = Header((28, 28, 1), tables.latent_dim, IDENTITY)
    file = io.BytesIO()
    writer = bitstream.Writer(file, header)
    for quality in range(20, 100, 10):
        step = quantize.step(quality)
        symbols = typical_symbols(tables, step, 150)
        writer.add(symbols, step, tables, blank(symbols))
    writer.finish()
    peak = Peak()
    with Archive(file, decoder_of(tables, header)) as opened:
        assert opened.read().shape == (1200, 28, 28, 1)
        opened[::100]
    assert peak.megabytes() < MEGABYTES


def test_ordinary_archives_are_far_from_the_limits():
    """A file of ten images, and one of thousands, cost a hundredth and a tenth of what they may."""
    tables = Tables.from_bytes((RELEASED / "tables.bin").read_bytes())
    header = Header((28, 28, 1), tables.latent_dim, IDENTITY)
    for n, share in ((10, 100), (4096, 5)):
        file = io.BytesIO()
        writer = bitstream.Writer(file, header)
        step = quantize.step(0)
        symbols, names = typical_symbols(tables, step, n), [f"{i}.png" for i in range(n)]
        writer.add(symbols, step, tables, blank(symbols), names)
        writer.finish()
        allowed = Budget(1 / share)
        with Archive(file, decoder_of(tables, header), allowed=allowed) as opened:
            assert len(opened.read()) == len(opened.names()) == n


def test_limits_are_of_the_whole_of_a_reading(monkeypatch):
    """Each chunk is cheap enough; all of them are not."""
    data = archive_of_chunks([empty_chunk(4000)] * 3)
    decoder = decoder_of(TABLES, HEADER)
    work = empty_chunk(4000).work(TABLES)
    limit = budget.LOOKUPS._replace(always=int(2.5 * work), per_byte=0)
    monkeypatch.setattr(budget, "LOOKUPS", limit)
    with Archive(io.BytesIO(data), decoder) as opened:
        assert opened[:8000].shape == (8000, 28, 28, 1)
        assert opened[11999].shape == (28, 28, 1)
        with pytest.raises(FormatError, match="lookups"):
            opened.read()
    with pytest.raises(FormatError, match="lookups"):
        bitstream.verify_archive(Reader(io.BytesIO(data)), decoder)


def test_nothing_is_read_twice_for_its_several_contents(monkeypatch):
    file, inflated = Counting(DATA), []
    inflate = records._inflate
    monkeypatch.setattr(records, "_inflate", lambda *a: inflated.append(a[2]) or inflate(*a))
    with Archive(file, decoder_of(TABLES, HEADER)) as opened:
        opened.names(), opened.labels(), opened.read(), opened.read(), opened.names()
        opened.reader.ledger()
    assert file.total < len(DATA) + 200  # the header is read thrice, to compare
    assert sorted(inflated) == ["labels"] * 2 + ["names"]


def test_kept_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr(bitstream.container, "KEPT", 3000)
    reader = Reader(io.BytesIO(DATA))
    for k in (0, 1, 2, 0, 2):
        assert reader.chunk(k).first == int(reader.starts[k])
    assert reader._kept_size == sum(reader.entries[k].length for k in reader._kept)
    assert len(part(3)["symbols"]) == 3


def test_the_embedded_model_of_a_real_file_is_within_its_budget():
    released = codec.load(RELEASED)
    images = np.zeros((40, 28, 28, 1), np.uint8)
    data = released.compress(images, embed_model=True)
    reader = Reader(io.BytesIO(data))
    own = codec.from_embedded(reader.model(), reader.header.identity)
    assert own.file_decoder.cost.multiply_adds == 5_694_976
    assert own.decompress(data).shape == images.shape
    assert own.identity == released.identity


def test_a_meter_counts_what_every_thread_spends():
    class Slow(int):
        """Takes its time to be added."""

        def __radd__(self, other):
            time.sleep(0.01)
            return int(self) + other

    meter = budget.Meter(budget.LOOKUPS, Budget(), 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(meter.spend, [Slow(budget.LOOKUPS.always // 8)] * 8))
    with pytest.raises(CostError):
        meter.spend(1)
