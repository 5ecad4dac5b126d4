"""The integer decoder of a map of latents: as for a dense vector, with blocks, of any size."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from conftest import decoder_of_zeros
from test_format import pixels_of

from benchmarks.fuzz.samples import tiny_decoder
from cvae_jax.config import ModelConfig
from cvae_jax.errors import FormatError
from cvae_jax.exact import by_jax, by_numpy, from_params
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.from_params import quantize_decoder
from cvae_jax.exact.integers import EXACT, IntegerDecoder, units_check
from cvae_jax.modules import abstract_params, decode

UNIT = 1 / math.sqrt(12) / 256
SHAPES = [(16, 16, 3), (9, 14, 3), (5, 7, 1)]


def trained(shape, blocks=1, filters=(5, 8), latent_channels=4):
    """Parameters at random, with activations about as large as a trained model's."""
    model = ModelConfig(*shape, filters=filters, latent_channels=latent_channels, blocks=blocks)
    rng = np.random.default_rng(0)

    def drawn(leaf):
        spread = 2 * math.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 else 0.1
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    return model, jax.tree.map(drawn, abstract_params(model))


@functools.cache
def decoder(shape=SHAPES[0], **settings):
    model, params = trained(shape, **settings)
    latents = np.random.default_rng(0).integers(-4000, 4000, (40, model.latents))
    return quantize_decoder(params, model, np.full(model.latents, UNIT, np.float32), latents)


def symbols(d, n=40, size=13):
    rng = np.random.default_rng(1)
    return rng.integers(-size, size + 1, (n, d.architecture.latents)).astype(np.int32)


def same_levels(d, inputs):
    """Of both implementations, which must agree."""
    levels = by_numpy.decoder(d)(inputs)
    np.testing.assert_array_equal(by_jax.decoder(d)(inputs), levels)
    return levels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blocks", [0, 2])
def test_numpy_and_jax_agree_and_are_near_the_float_decoder(shape, blocks):
    d = decoder(shape, blocks=blocks)
    model, params = trained(shape, blocks)
    levels = same_levels(d, d.inputs_of(300 * symbols(d)))
    assert levels.shape == (40, *shape)
    z = (symbols(d) * (300 * UNIT)).astype(np.float32)
    real = np.asarray(decode(params, z, model)) * 255
    assert ((levels - real) ** 2).mean() < 0.03 * real.var()


def test_weights_are_rounded_so_that_later_ones_make_up_for_it(monkeypatch):
    """53 here, and 65 without."""
    shape, filters = (8, 8, 3), (16, 48)
    model, params = trained(shape, filters=filters)
    z = (symbols(decoder(shape, filters=filters)) * (300 * UNIT)).astype(np.float32)
    real = np.asarray(decode(params, z, model)) * 255

    def error(d):
        return ((by_numpy.decoder(d)(d.inputs_of(300 * symbols(d))) - real) ** 2).mean()

    found = error(decoder(shape, filters=filters))
    monkeypatch.setattr(from_params, "rounded_by", lambda gram, weights: np.rint(weights))
    assert found < 0.9 * error(decoder.__wrapped__(shape, filters=filters))


