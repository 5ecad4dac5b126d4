"""Files of earlier releases stay readable, and the specification describes them."""

import io

import numpy as np
from conftest import ROOT

from cvae_jax.bitstream import Reader, single
from cvae_jax.coding.tables import Tables

GOLDEN = ROOT / "tests" / "golden"


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
