"""Symbols to bytes and back: exact, near the ideal, and by the arithmetic of docs/FORMAT.md."""

import dataclasses
import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from conftest import row_sums, synthetic_tables, typical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st

from cvae_jax.coding import quantize
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.vectors import entropy
from cvae_jax.coding.vectors import tables as tables_module
from cvae_jax.coding.vectors.tables import MAX_ROW, Tables
from cvae_jax.errors import FormatError

TABLES = synthetic_tables(components=5, latent_dim=3)
STEPS = st.sampled_from([60, 333, 4096, 65535])
INT32 = st.integers(-(2**31), 2**31 - 1)
ROWS = st.lists(
    st.lists(st.one_of(st.integers(-30, 30), INT32), min_size=3, max_size=3), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, step=STEPS)
def test_any_symbols_come_back(rows, step):
    symbols = np.array(rows, np.int32).reshape(-1, 3)
    book = TABLES.book(step)
    back = entropy.decode(entropy.encode(symbols, book), len(symbols), book)
    assert back.dtype == np.int32
    assert np.array_equal(back, symbols)
    for one in symbols:
        assert np.array_equal(entropy.decode_one(entropy.encode_one(one, book), book), one)


@pytest.mark.parametrize("components", [1, 40])
def test_streams_are_as_short_as_the_tables_allow(components):
    tables = synthetic_tables(components, latent_dim=16)
    book = tables.book(400)
    symbols = typical_symbols(tables, 400, 5000)
    ideal = book.bits(symbols).sum() / 8
    assert ideal <= len(entropy.encode(symbols, book)) <= 1.001 * ideal + 8
    for one in symbols[:50]:
        bits = book.bits(one[None])[0]
        assert bits / 8 - 1 < len(entropy.encode_one(one, book)) <= bits / 8 + 2


@pytest.mark.parametrize("step", [60, 4096, 65535])
def test_every_symbol_has_a_frequency(step):
    book = TABLES.book(step)
    for row in range(TABLES.components * TABLES.latent_dim):
        sums = row_sums(book, row).astype(np.int64)
        assert (sums[0], sums[-1]) == (0, TOTAL)
        assert np.diff(sums).min() >= 1
        assert len(sums) == book.count[row] + 2


