"""The integer decoder: the same levels from NumPy, JAX and plain Python, and proved exact."""

import dataclasses
import functools
import math
import signal
import time

import jax
import numpy as np
import pytest
from conftest import decoder_of_zeros
from test_format import pixels_of

from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact import by_jax, by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.from_params import quantize_decoder
from cvae_jax.exact.integers import EXACT, IntegerDecoder
from cvae_jax.modules import decode, init_params

UNITS = np.full(5, 0.004, np.float32)
SHAPES = [(28, 28, 1), (9, 14, 3), (5, 7, 1)]


def trained(shape, filters=(4, 6), latent_dim=5, scale=3.0):
    """Parameters at random, with activations about as large as a trained model's."""
    h, w, c = shape
    model = ModelConfig(h, w, c, latent_dim, filters, dense_width=8)
    params = init_params(model, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: leaf * scale, params)


@functools.cache
def decoder(shape=SHAPES[0], **settings):
    model, params = trained(shape, **settings)
    latents = np.random.default_rng(0).integers(-1000, 1000, (40, model.latent_dim))
    return quantize_decoder(params, model, UNITS, latents)


def symbols(d, n=70, size=40):
    shape = (n, d.architecture.latents)
    return np.random.default_rng(1).integers(-size, size, shape).astype(np.int32)


@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_and_jax_agree_and_are_near_the_float_decoder(shape):
    d = decoder(shape)
    model, params = trained(shape)
    inputs = d.inputs_of(30 * symbols(d))
    levels = by_numpy.decoder(d)(inputs)
    assert levels.dtype == np.uint8
    assert levels.shape == (70, *shape)
    np.testing.assert_array_equal(by_jax.decoder(d)(inputs), levels)
    z = (symbols(d) * (30 * 0.004)).astype(np.float32)
    real = np.asarray(decode(params, z, model)) * 255
    assert np.abs(levels - real).mean() < 4


def test_integers_add_little_to_the_error():
    """13.1 here; without the feedback of rounding 22, and with a tenth of the margin it is
    refused."""
    shape, filters = (8, 8, 1), (32, 64)
    d = decoder(shape, filters=filters)
    model, params = trained(shape, filters)
    levels = by_numpy.decoder(d)(d.inputs_of(30 * symbols(d, size=30)))
    z = (symbols(d, size=30) * (30 * 0.004)).astype(np.float32)
    real = np.asarray(decode(params, z, model)) * 255
    assert ((levels - real) ** 2).mean() < 16


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_size_of_a_batch_changes_nothing(size):
    d = decoder()
    inputs = d.inputs_of(30 * symbols(d))
    for make in (by_numpy.decoder, by_jax.decoder):
        levels = make(d)
        parts = [levels(inputs[i : i + size]) for i in range(0, 70, size)]
        np.testing.assert_array_equal(np.concatenate(parts), levels(inputs))


def test_an_interrupt_does_not_wait_for_all_images(monkeypatch):
    done, slow = [], by_numpy._transposed

    def counted(*arguments):
        time.sleep(0.01)
        done.append(1)
        return slow(*arguments)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(by_numpy, "cores", lambda: 2)
    monkeypatch.setattr(by_numpy, "_transposed", counted)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        levels, inputs = by_numpy.decoder(decoder()), np.zeros((2000, 5), np.int32)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            levels(inputs)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(done) < 100


def test_symbols_of_any_size_are_cut_and_never_overflow():
    d = decoder()
    extreme = np.array([[2**31 - 1] * 5, [-(2**31)] * 5], np.int32)
    inputs = d.inputs_of(65535 * extreme.astype(np.int64))
    assert (np.abs(inputs) <= d.limits).all()
    np.testing.assert_array_equal(by_jax.decoder(d)(inputs), by_numpy.decoder(d)(inputs))


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_come_back(shape):
    d = decoder(shape)
    again = IntegerDecoder.from_bytes(d.to_bytes())
    assert again.digest == d.digest
    inputs = d.inputs_of(30 * symbols(d))
    np.testing.assert_array_equal(by_numpy.decoder(again)(inputs), by_numpy.decoder(d)(inputs))


