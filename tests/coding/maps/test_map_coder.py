"""Latents of maps to bytes and back: exact, near the ideal, and as docs/FORMAT.md has it."""

import dataclasses

import numpy as np
import pytest
from coding.maps.prior_samples import random_prior, typical_latents
from conftest import failure
from hypothesis import given, settings
from hypothesis import strategies as st

from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.prior import MapPrior, log_of_step
from cvae_jax.errors import FormatError

PRIOR = random_prior((3, 4, 4))
STEPS = st.sampled_from([60, 333, 900, 4096, 65535])
SYMBOL = st.one_of(st.integers(-30, 30), st.integers(-(2**31), 2**31 - 1))
MAPS = st.lists(st.lists(SYMBOL, min_size=48, max_size=48), max_size=5)


@settings(max_examples=40, deadline=None)
@given(maps=MAPS, step=STEPS)
def test_any_symbols_come_back(maps, step):
    symbols = np.array(maps, np.int32).reshape(-1, 48)
    stream = coder.encode(PRIOR, symbols, step)
    back = coder.decode(PRIOR, stream, len(symbols), step)
    assert back.dtype == np.int32
    assert np.array_equal(back, symbols)
    for one in symbols[:2]:
        payload = coder.encode_one(PRIOR, one, step)
        assert np.array_equal(coder.decode_one(PRIOR, payload, step), one)


@pytest.mark.parametrize("step", [300, 900])
def test_streams_are_as_short_as_the_prior_allows(step):
    prior = random_prior(grid=(4, 4, 8), groups=4)
    symbols = coder.quantize(prior, typical_latents(prior, 300), step)
    ideal = coder.bits(prior, symbols, step).sum() / 8
    assert ideal <= len(coder.encode(prior, symbols, step)) <= 1.001 * ideal + 8
    for one in symbols[:10]:
        bits = coder.bits(prior, one[None], step)[0]
        assert bits / 8 - 1 < len(coder.encode_one(prior, one, step)) <= bits / 8 + 2


def test_a_symbol_is_the_nearest_or_the_next_towards_the_mean_whichever_costs_less():
    z = typical_latents(PRIOR, 50)
    for step in (90, 700):
        symbols = coder.quantize(PRIOR, z, step)
        means = coder.units(PRIOR, symbols, step) - symbols.astype(np.int64) * step
        apart = (z / PRIOR.unit_size - means) / step
        rows, book = coder.rows(PRIOR, symbols, step), PRIOR.book(step)

        def cost(chosen, rows=rows, book=book, apart=apart):
            bits = book.prices(rows, book.indices(rows, chosen))
            return bits + coder.ERROR_BITS * (apart - chosen) ** 2

        nearest = np.rint(apart).astype(np.int32)
        following = nearest - np.sign(nearest)
        cheaper = cost(following) < cost(nearest)
        assert np.array_equal(symbols, np.where(cheaper, following, nearest))
        assert 0.001 < cheaper.mean() < 0.5
        assert np.abs(apart - symbols).max() < 1


def test_an_image_does_not_depend_on_those_beside_it():
    z = typical_latents(PRIOR, 20)
    symbols = coder.quantize(PRIOR, z, 500)
    assert np.array_equal(symbols[7:9], coder.quantize(PRIOR, z[7:9], 500))
    assert np.array_equal(
        coder.units(PRIOR, symbols, 500)[3:4], coder.units(PRIOR, symbols[3:4], 500)
    )


def test_a_place_depends_only_on_what_comes_before_it():
    h, w, c = PRIOR.grid
    z = typical_latents(PRIOR, 4).reshape(4, h, w, c)
    before = coder.quantize(PRIOR, z.reshape(4, -1), 400).reshape(z.shape)
    z[:, 1, 1, 2:] += 7
    after = coder.quantize(PRIOR, z.reshape(4, -1), 400).reshape(z.shape)
    changed = (before != after).any(0).reshape(-1, c)
    at = w + 1
    assert not changed[:at].any()
    assert not changed[at, :2].any()
    assert changed[at, 2:].all()
    assert changed[at + 1 :].any()


# A second implementation, of plain integers.


