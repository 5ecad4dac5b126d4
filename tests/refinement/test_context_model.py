"""The context model in integers: exact whatever the input, near its network, and safe to load."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from context_samples import digits, mixed, random_model, trained

from benchmarks.fuzz.samples import tiny_context
from cvae_jax.bitstream.records import BASED, RAW
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact.integers import EXACT
from cvae_jax.refinement import coder, network, training
from cvae_jax.refinement.canvas import Span
from cvae_jax.refinement.from_params import quantize_context
from cvae_jax.refinement.grid import Grid
from cvae_jax.refinement.integers import (
    FAR,
    FRACTIONS,
    LEVELS,
    POWERS,
    ContextModel,
    Frequencies,
    Layer,
    frequencies,
    interval,
)
from cvae_jax.refinement.neighbours import AROUND, CAUSAL, coarse, values

SPAN = Span(0, 3, 4, 3)


def contexts(model, n, seed=0, extreme=False):
    """Values, expected levels and whether there is a base, of n pixels."""
    rng = np.random.default_rng(seed)
    count = values(model.image_shape[2])
    known = rng.choice([0, 255], (count, n)) if extreme else rng.integers(0, 256, (count, n))
    expected = rng.choice([0, 255], n) if extreme else rng.integers(0, 256, n)
    known, based = known.astype(np.uint8), rng.random(n) < 0.7
    base = slice(len(CAUSAL), len(CAUSAL) + len(AROUND))
    known[base] = coarse(known[base]) * based
    return known, expected.astype(np.uint8), based


def places_of(n, span):
    """Which of a span's places each of n pixels has."""
    return np.arange(n) % span.width


def reference(model, max_error, known, expected, based, span):
    """What the integers say in int64: the hidden numbers, and all logits unshifted but the sums."""
    known, expected = known.astype(np.int64), expected.astype(np.int64)
    causal, base, earlier = np.split(known, [len(CAUSAL), len(CAUSAL) + len(AROUND)])
    marks = [causal == 0, (base == 0) & based, earlier == 0]
    marks += [causal >= 252, base >= 248, earlier >= 252, based[None]]
    error = np.full((1, len(expected)), 4 * max_error)
    numbers = [causal - expected, base, earlier, expected[None], error, 255 * np.concatenate(marks)]
    x = np.concatenate(numbers)
    at_row, at_column, at_channel = (part.astype(np.int64) for part in model.places)
    columns = span.column + places_of(len(expected), span)
    placed = at_row[span.row] + at_column[columns] + at_channel[span.channel]
    for layer, added in ((model.first, placed.T), (model.second, 0), (model.output, 0)):
        bias = layer.bias.astype(np.int64)[:, None] + added
        sums = layer.weights.astype(np.int64) @ x + bias
        assert np.abs(sums).max() < EXACT
        x = sums >> layer.shift.astype(np.int64)[:, None]
        if layer.bits:
            x = hidden = np.clip(x, 0, layer.top)
    at = (np.arange(LEVELS)[:, None] - expected) % LEVELS
    logits = x[1 : 1 + LEVELS] + np.take_along_axis(x[1 + LEVELS :], at, 0)
    return hidden, x[0], logits.T