def test_the_bound_holds_for_the_worst_inputs_there_are():
    """In Python's integers: no output gets beyond it, and of the first layer one reaches it."""
    d = decoder()
    for k, layer in enumerate(d.layers):
        outputs = len(layer.bias)
        sums, spans = [], []
        for weights, bias in zip(
            layer.weights.reshape(-1, outputs).T.tolist(), layer.bias.tolist(), strict=True
        ):
            if k == 0:
                tops = d.limits.tolist()
                high, low = (
                    [m if sign * w > 0 else -m for w, m in zip(weights, tops, strict=True)]
                    for sign in (1, -1)
                )
            else:
                top = d.layers[k - 1].top
                high, low = ([top * (sign * w > 0) for w in weights] for sign in (1, -1))
            ends = [
                bias + sum(w * a for w, a in zip(weights, inputs, strict=True))
                for inputs in (high, low)
            ]
            sums.append(max(map(abs, ends)))
            spans.append(ends[0] - ends[1] + abs(bias))
        assert max(sums) <= d.largest_sum(k) < EXACT
        # Of inputs that are never negative, what is added and what is taken away, in any order.
        assert d.largest_sum(k) == (max(sums) if k == 0 else max(spans))


def with_layer(d, k, layer):
    return dataclasses.replace(d, layers=(*d.layers[:k], layer, *d.layers[k + 1 :]))


def at_the_edge(k, largest):
    """A decoder whose layer k could reach exactly that, below zero; all its weights are 1."""
    d = decoder_of_zeros(Architecture((4, 4, 1), 3, (2, 3)), used=3)
    reached = 3 if k == 0 else 9 * d.shapes[k].inputs * 255
    layer = d.layers[k]
    bias = np.full_like(layer.bias, reached - largest)
    return with_layer(d, k, layer._replace(weights=np.ones_like(layer.weights), bias=bias))


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_sums_below_2_to_the_24_are_accepted_and_no_others(k):
    IntegerDecoder.from_bytes(at_the_edge(k, EXACT - 1).to_bytes())
    with pytest.raises(FormatError, match=rf"layer {k} could reach {EXACT}, beyond 2\*\*24"):
        IntegerDecoder.from_bytes(at_the_edge(k, EXACT).to_bytes())


@pytest.mark.parametrize("below", [0, 1, 7])
def test_the_largest_sum_there_may_be_is_exact(below):
    """Every input is as large as can be, and each level is the sum, counted from the bound."""
    d = decoder_of_zeros(Architecture((4, 4, 1), 1, (2, 3)))
    d = with_layer(d, 2, d.layers[2]._replace(bias=np.full(2, 255)))
    bias = np.array([EXACT - 1 - below - 9 * 2 * 255])
    ones = np.ones_like(d.layers[3].weights)
    d = with_layer(d, 3, d.layers[3]._replace(weights=ones, bias=bias))
    d = dataclasses.replace(d, thresholds=np.arange(EXACT - 255, EXACT, dtype=np.int32))
    d = IntegerDecoder.from_bytes(d.to_bytes())
    expected = np.pad(np.full((2, 2), 255 - below), 1)[None, ..., None]  # edges lack taps
    for make in (by_numpy.decoder, by_jax.decoder):
        np.testing.assert_array_equal(make(d)(np.zeros((1, 0), np.int32)), expected)


SMALL = decoder_of_zeros(Architecture((8, 6, 1), 5, (2, 3)), used=3)
FIRST, *_, LAST = SMALL.layers
FEW, MANY, LATENTS = "too few or too many layers", "impossible numbers", "latents that there are"
SIZE, SHAPE, FAR = "impossible dimensions", "not of its architecture", "shifts too far"
RISE = "thresholds do not rise, or rise too far"


def rising(*ends):
    return np.array([*[ends[0]] * 254, ends[1]], np.int64)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (FEW, {"layers": ()}),
        (FEW, {"layers": SMALL.layers[:-1]}),
        (FEW, {"layers": (*SMALL.layers, LAST)}),
        (SHAPE, {"layers": (FIRST._replace(weights=FIRST.weights[:-1]), *SMALL.layers[1:])}),
        (SHAPE, {"layers": (*SMALL.layers[:-1], LAST._replace(bias=np.zeros(2, np.int64)))}),
        (FAR, {"layers": (*SMALL.layers[:-1], LAST._replace(shift=np.zeros(2, np.uint8)))}),
        (FAR, {"layers": (*SMALL.layers[:-1], LAST._replace(shift=np.full(1, 24)))}),
        (RISE, {"thresholds": SMALL.thresholds[:-1]}),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(words, changes):
    SMALL.validate()
    with pytest.raises(FormatError, match=words):
        dataclasses.replace(SMALL, **changes).validate()


def last(**changes):
    return {"layers": (*SMALL.layers[:-1], LAST._replace(**changes))}


