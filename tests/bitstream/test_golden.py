"""Files of earlier releases stay readable, to the same pixels, and the specification describes
them."""

import io

import numpy as np
import pytest
from conftest import ROOT, row_sums

from cvae_jax import codec, reader
from cvae_jax.bitstream import (
    FileDecoder,
    Header,
    Identity,
    Reader,
    is_archive,
    single,
    verify_archive,
)
from cvae_jax.coding.vectors.tables import Tables
from cvae_jax.exact import by_numpy
from cvae_jax.file_model import FileModel

GOLDEN = ROOT / "tests" / "golden"


def black(symbols, step):
    return np.zeros((len(symbols), 28, 28, 1), np.uint8)


def test_golden_files_of_version_2_decode():
    """Made by the first release of format version 2; not to be made anew."""
    tables = Tables.from_bytes((GOLDEN / "v2_tables.bin").read_bytes())
    expected = np.load(GOLDEN / "v2_symbols.npy")
    data = (GOLDEN / "v2_archive.cvae").read_bytes()
    reader = Reader(io.BytesIO(data))
    assert reader.header.image_shape == (28, 28, 1)
    chunks = [reader.chunk(k) for k in range(len(reader.entries))]
    assert np.array_equal(np.concatenate([c.symbols(tables) for c in chunks]), expected)
    for chunk in chunks:
        chunk.check_pixels(black(range(chunk.count), chunk.step))
    assert chunks[0].names == ["zero.png", "deeper/one.png", "zwei-ü.png"]
    assert chunks[1].labels.tolist() == [7, 4294967295]
    data = (GOLDEN / "v2_single.cvae").read_bytes()
    image = single.decode(data, FileDecoder(reader.header, tables, black))
    assert np.array_equal(image.symbols, expected[0])
    assert image.step == 300


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.cvae")), ids=lambda path: path.stem)
def test_every_golden_file_is_one_that_a_reader_accepts(path):
    """Whole, an embedded model included."""
    carriers = [name for name in ("v2_mnist", "v2_refined") if path.stem.startswith(name)]
    if carriers:
        model = codec.load(GOLDEN / f"{carriers[0]}.cvae").file_model
        decoder = model.file_decoder(model.levels_by(by_numpy.decoder), trusted=True)
    else:
        tables = Tables.from_bytes((GOLDEN / "v2_tables.bin").read_bytes())
        identity = Identity(bytes(range(16)), tables.digest[:16])
        decoder = FileDecoder(Header((28, 28, 1), 3, identity), tables, black)
    data = path.read_bytes()
    if not is_archive(data):
        single.decode(data, decoder)
    else:
        reader = Reader(io.BytesIO(data))
        assert verify_archive(reader, decoder) > 0
        assert not reader.has_model or FileModel.unpack(reader.model(), reader.header.identity)


def test_golden_pixels_of_the_released_model():
    """By JAX, and by NumPy alone: the archive carries its model."""
    expected = np.load(GOLDEN / "v2_mnist.npz")
    path = GOLDEN / "v2_mnist.cvae"
    c = codec.load(path)
    with c.open(path) as opened:
        assert np.array_equal(opened.read(), expected["pixels"])
        assert opened.labels().tolist() == list(range(5))
        assert np.array_equal(opened.reader.chunk(0).symbols(c.tables), expected["symbols"])
        model = FileModel.unpack(opened.reader.model(), opened.reader.header.identity)
    assert model.identity == Identity(
        bytes.fromhex("474bdefb7d3b796235a27d9a3bef5eec"),
        bytes.fromhex("f73f860be52136fcbbc69c2066c69c88"),
    )
    decoder = model.file_decoder(model.levels_by(by_numpy.decoder), trusted=True)
    assert decoder.header == Header((28, 28, 1), 16, model.identity)
    image = single.decode((GOLDEN / "v2_mnist_single.cvae").read_bytes(), decoder)
    assert np.array_equal(image.levels, expected["pixels"][3])
    assert np.array_equal(image.symbols, expected["symbols"][3])


def test_golden_refined_files_decode():
    """Without JAX's help: the archive carries its models."""
    path, expected = GOLDEN / "v2_refined.cvae", np.load(GOLDEN / "v2_refined.npz")
    model = reader.load(path)
    assert model.files.context.packed == (GOLDEN / "v2_refined_context.bin").read_bytes()
    with reader.open(path) as opened:
        assert np.array_equal(opened.read(), expected["images"])
        assert [opened.reader.chunk(k).refinement.max_error for k in (0, 1)] == [0, 4]
    image = reader.decompress((GOLDEN / "v2_refined_single.cvae").read_bytes(), model)
    assert np.array_equal(image[0], expected["single"])


def test_the_worked_example_of_the_specification_is_the_golden_files():
    text = (ROOT / "docs" / "FORMAT.md").read_text()

    def block(name):
        return text.split(f"<!-- {name} -->\n```\n")[1].split("\n```")[0]

    image = (GOLDEN / "v2_single.cvae").read_bytes()
    assert bytes.fromhex(block("single")) == image
    lines = block("archive").splitlines()
    dump = bytes.fromhex("".join(line.split("  ", 1)[1] for line in lines))
    assert dump == (GOLDEN / "v2_archive.cvae").read_bytes()
    assert [int(line[:4], 16) for line in lines] == list(range(0, len(dump), 16))
    tables = Tables.from_bytes((GOLDEN / "v2_tables.bin").read_bytes())
    book = tables.book(300)
    row = book.row(1, 1)
    assert block("sums").split() == [str(s) for s in row_sums(book, row)]
    assert (book.first[row], book.count[row]) == (-5, 12)
    assert np.load(GOLDEN / "v2_symbols.npy")[0].tolist() == [3, 0, -2]
    entries = Reader(io.BytesIO(dump)).entries
    assert [entry.offset for entry in entries] == [0x3C, 0x98]
