"""The integer decoder: the same levels from NumPy, JAX and plain Python, and proved exact."""

import dataclasses
import functools
import math
import signal
import time

import jax
import numpy as np
import pytest

from cvae_jax.config import ModelConfig
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.exact import by_jax, by_numpy
from cvae_jax.exact.from_params import quantize_decoder
from cvae_jax.exact.integers import EXACT, IntegerDecoder
from cvae_jax.modules import decode, init_params

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
    return quantize_decoder(params, model, np.full(model.latent_dim, 0.004), latents)


def symbols(d, n=70, size=40):
    shape = (n, d.architecture.latent_dim)
    return np.random.default_rng(1).integers(-size, size, shape).astype(np.int32)


@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_and_jax_agree_and_are_near_the_float_decoder(shape):
    d = decoder(shape)
    model, params = trained(shape)
    inputs = d.inputs_of(symbols(d), 30)
    levels = by_numpy.decoder(d)(inputs)
    assert levels.dtype == np.uint8
    assert levels.shape == (70, *shape)
    np.testing.assert_array_equal(by_jax.decoder(d)(inputs), levels)
    z = (symbols(d) * (30 * 0.004)).astype(np.float32)
    real = np.asarray(decode(params, z, model)) * 255
    assert np.abs(levels - real).mean() < 4


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_size_of_a_batch_changes_nothing(size):
    d = decoder()
    inputs = d.inputs_of(symbols(d), 30)
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

    monkeypatch.setattr(by_numpy, "_cores", lambda: 2)
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
    inputs = d.inputs_of(extreme, 65535)
    assert (np.abs(inputs) <= d.limits).all()
    np.testing.assert_array_equal(by_jax.decoder(d)(inputs), by_numpy.decoder(d)(inputs))


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_come_back(shape):
    d = decoder(shape)
    again = IntegerDecoder.from_bytes(d.to_bytes())
    assert again.digest == d.digest
    inputs = d.inputs_of(symbols(d), 30)
    np.testing.assert_array_equal(by_numpy.decoder(again)(inputs), by_numpy.decoder(d)(inputs))


def largest_sums(d, inputs):
    """The largest sum of sizes, weights times inputs and bias, that images really reach."""
    found, x = [], np.abs(inputs.astype(np.int64))
    first = d.layers[0]
    found.append(int((x @ np.abs(first.weights) + np.abs(first.bias)).max()))
    return found


def test_the_bound_holds_for_the_worst_inputs_there_are():
    d = decoder()
    worst = np.sign(d.layers[0].weights).T * d.limits.astype(np.int64)
    assert max(largest_sums(d, worst)) == d.largest_sum(0) < EXACT
    for k, layer in enumerate(d.layers[1:], 1):
        sizes = np.abs(layer.weights.astype(np.int64)).sum((0, 1, 2)) * d.layers[k - 1].top
        assert d.largest_sum(k) == int((sizes + np.abs(layer.bias)).max()) < EXACT


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_a_decoder_that_could_overflow_is_refused(k):
    d = decoder()
    layer = d.layers[k]
    larger = layer._replace(weights=layer.weights * (2 * EXACT // d.largest_sum(k) + 1))
    wide = dataclasses.replace(d, layers=(*d.layers[:k], larger, *d.layers[k + 1 :]))
    with pytest.raises(FormatError, match=rf"layer {k} could reach \d+, beyond 2\*\*24"):
        wide.validate()
    with pytest.raises(FormatError, match="beyond"):
        IntegerDecoder.from_bytes(wide.to_bytes())


def test_a_model_too_wide_to_be_exact_is_refused():
    model, params = trained((8, 8, 1), filters=(2500,), latent_dim=2)
    latents = np.random.default_rng(0).integers(-1000, 1000, (4, 2))
    with pytest.raises(ConfigError, match=r"beyond 2\*\*24: .* use fewer filters"):
        quantize_decoder(params, model, np.full(2, 0.004), latents)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_a_model_that_uses_none_of_its_latents_or_weights(scale):
    model, params = trained((9, 8, 1), scale=scale)
    d = quantize_decoder(params, model, np.full(5, 0.004), np.zeros((4, 5), np.int64))
    again = IntegerDecoder.from_bytes(d.to_bytes())
    inputs = again.inputs_of(np.ones((2, 5), np.int32), 30)
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


def reference_levels(d, symbols, step):
    """One image in plain Python integers, as docs/FORMAT.md describes it."""
    h, w, channels = d.architecture.image_shape

    def passed_on(total, layer, channel):
        return min(max(total >> int(layer.shift[channel]), 0), (1 << layer.bits) - 1)

    inputs = []
    for latent, limit in zip(d.inputs.tolist(), d.limits.tolist(), strict=True):
        units = int(symbols[latent]) * step
        a = (units + (1 << d.input_shift >> 1)) >> d.input_shift
        inputs.append(min(max(a, -limit), limit))
    first = d.layers[0]
    c = len(first.shift)
    weights, bias = first.weights.tolist(), first.bias.tolist()
    (rows, columns), *sizes = d.architecture.sizes
    x = {}
    for j, b in enumerate(bias):
        total = b + sum(a * weights[i][j] for i, a in enumerate(inputs))
        pixel, channel = divmod(j, c)
        x[(*divmod(pixel, columns), channel)] = passed_on(total, first, channel)
    for k, layer in enumerate(d.layers[1:], 1):
        last = k == len(d.layers) - 1
        stride, (height, width) = (1 if last else 2), sizes[k - 1]
        top, left = (max((n - 1) * stride + 3 - m, 0) // 2
                     for n, m in ((rows, height), (columns, width)))  # fmt: skip
        outputs = len(layer.shift)
        weights, bias = layer.weights.tolist(), layer.bias.tolist()
        sums = {
            (y, z, f): bias[f] for y in range(height) for z in range(width) for f in range(outputs)
        }
        for (y, z, a), value in x.items():
            for i in range(3):
                for j in range(3):
                    at = (stride * y + i - top, stride * z + j - left)
                    for f in range(outputs):
                        if (*at, f) in sums:
                            sums[(*at, f)] += value * weights[i][j][a][f]
        rows, columns = height, width
        if not last:
            x = {at: passed_on(total, layer, at[2]) for at, total in sums.items()}
    levels = np.zeros((h, w, channels), np.uint8)
    thresholds = d.thresholds.tolist()
    for (y, z, f), total in sums.items():
        output = total >> int(d.layers[-1].shift[f])
        levels[y, z, f] = sum(output >= threshold for threshold in thresholds)
    return levels


@pytest.mark.parametrize("shape", [(9, 14, 3), (5, 7, 1)])
def test_plain_python_decodes_to_the_same_levels(shape):
    d = decoder(shape)
    many = symbols(d, n=2)
    levels = by_numpy.decoder(d)(d.inputs_of(many, 30))
    assert math.prod(shape) == levels[0].size
    for one, expected in zip(many, levels, strict=True):
        np.testing.assert_array_equal(reference_levels(d, one, 30), expected)