def reference_sums(tables, component, dimension, step):
    """A row of frequencies as docs/FORMAT.md describes it, in Python's integers."""
    mean, width = int(tables.means[component, dimension]), int(tables.widths[component, dimension])
    shape = [int(s) for s in tables.curve]
    reach = -(-128 * width // 256)
    first = (mean - reach + step // 2) // step
    last = (mean + reach + step // 2) // step

    def curve(s):
        cell, within = divmod((s * step - step // 2 - mean) * 256, width)
        if cell < -128:
            return 0
        if cell >= 128:
            return shape[256]
        return shape[cell + 128] + (shape[cell + 129] - shape[cell + 128]) * within // width

    n = last - first + 1
    raw = [curve(s) for s in range(first, last + 2)] + [shape[256]]
    return first, [r * (2**24 - n - 1) // shape[256] + i for i, r in enumerate(raw)]


def test_frequencies_are_those_of_the_specification():
    for step in (60, 777, 5000):
        book = TABLES.book(step)
        for component in range(TABLES.components):
            for dimension in range(TABLES.latent_dim):
                row = book.row(component, dimension)
                first, sums = reference_sums(TABLES, component, dimension, step)
                assert book.first[row] == first
                assert row_sums(book, row).tolist() == sums


def reference_decode(stream, n, tables, step):
    """A second decoder, as docs/FORMAT.md describes it: streaming ANS in a few lines."""
    words = np.frombuffer(stream, "<u4").tolist()
    state = 0
    while state < 2**32 and words:
        state = state << 32 | words.pop()

    def take(sums):
        nonlocal state
        slot = state % 2**24
        index = max(i for i in range(len(sums) - 1) if sums[i] <= slot)
        state = (state >> 24) * (sums[index + 1] - sums[index]) + slot - sums[index]
        if state < 2**32 and words:
            state = state << 32 | words.pop()
        return index

    weights = [0, *np.cumsum(tables.weights, dtype=np.int64).tolist()]
    component = [take(weights) for _ in range(n)]
    order = sorted(range(n), key=lambda i: (component[i], i))
    symbols, escaped = np.zeros((n, tables.latent_dim), np.int64), []
    for d in range(tables.latent_dim):
        for i in order:
            first, sums = reference_sums(tables, component[i], d, step)
            index = take(sums)
            symbols[i, d] = first + index
            if index == len(sums) - 2:
                escaped.append((i, d, first, index))
    for i, d, first, count in escaped:
        value = shift = 0
        while True:
            byte = take([b << 16 for b in range(257)])
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        symbols[i, d] = first - 1 - value // 2 if value % 2 else first + count + value // 2
    assert (state, words) == (0, [])
    return symbols


def test_a_second_decoder_reads_the_streams():
    """The library's coder does exactly the specified integer arithmetic."""
    symbols = typical_symbols(TABLES, 300, 80)
    symbols[3, 1], symbols[70, 0], symbols[70, 2] = 2**31 - 1, -(2**31), 5000
    stream = entropy.encode(symbols, TABLES.book(300))
    assert np.array_equal(reference_decode(stream, 80, TABLES, 300), symbols)
    with pytest.raises(FormatError, match="ends in zeros"):
        entropy.decode(stream + bytes(4), 80, TABLES.book(300))


def test_extreme_frequencies_are_exact():
    """One symbol of nearly all the probability, hundreds of the least there is."""
    curve = TABLES.curve.copy()
    curve[129:] += 2**29
    tables = dataclasses.replace(TABLES, curve=curve)
    symbols = typical_symbols(tables, 60, 40)
    stream = entropy.encode(symbols, tables.book(60))
    assert np.array_equal(reference_decode(stream, 40, tables, 60), symbols)


def wide_tables(width, components=256, latent_dim=160, mean=0):
    tables = synthetic_tables(components, latent_dim)
    return dataclasses.replace(
        tables,
        widths=np.full_like(tables.widths, width),
        means=np.full_like(tables.means, mean),
    )


@pytest.mark.parametrize("mean", [-(1 << 24), 0, 1 << 24])
@pytest.mark.parametrize("width", [1, 1 << 24])
def test_every_quality_of_every_valid_table_works(width, mean):
    """The narrowest and the widest rows that there can be, as far out as they can be."""
    tables = wide_tables(width, 1, 1, mean)
    tables.validate()
    for quality in range(101):
        step = quantize.step(quality)
        book = tables.book(step)
        assert book.count.max() < MAX_ROW / 5
        count = book.count[:1]
        ends = book.cumulative(np.zeros(2, int), np.array([0, count[0] + 1]))
        assert ends.tolist() == [0, TOTAL]
        symbols = np.rint([[mean / step], [(mean + width / 16) / step]]).astype(np.int32)
        assert np.array_equal(entropy.decode(entropy.encode(symbols, book), 2, book), symbols)
    assert wide_tables(1 << 24, 1, 1).book(17).count.max() < MAX_ROW  # as the constant says


def test_fine_steps_of_a_large_wide_model_take_little_memory():
    """A billion entries, were all of its rows made."""
    tables = wide_tables(1 << 22)
    tracemalloc.start()
    for step in (155, 87):  # qualities 85 and 100
        book = tables.book(step)
        symbols = typical_symbols(tables, step, 6)
        assert np.array_equal(entropy.decode(entropy.encode(symbols, book), 6, book), symbols)
        one = symbols[0]
        assert np.array_equal(entropy.decode_one(entropy.encode_one(one, book), book), one)
        assert (book.bits(symbols) > 8).all()
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


def test_rows_are_looked_up_alike_made_or_not(monkeypatch):
    symbols = typical_symbols(TABLES, 60, 300)
    symbols[3, 1], symbols[70, 0] = 2**31 - 1, -(2**31)
    stream = entropy.encode(symbols, TABLES.book(60))
    for limit, kept in ((1 << 16, 1 << 20), (1 << 16, 0), (400, 1 << 20), (0, 0)):
        monkeypatch.setattr(tables_module, "MAX_MADE", limit)
        monkeypatch.setattr(tables_module, "ENTRIES", kept)
        book = tables_module.Book(TABLES, 60)
        for _ in range(2):
            assert np.array_equal(entropy.decode(stream, 300, book), symbols)
        assert book._held <= kept
        assert bool(book._models) == bool(limit and kept)


@given(step=STEPS, row=st.integers(0, 14), slot=st.integers(0, TOTAL - 1))
def test_bisection_finds_what_the_sums_say(step, row, slot):
    book = TABLES.book(step)
    sums = row_sums(book, row)
    index = int(np.searchsorted(sums, slot, side="right")) - 1
    assert book.locate(row, slot) == (index, sums[index], sums[index + 1])


def test_only_one_book_is_kept():
    first = weakref.ref(TABLES.book(300))
    assert TABLES.book(300) is first()
    TABLES.book(301)
    gc.collect()
    assert first() is None


def test_prices_are_those_of_the_sums():
    book = TABLES.book(300)
    for row in range(15):
        index = np.arange(book.count[row] + 1)
        frequencies = np.diff(row_sums(book, row))
        assert book.prices(np.array(row), index) == pytest.approx(24 - np.log2(frequencies))


def test_a_stream_of_nothing_but_escapes_ends_early():
    """Each escape takes 3 bytes: what claims more is refused before they are looked at."""
    book = TABLES.book(300)
    symbols = np.full((50, 3), 2**20, np.int32)
    stream = entropy.encode(symbols, book)
    assert len(stream) > 2 * symbols.size
    assert np.array_equal(entropy.decode(stream, 50, book), symbols)
    with pytest.raises(FormatError):
        entropy.decode(stream[: 4 * 20], 50, book)


def test_damaged_streams_are_refused_or_give_symbols():
    """Nothing but FormatError, whatever the bytes: the container's checks find the rest."""
    book = TABLES.book(300)
    rng = np.random.default_rng(0)
    refused = 0
    for n in range(200):
        data = rng.bytes(4 * (n % 7))
        for decode in (entropy.decode_one, lambda data, book: entropy.decode(data, 5, book)):
            try:
                assert decode(data, book).dtype == np.int32
            except FormatError:
                refused += 1
    assert refused > 300
    with pytest.raises(FormatError, match="multiple of 4"):
        entropy.decode(b"abc", 1, book)
    with pytest.raises(FormatError, match="payload of 1000 bytes"):
        entropy.decode_one(bytes(1000), book)


def test_tables_survive_their_bytes():
    again = Tables.from_bytes(TABLES.to_bytes())
    assert again.digest == TABLES.digest
    assert again.slope == TABLES.slope
    assert np.array_equal(again.means, TABLES.means)


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("weights", lambda a: a + 1, "weights"),
        ("weights", lambda a: a * np.array([0, 1, 1, 1, 1], np.uint32), "weight is zero"),
        ("widths", lambda a: a * 0, "width"),
        ("means", lambda a: a + 2**25, "mean"),
        ("curve", lambda a: a[::-1], "curve"),
        ("curve", lambda a: a * 8, "total"),
        ("unit", lambda a: a * np.nan, "unit"),
    ],
)
def test_impossible_tables_are_refused(field, change, words):
    bad = dataclasses.replace(TABLES, **{field: change(getattr(TABLES, field))})
    with pytest.raises(FormatError, match=words):
        Tables.from_bytes(bad.to_bytes())


def test_tables_that_lie_about_their_size_are_refused():
    data = TABLES.to_bytes()
    for wrong in (data[:-1], data + b"\0", data[:10], b"", b"XXXX" + data[4:]):
        with pytest.raises(FormatError):
            Tables.from_bytes(wrong)
    huge = data[:6] + b"\xff\xff" + b"\xff\xff\xff\xff" + data[12:]
    with pytest.raises(FormatError, match="4294967295 dimensions"):
        Tables.from_bytes(huge)


def test_a_step_that_cannot_be_is_refused():
    for step in (0, 65536):
        with pytest.raises(FormatError, match="step"):
            TABLES.book(step)
    wide = dataclasses.replace(TABLES, widths=TABLES.widths * 0 + 2**24)
    with pytest.raises(FormatError, match="too fine"):
        wide.book(1)