def shape_of(**changes):
    return {"architecture": SMALL.architecture._replace(**changes)}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (SIZE, shape_of(image_shape=(0, 6, 1))),
        (SIZE, shape_of(image_shape=(8, 8193, 1))),
        (SIZE, shape_of(latent_dim=8193)),
        (SIZE, shape_of(latent_dim=2)),
        (SIZE, shape_of(filters=(2, 0))),
        (SIZE, shape_of(filters=())),
        (SIZE, shape_of(filters=(1,) * 9)),
        (SIZE, {"input_shift": 17}),
        (LATENTS, {"inputs": np.array([0, 1, 1])}),
        (LATENTS, {"inputs": np.array([0, 1, 5])}),
        (LATENTS, {"inputs": np.array([-1, 1, 2])}),
        (MANY, {"limits": np.array([1, 1, 1 << 16])}),
        (MANY, {"limits": np.array([1, 1, -1])}),
        (MANY, {"thresholds": rising(EXACT - 1, EXACT)}),
        (MANY, {"thresholds": rising(-EXACT, 1 - EXACT)}),
        (MANY, {"layers": (FIRST._replace(bits=17), *SMALL.layers[1:])}),
        (MANY, {"layers": (FIRST._replace(bits=-1), *SMALL.layers[1:])}),
        (MANY, last(bits=1)),
        (MANY, last(shift=np.full(1, 24))),
        (MANY, last(shift=np.full(1, -1))),
        (MANY, last(weights=np.full_like(LAST.weights, EXACT))),
        (MANY, last(bias=np.full_like(LAST.bias, -EXACT))),
        (RISE, {"thresholds": rising(1, 0)}),
        (RISE, {"thresholds": rising(0, (1 << 16) + 1)}),
    ],
)
def test_numbers_that_no_decoder_has_are_refused(words, changes):
    IntegerDecoder.from_bytes(SMALL.to_bytes())
    with pytest.raises(FormatError, match=words):
        IntegerDecoder.from_bytes(dataclasses.replace(SMALL, **changes).to_bytes())


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_a_decoder_that_could_overflow_is_refused(k):
    d = decoder()
    layer = d.layers[k]
    larger = layer._replace(weights=layer.weights * (2 * EXACT // d.largest_sum(k) + 1))
    wide = with_layer(d, k, larger)
    with pytest.raises(FormatError, match=rf"layer {k} could reach \d+, beyond 2\*\*24"):
        wide.validate()
    with pytest.raises(FormatError, match="beyond"):
        IntegerDecoder.from_bytes(wide.to_bytes())


def test_a_model_too_wide_to_be_exact_is_refused():
    model, params = trained((8, 8, 1), filters=(2500,), latent_dim=2)
    latents = np.random.default_rng(0).integers(-1000, 1000, (4, 2))
    with pytest.raises(ConfigError, match=r"beyond 2\*\*24: .* use fewer filters"):
        quantize_decoder(params, model, np.full(2, 0.004), latents)


def test_impossible_dimensions_are_refused_before_anything_is_computed():
    model = ModelConfig(8, 8, 1, 2, (1,) * 9, dense_width=8)
    with pytest.raises(ConfigError, match="impossible dimensions; use fewer filters"):
        quantize_decoder({}, model, np.full(2, 0.004), np.zeros((4, 2), np.int64))


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_a_model_that_uses_none_of_its_latents_or_weights(scale):
    model, params = trained((9, 8, 1), scale=scale)
    d = quantize_decoder(params, model, np.full(5, 0.004), np.zeros((4, 5), np.int64))
    again = IntegerDecoder.from_bytes(d.to_bytes())
    inputs = again.inputs_of(np.full((2, 5), 30))
    np.testing.assert_array_equal(by_jax.decoder(again)(inputs), by_numpy.decoder(d)(inputs))


def test_damaged_decoders_are_refused_or_proved_exact():
    data = decoder((5, 7, 1)).to_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            d = IntegerDecoder.from_bytes(bytes(damaged[: rng.integers(30, len(data) + 1)]))
        except FormatError:
            refused += 1
            continue
        assert max(d.largest_sum(k) for k in range(len(d.layers))) < EXACT
    assert refused > 150


@pytest.mark.parametrize("shape", [(9, 14, 3), (5, 7, 1)])
def test_plain_python_decodes_to_the_same_levels(shape):
    d = decoder(shape)
    many = symbols(d, n=2)
    levels = by_numpy.decoder(d)(d.inputs_of(30 * many))
    assert math.prod(shape) == levels[0].size
    for one, expected in zip(many, levels, strict=True):
        assert pixels_of(one.tolist(), 30, d.to_bytes(), UNITS.tobytes()) == expected.tobytes()