def random_decoder(seed):
    """Of a map, or for every third seed of a vector."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, (20, 20, 5)))
    filters = tuple(rng.integers(1, 9, rng.integers(1, 4)).tolist())
    latents = int(rng.integers(1, 9))
    of_map = (0, filters, latents, int(rng.integers(0, 4)))
    architecture = Architecture(shape, *(of_map if seed % 3 else (latents, filters)))
    return tiny_decoder(rng, architecture)


@pytest.mark.parametrize("seed", range(9))
def test_random_decoders_come_back_and_give_the_same_levels_by_all_three(seed):
    d = random_decoder(seed)
    data = d.to_bytes()
    assert data[4] == (2 if seed % 3 else 1)
    again = IntegerDecoder.from_bytes(data)
    assert dataclasses.replace(again).to_bytes() == data  # packed anew
    many = symbols(d, 11)
    levels = same_levels(again, again.inputs_of(400 * many))
    np.testing.assert_array_equal(same_levels(d, d.inputs_of(400 * many)), levels)
    d = dataclasses.replace(d, units_check=units_check(np.zeros(3, np.float32)))
    plain = pixels_of(many[-1].tolist(), 400, d.to_bytes(), bytes(12))
    assert plain == levels[-1].tobytes()


def test_no_images_and_no_inputs():
    d = decoder_of_zeros(Architecture((6, 5, 2), 0, (2,), 4, 1))
    assert d.inputs_of(np.zeros((0, 36), np.int64)).shape == (0, 0)
    levels = same_levels(IntegerDecoder.from_bytes(d.to_bytes()), np.zeros((3, 0), np.int32))
    np.testing.assert_array_equal(levels, np.ones((3, 6, 5, 2)))  # one threshold is not above 0
    assert same_levels(d, np.zeros((0, 0), np.int32)).shape == (0, 6, 5, 2)


def test_a_decoder_for_another_size_is_the_same_built_for_it():
    d = decoder((16, 16, 3))
    resized = d.resized(11, 6)  # the next larger size that its two stages halve evenly
    assert resized.architecture.image_shape == (12, 8, 3)
    built = IntegerDecoder.from_bytes(
        dataclasses.replace(d, architecture=resized.architecture).to_bytes()
    )
    many = symbols(built, 9)
    inputs = resized.inputs_of(300 * many)
    np.testing.assert_array_equal(inputs, built.inputs_of(300 * many))
    np.testing.assert_array_equal(same_levels(resized, inputs), same_levels(built, inputs))


def test_far_from_the_edges_the_size_changes_nothing():
    """Of a map of zeros with one place that is not."""
    d = decoder((16, 16, 3))
    levels = []
    for at in (6, 8):
        latents = np.zeros((2 * at + 1, 2 * at + 1, 4), np.int32)
        latents[at, at] = [3, -2, 1, 4]
        one = d.resized(*(4 * n for n in latents.shape[:2]))
        image = by_numpy.decoder(one)(one.inputs_of(300 * latents.reshape(1, -1)))[0]
        levels.append(image[4 * at : 4 * at + 4, 4 * at : 4 * at + 4])
    assert levels[0].std() > 5
    np.testing.assert_array_equal(*levels)


def test_only_maps_have_other_sizes():
    with pytest.raises(FormatError, match="one dense vector of latents has images of"):
        random_decoder(0).resized(8, 8)
    with pytest.raises(FormatError, match="impossible dimensions"):
        decoder((16, 16, 3)).resized(8, 8193)
    with pytest.raises(FormatError, match="a multiple of 4 pixels each way; this one's are 16x14"):
        decoder((16, 14, 3)).resized(8, 8)


def of_ones(k, largest):
    """A decoder whose layer k could reach exactly that, below zero; all its weights are 1."""
    d = decoder_of_zeros(Architecture((4, 4, 1), 0, (2, 3), 4, 1), used=4)
    layer, shape = d.layers[k], d.shapes[k]
    reached = 9 * shape.inputs * (255 if k else 1)
    if shape.skips:
        layer = layer._replace(skip=np.full(3, -77))
        reached += 77 * 255
    bias = np.full_like(layer.bias, reached - largest)
    layer = layer._replace(weights=np.ones_like(layer.weights), bias=bias)
    return dataclasses.replace(d, layers=(*d.layers[:k], layer, *d.layers[k + 1 :]))


@pytest.mark.parametrize("k", range(6))
def test_sums_below_2_to_the_24_are_accepted_and_no_others(k):
    IntegerDecoder.from_bytes(of_ones(k, EXACT - 1).to_bytes())
    with pytest.raises(FormatError, match=rf"layer {k} could reach {EXACT}, beyond 2\*\*24"):
        IntegerDecoder.from_bytes(of_ones(k, EXACT).to_bytes())


def test_the_largest_sum_of_a_block_is_exact():
    """What is skipped takes nearly all that is exact, and each level is the last bits of it."""
    d = decoder_of_zeros(Architecture((1, 1, 1), 0, (1,), 1, 1))
    first, inner, second, up, output = d.layers
    skip = (EXACT - 1) // 255 - 1
    rest = EXACT - 1 - 255 * skip - 3
    first = first._replace(bias=np.array([255]))
    second = second._replace(skip=np.array([skip]), bias=np.array([rest]), bits=16)
    second = second._replace(shift=np.array([8], np.uint8), bias=np.array([rest >> 5 << 5]))
    up = up._replace(weights=np.ones_like(up.weights), bits=16)
    output = output._replace(weights=np.ones_like(output.weights))
    passed_on = (255 * skip + (rest >> 5 << 5)) >> 8
    thresholds = np.arange(passed_on - 99, passed_on + 156, dtype=np.int32)
    layers = (first, inner, second, up, output)
    d = dataclasses.replace(d, layers=layers, thresholds=thresholds)
    d = IntegerDecoder.from_bytes(d.to_bytes())
    assert same_levels(d, np.zeros((1, 0), np.int32)).tolist() == [[[[100]]]]


SMALL = decoder_of_zeros(Architecture((8, 6, 1), 0, (2, 3), 4, 1), used=4)
SIZE, SHAPE, MANY = "impossible dimensions", "not of its architecture", "impossible numbers"


def with_skip(skip):
    layers = list(SMALL.layers)
    layers[2] = layers[2]._replace(skip=skip)
    return {"layers": tuple(layers)}


def of_shape(**changes):
    return {"architecture": SMALL.architecture._replace(**changes)}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (SIZE, of_shape(image_shape=(8, 0, 1))),
        (SIZE, of_shape(latent_channels=8193)),
        (SIZE, of_shape(latent_channels=3)),
        (SIZE, of_shape(blocks=9)),
        (MANY, with_skip(np.array([0, 0, EXACT]))),
        (MANY, with_skip(np.array([0, -EXACT, 0]))),
        ("latents that there are", {"inputs": np.array([0, 1, 2, 4])}),
    ],
)
def test_numbers_that_no_decoder_has_are_refused(words, changes):
    IntegerDecoder.from_bytes(SMALL.to_bytes())
    with pytest.raises(FormatError, match=words):
        IntegerDecoder.from_bytes(dataclasses.replace(SMALL, **changes).to_bytes())


@pytest.mark.parametrize(
    "changes",
    [
        with_skip(None),
        with_skip(np.zeros(4, np.int64)),
        {"layers": (SMALL.layers[0]._replace(skip=np.zeros(3, np.int64)), *SMALL.layers[1:])},
    ],
)
def test_skips_that_do_not_fit_are_refused(changes):
    SMALL.validate()
    with pytest.raises(FormatError, match=SHAPE):
        dataclasses.replace(SMALL, **changes).validate()


def test_blocks_without_a_map_and_other_versions_are_refused():
    with pytest.raises(FormatError, match=SIZE):
        Architecture((8, 6, 1), 4, (2, 3), 0, 1).check()
    data = bytearray(SMALL.to_bytes())
    for version, words in ((3, "a newer version"), (1, "integers|decoder")):
        data[4] = version
        with pytest.raises(FormatError, match=words):
            IntegerDecoder.from_bytes(bytes(data))
    for end in (0, 4, 5, 24, 25, 26, len(data) - 1):
        with pytest.raises(FormatError, match=r"header|truncated|integers"):
            IntegerDecoder.from_bytes(SMALL.to_bytes()[:end])


def test_damaged_decoders_are_refused_or_proved_exact():
    data = decoder((5, 7, 1)).to_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            d = IntegerDecoder.from_bytes(bytes(damaged))
        except FormatError:
            refused += 1
            continue
        assert max(d.largest_sum(k) for k in range(len(d.layers))) < EXACT
    assert refused > 100


def test_latents_too_large_to_be_exact_are_shifted_further():
    model, params = trained((8, 8, 1), latent_channels=16)
    latents = np.random.default_rng(0).integers(-400_000, 400_000, (20, model.latents))
    d = quantize_decoder(params, model, np.full(model.latents, UNIT / 100), latents)
    assert d.input_shift > from_params.INPUT_SHIFT
    assert d.largest_sum(0) < EXACT