def assert_exact(model, max_error, *given):
    known, expected, based, span = given
    computed = Frequencies(model, max_error)
    hidden = computed.hidden(known, expected, based, places_of(len(expected), span), span)
    exact, hit, logits = reference(model, max_error, *given)
    np.testing.assert_array_equal(hidden, np.concatenate([exact, np.ones((1, len(expected)))]))
    of_it, of_others = (
        [FRACTIONS[d % 16] >> d // 16 if d < FAR else 0 for d in np.maximum(x, 0).tolist()]
        for x in (-hit, hit)
    )
    assert computed.hit(hidden).tolist() == [
        1 + a * (TOTAL - 2) // (a + b) for a, b in zip(of_it, of_others, strict=True)
    ]
    logits[np.arange(len(expected)), expected] = -(1 << 40)
    below = np.minimum(logits.max(1, keepdims=True) - logits, FAR)
    np.testing.assert_array_equal(computed.others(hidden, expected), POWERS[below])


def nearly_overflowing(shape):
    """A model whose sums reach as far as they may."""
    rng = np.random.default_rng(0)
    model = random_model(shape)
    layers = []
    for layer, most in ((model.first, 255), (model.second, 1023), (model.output, 1023)):
        outputs, inputs = layer.weights.shape
        share = (EXACT // 2 if layer is model.output else EXACT) * 7 // 8 // most // inputs
        weights = rng.choice([-share, share - 1], (outputs, inputs)).astype(np.int32)
        bias = rng.integers(-(1 << 18), 1 << 18, outputs).astype(np.int32)
        shift = np.full(outputs, 0 if layer is model.output else 13, np.uint8)
        layers.append(Layer(weights, bias, shift, 10 * (layer.bits > 0)))
    first, second, output = layers
    made = dataclasses.replace(model, first=first, second=second, output=output)
    return ContextModel.from_bytes(made.packed)


@pytest.mark.parametrize("shape", [(5, 4, 1), (5, 4, 3)])
@pytest.mark.parametrize("make", [random_model, nearly_overflowing])
def test_sums_are_those_of_whole_numbers(make, shape):
    model = make(shape)
    for seed, extreme in enumerate((False, True)):
        for max_error in (0, 63):
            given = contexts(model, 200, seed, extreme)
            for span in (Span(0, 0, 0, 1), Span(shape[2] - 1, 4, 1, 3)):
                assert_exact(model, max_error, *given, span)


def test_the_worst_inputs_are_exact():
    """Every value such that the sums of a unit are as large, or as small, as they can be."""
    model = nearly_overflowing((5, 4, 1))
    count = values(1)
    sign = model.first.weights[:, :count]
    worst = np.concatenate([np.where(sign > 0, 255, 0), np.where(sign < 0, 255, 0)])
    known = np.ascontiguousarray(worst.astype(np.uint8).T)
    for expected in (0, 255):
        of_all = np.full(known.shape[1], expected, np.uint8)
        assert_exact(model, 63, known, of_all, of_all == expected, Span(0, 0, 0, 1))


def test_a_trained_models_sums_are_whole_numbers_too():
    model = trained()[-1]
    assert_exact(model, 1, *contexts(model, 500), Span(0, 3, 4, 2))


@pytest.mark.parametrize("max_error", [0, 1, 4, 63])
def test_frequencies_add_up_and_are_never_0(max_error):
    model = trained()[-1]
    known, expected, based = contexts(model, 400)
    computed = Frequencies(model, max_error)
    hidden = computed.hidden(known, expected, based, np.zeros(len(expected), int), SPAN)
    hit, weights = computed.hit(hidden), computed.others(hidden, expected)
    if max_error:
        hit, weights = computed.cells_of(hit, weights, Grid(expected, max_error))
    assert 1 <= hit.min() <= hit.max() < TOTAL
    assert (hit == np.floor(hit)).all()
    found = frequencies(weights) + 1
    assert found.min() >= 1
    assert (found.sum(1) == TOTAL).all()
    rng = np.random.default_rng(0)
    for cell in (rng.integers(found.shape[1], size=400), np.zeros(400, int)):
        start, frequency = interval(weights, cell)
        rows = np.arange(400)
        np.testing.assert_array_equal(frequency, found[rows, cell])
        below = np.cumsum(found, axis=1)[rows, cell] - found[rows, cell]
        np.testing.assert_array_equal(start, below)


def test_cells_share_what_their_levels_have():
    """Nothing is lost to the levels of a cell: their frequencies and its are nearly the same."""
    model = trained()[-1]
    known, expected, based = contexts(model, 300)
    computed, cells = Frequencies(model, 0), Grid(expected, 4)
    hidden = computed.hidden(known, expected, based, np.zeros(len(expected), int), SPAN)
    hit, weights = computed.hit(hidden), computed.others(hidden, expected)
    within, sums = computed.cells_of(hit, weights, cells)
    p = weights / weights.sum(1, keepdims=True) * (1 - hit / TOTAL)[:, None]
    p[np.arange(300), expected] = hit / TOTAL
    summed = cells.sums(p)
    rows = np.arange(300)
    np.testing.assert_allclose(within / TOTAL, summed[rows, cells.of_expected], atol=1e-6)
    summed[rows, cells.of_expected] = 0
    rest = summed.sum(1, keepdims=True)
    likely = (rest > 1e-6)[:, 0]
    shares = sums / sums.sum(1, keepdims=True)
    np.testing.assert_allclose(shares[likely], (summed / rest)[likely], atol=1e-5)


def test_columns_do_not_depend_on_each_other():
    model = trained()[-1]
    known, expected, based = contexts(model, 97)
    computed = Frequencies(model, 0)
    which = np.arange(97) % SPAN.width
    whole = computed.hidden(known, expected, based, which, SPAN)
    for size in (1, 2, 31, 64):
        parts = [slice(k, k + size) for k in range(0, 97, size)]
        apart = [computed.hidden(known[:, p], expected[p], based[p], which[p], SPAN) for p in parts]
        np.testing.assert_array_equal(np.concatenate(apart, axis=1), whole)
        others = [computed.others(whole[:, p], expected[p]) for p in parts]
        np.testing.assert_array_equal(np.concatenate(others), computed.others(whole, expected))


def test_integers_cost_hardly_more_than_the_network():
    net, params, known, model = trained()
    levels, base = digits(200)
    based = np.ones(len(levels), bool)
    spent = coder.bits(coder.coding(model, levels, base, based, 0)).sum()
    number = jax.numpy.arange(levels.size)
    given, level = training.contexts(known, number, jax.numpy.ones(levels.size, bool))
    nats = network.nats(network.apply(net, params, given), level, given)
    ideal = float(nats.sum()) / np.log(2)
    assert ideal * 0.98 < spent < ideal * 1.02
    assert spent < 0.6 * 8 * levels.size  # it has learnt something


def test_bytes_come_back():
    for model in (trained()[-1], random_model((5, 4, 3))):
        again = ContextModel.from_bytes(bytes(model.packed))
        assert (again.digest, again.image_shape) == (model.digest, model.image_shape)
        anew = dataclasses.replace(again)
        assert anew.packed == model.packed
        for name in ("first", "second", "output"):
            for one, other in zip(getattr(again, name), getattr(model, name), strict=True):
                np.testing.assert_array_equal(one, other)


MODEL = random_model((5, 4, 1))


def scaled(layer, field, factor):
    return layer._replace(**{field: getattr(layer, field).astype(np.int64) * factor})


def added_to(layer, field, amount):
    return layer._replace(**{field: (getattr(layer, field) + amount).astype(np.int64)})


HOSTILE = {
    "first weights": {"first": scaled(MODEL.first, "weights", 1000)},
    "second weights": {"second": scaled(MODEL.second, "weights", 9000)},
    "output weights": {"output": scaled(MODEL.output, "weights", 9000)},
    "first bias": {"first": added_to(MODEL.first, "bias", EXACT - 5000)},
    "output bias": {"output": added_to(MODEL.output, "bias", 15_000 - EXACT)},
    "places": {"places": tuple(p + (EXACT // 3) for p in MODEL.places)},
    "bits": {
        "second": MODEL.second._replace(bits=16),
        "output": scaled(MODEL.output, "weights", 9),
    },
    "logits": {
        "output": added_to(
            MODEL.output._replace(shift=np.zeros(1 + 2 * LEVELS, np.uint8)), "bias", EXACT // 2
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_model_that_could_overflow_is_refused(change):
    wide = dataclasses.replace(MODEL, **change)
    with pytest.raises(FormatError, match=r"could reach \d+, beyond 2\*\*24"):
        wide.validate()
    with pytest.raises(FormatError, match="beyond"):
        ContextModel.from_bytes(wide.packed)


IMPOSSIBLE = {
    "shift": ({"first": added_to(MODEL.first, "shift", 19)}, "shifts too far"),
    "no bits": ({"first": MODEL.first._replace(bits=0)}, "impossible numbers"),
    "many bits": ({"second": MODEL.second._replace(bits=17)}, "impossible numbers"),
    "weights": ({"first": scaled(MODEL.first, "weights", EXACT)}, "impossible numbers"),
    "places": ({"places": tuple(p + EXACT for p in MODEL.places)}, "impossible numbers"),
    "height": ({"image_shape": (0, 4, 1)}, "dimensions"),
    "width": ({"image_shape": (5, 8193, 1)}, "dimensions"),
    "many channels": ({"image_shape": (5, 4, 5)}, "dimensions"),
    "quality": ({"base_quality": 101}, "impossible numbers"),
    "usual": ({"usual": 1.5}, "impossible numbers"),
    "no usual": ({"usual": float("nan")}, "impossible numbers"),
    "negative usual": ({"usual": -0.1}, "impossible numbers"),
}


@pytest.mark.parametrize(("change", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_numbers_are_refused(change, words):
    with pytest.raises(FormatError, match=words) as refused:
        ContextModel.from_bytes(dataclasses.replace(MODEL, **change).packed)
    assert str(refused.value).isprintable()


def test_arrays_of_other_shapes_are_refused():
    first, (row, *others) = MODEL.first, MODEL.places
    for change in (
        {"first": first._replace(weights=first.weights[:, 1:])},
        {"first": first._replace(bias=first.bias[1:])},
        {"second": MODEL.second._replace(shift=MODEL.second.shift[1:])},
        {"places": (row[1:], *others)},
        {"places": (row[:, 1:], *others)},
    ):
        with pytest.raises(FormatError, match="architecture"):
            dataclasses.replace(MODEL, **change).validate()


def test_damaged_bytes_are_refused_or_proved_exact():
    data = MODEL.packed
    rng = np.random.default_rng(0)
    given = contexts(MODEL, 20)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        end = len(data) if rng.random() < 0.8 else rng.integers(len(data))
        try:
            model = ContextModel.from_bytes(bytes(damaged[:end]))
        except FormatError:
            refused += 1
            continue
        model.validate()
        if model.image_shape == MODEL.image_shape:
            assert_exact(model, 4, *given, Span(0, 0, 0, 1))
    assert 200 < refused < 300
    for more in (b"", b"CVCX", data + b"\0", b"\0" + data):
        with pytest.raises(FormatError):
            ContextModel.from_bytes(more)


def test_a_network_that_no_integers_can_compute_is_refused():
    net = network.ContextNetwork((3, 3, 1), (4, 4))
    params = jax.device_get(network.init_params(net, jax.random.key(0)))
    params["row"] = params["row"] + np.float32(1e9)
    known = training.pixels(*(np.zeros((2, 3, 3, 1), np.uint8),) * 2)
    sample, _ = training.contexts(known, jax.numpy.arange(18), np.ones(18, bool))
    with pytest.raises(ConfigError, match="train it again"):
        quantize_context(params, (3, 3, 1), jax.device_get(sample))


PROGRAM = """
import hashlib, sys, numpy as np
from pathlib import Path
from cvae_jax.refinement import coder
from cvae_jax.refinement.canvas import near
from cvae_jax.refinement.integers import ContextModel
model = ContextModel.from_bytes(Path(sys.argv[1]).read_bytes())
images = np.random.default_rng(1).integers(0, 256, (70, 9, 7, 3)).astype(np.uint8) // 9 * 9
coded = coder.coding(model, near(images, 2), images[::-1], np.ones(70, bool), 2)
print(hashlib.sha256(coder.encode(coded, images[:2], 2)).hexdigest())
"""


def runs(core):
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    return {"Prescott": "pni", "Haswell": "avx2", "SkylakeX": "avx512f"}[core] in flags


def test_bytes_do_not_depend_on_instructions_or_threads(tmp_path):
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in built:
        pytest.skip(
            f"NumPy multiplies matrices with {built}, whose instructions are its own choice"
        )
    settings = [{"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}]
    cores = filter(runs, ("Prescott", "Haswell", "SkylakeX"))
    settings += [{"OPENBLAS_CORETYPE": core, "OMP_NUM_THREADS": "1"} for core in cores]
    model = tmp_path / "context.bin"
    model.write_bytes(tiny_context(np.random.default_rng(0), (9, 7, 3), (96, 33)).packed)
    found = []
    for setting in settings:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **setting}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, model], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.strip())
    assert len(found) > 2
    assert set(found) == {found[0]}
    assert len(found[0]) == len(hashlib.sha256().hexdigest())


def test_modes_of_one_chunk_do_not_change_each_other():
    """An image with a base costs the same beside images without."""
    model = random_model((5, 4, 1))
    some, base, modes = mixed((5, 4, 1))
    some, base, based = some[modes != RAW], base[modes != RAW], modes[modes != RAW] == BASED
    base[~based] = 0
    both = coder.bits(coder.coding(model, some, base, based, 0))
    only = coder.bits(coder.coding(model, some[based], base[based], based[based], 0))
    np.testing.assert_allclose(both[based], only)