def plain_row(prior: MapPrior, width: int, step: int) -> tuple[int, list[int]]:
    """The first symbol of a row, and all its cumulative sums."""
    octave = (1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878)
    size = octave[width % 8] * 2 ** (width // 8) // 16
    curve = prior.curve.tolist()
    reach = -(-128 * size // 256)
    first, last = (-reach + step // 2) // step, (reach + step // 2) // step
    n = last - first + 1
    sums = []
    for i in range(n + 1):
        cell, within = divmod(((first + i) * step - step // 2) * 256, size)
        below = 0 if cell < -128 else curve[256]
        if -128 <= cell < 128:
            low, high = curve[cell + 128], curve[cell + 129]
            below = low + (high - low) * within // size
        sums.append(below * (2**24 - n - 1) // curve[256] + i)
    return first, [*sums, 2**24]


def plain_layer(layer, inputs: list[int]) -> list[int]:
    sums = layer.weights.astype(object) @ np.array(inputs, object) + layer.bias.astype(object)
    shifted = [int(s) >> int(k) for s, k in zip(sums, layer.shift, strict=True)]
    return [min(max(s, 0), 2**layer.bits - 1) for s in shifted] if layer.bits else shifted


def plain_decode(prior: MapPrior, stream: bytes, step: int) -> tuple[list[int], list[int]]:
    """Symbols and units of the single map of a stream without escapes."""
    words = np.frombuffer(stream, "<u4").tolist()
    state = 0

    def refilled(state):
        return state << 32 | words.pop() if state < 2**32 and words else state

    state = refilled(refilled(state))
    (h, w, c), g = prior.grid, prior.grid[2] // len(prior.groups)
    seen: dict[tuple[int, int, int], int] = {}
    symbols, units = {}, {}
    log = sum(step**16 >= 2**k for k in range(1, 257))  # 16 log2, rounded down

    def context(y, x):
        around = [
            seen.get((y + i, x + j, k), 0)
            for i in (-2, -1, 0)
            for j in range(-2, 3)
            if i < 0 or j < 0
            for k in range(c)
        ]
        return plain_layer(prior.context, [*around, log])

    for wave in range(w + 3 * (h - 1)):
        places = [(y, wave - 3 * y) for y in range(h) if 0 <= wave - 3 * y < w]
        known = {place: context(*place) for place in places}
        for k, group in enumerate(prior.groups):
            turn = {}
            for y, x in places:
                earlier = [seen[y, x, j] for j in range(k * g)]
                first = plain_layer(group.first, [*known[y, x], *earlier])
                out = plain_layer(group.output, plain_layer(group.second, first))
                for j in range(g):
                    turn[y, x, k * g + j] = 16 * out[j], min(max(out[g + j], 0), 103)
            for at, (mean, width) in sorted(turn.items(), key=lambda item: item[1][1]):
                lowest, sums = plain_row(prior, width, step)
                slot = state % 2**24
                i = max(n for n, below in enumerate(sums) if below <= slot)
                assert i < len(sums) - 2, "an escape"
                state = refilled((state >> 24) * (sums[i + 1] - sums[i]) + slot - sums[i])
                symbols[at] = lowest + i
                units[at] = mean + symbols[at] * step
                limit, half = int(prior.limits[at[2]]), (1 << prior.input_shift) // 2
                seen[at] = min(max((units[at] + half) >> prior.input_shift, -limit), limit)
    assert state == 0
    assert not words
    return [symbols[at] for at in sorted(symbols)], [units[at] for at in sorted(units)]


@pytest.mark.parametrize("step", [97, 598, 4096])
def test_a_plain_reader_finds_the_same_latents(step):
    for z in typical_latents(PRIOR, 3):
        symbols = coder.quantize(PRIOR, z[None], step)
        found, units = plain_decode(PRIOR, coder.encode(PRIOR, symbols, step), step)
        assert found == symbols[0].tolist()
        assert units == coder.units(PRIOR, symbols, step)[0].tolist()


def test_the_logarithm_of_a_step_is_exact():
    for step in [1, 2, 3, 87, 598, 4095, 4096, 65535]:
        assert 2 ** log_of_step(step) <= step**16 < 2 ** (log_of_step(step) + 1)


# Bytes


def test_a_prior_survives_its_bytes():
    data = PRIOR.to_bytes()
    back = MapPrior.from_bytes(data)
    assert back.to_bytes() == data
    assert dataclasses.replace(back).packed == data  # packed anew
    symbols = coder.quantize(PRIOR, typical_latents(PRIOR, 5), 400)
    assert coder.encode(back, symbols, 400) == coder.encode(PRIOR, symbols, 400)


def test_no_truncated_prior_is_read():
    data = PRIOR.to_bytes()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            MapPrior.from_bytes(data[:length])
    failure(FormatError, MapPrior.from_bytes, data + b"\0")


def test_a_map_that_no_memory_holds_is_refused_before_it_is_asked_for():
    data = bytearray(PRIOR.to_bytes())
    data[5:9] = b"\xff\x1f\xff\x1f"  # 8191 rows and columns
    assert "dimensions" in failure(FormatError, MapPrior.from_bytes, bytes(data))


def test_sums_that_could_overflow_are_refused():
    context = PRIOR.context._replace(weights=PRIOR.context.weights * 60_000)
    message = failure(FormatError, dataclasses.replace(PRIOR, context=context).validate)
    assert "2**24" in message
    with pytest.raises(FormatError):
        MapPrior.from_bytes(dataclasses.replace(PRIOR, context=context).to_bytes())


def test_streams_that_no_encoder_writes_are_refused():
    symbols = coder.quantize(PRIOR, typical_latents(PRIOR, 6), 400)
    stream = coder.encode(PRIOR, symbols, 400)
    for damaged in (stream[:-1], stream + bytes(4)):
        with pytest.raises(FormatError):
            coder.decode(PRIOR, damaged, 6, 400)
    for other in (stream[:-4], stream + b"\1\0\0\0"):  # other symbols may make them
        try:
            found = coder.decode(PRIOR, other, 6, 400)
        except FormatError:
            continue
        assert coder.encode(PRIOR, found, 400) == other
    payload = coder.encode_one(PRIOR, symbols[0], 400)
    for damaged in (payload + b"\0", bytes(8 * 26)):
        with pytest.raises(FormatError):
            coder.decode_one(PRIOR, damaged, 400)
