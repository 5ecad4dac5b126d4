"""The codec from Python: what goes in, what comes out, what is refused."""

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
import pytest
from conftest import RELEASED, ROOT

from cvae_jax import autoencoder, bitstream, codec, data
from cvae_jax.config import Config
from cvae_jax.errors import CheckpointError, ConfigError, DataError
from cvae_jax.modules import init_params
from cvae_jax.runs import checkpoint
from cvae_jax.runs.record import Dataset, Record

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


class Tensor:
    """Like a PyTorch tensor that requires a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nMore lines.")


def make(**settings):
    config = Config().replace(**settings)
    params = init_params(config.model, jax.random.key(0))
    return codec.Codec(config.model, params, Record(config, Dataset("none", None)))


@pytest.fixture(scope="module")
def grey():
    return make(height=9, width=8, latent_dim=5, filters=(4, 4), dense_width=8)


def test_accepts_every_natural_shape_and_type(grey):
    images = RNG.integers(0, 256, (3, 9, 8, 1), np.uint8)
    z = grey.encode(images)
    assert z.shape == (3, 5)
    assert z.dtype == np.float32
    for same in (images[..., 0], images / 255.0, (images / 255.0).astype(np.float32)):
        np.testing.assert_allclose(grey.encode(same), z, atol=1e-5)
    for one in (images[0], images[0, ..., 0]):
        np.testing.assert_allclose(grey.encode(one), z[:1], atol=1e-5)
    x = grey.decode(z)
    assert x.shape == (3, 9, 8, 1)
    assert x.dtype == np.float32
    assert x.min() >= 0
    assert x.max() <= 1
    np.testing.assert_allclose(grey.decode(z[0]), x[:1], atol=1e-5)


def test_colour_and_no_images_at_all(grey):
    colour = make(height=8, width=8, channels=3, latent_dim=2, filters=(4,), dense_width=8)
    assert colour.decode(colour.encode(RNG.random((2, 8, 8, 3)))).shape == (2, 8, 8, 3)
    assert colour.encode(RNG.random((8, 8, 3))).shape == (1, 2)
    assert grey.encode(np.zeros((0, 9, 8), np.uint8)).shape == (0, 5)
    assert grey.decode(np.zeros((0, 5))).shape == (0, 9, 8, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 8, 8, 1), np.uint8),
            r"expected images of 9x8, 1 channel: .*shape \[2, 8, 8, 1\]",
        ),
        (np.zeros((9, 8, 3), np.uint8), r"got shape \[9, 8, 3\]"),
        (np.zeros(72, np.uint8), r"got shape \[72\]"),
        (np.zeros((1, 9, 8), np.int64), r"uint8 or float .* got int64; .*astype\(np.uint8\)"),
        (np.zeros((1, 9, 8), np.uint16), r"got uint16; .*images / np.float32\(65535\)"),
        (np.zeros((1, 9, 8), bool), r"got bool; .*images.astype\(np.uint8\) \* 255"),
        (np.zeros((2, 1, 9, 8), np.uint8), r"NCHW: images.transpose\(0, 2, 3, 1\)"),
        (np.full((1, 9, 8), np.nan), "no NaN"),
        (np.full((1, 9, 8), 255.0), "values from 255 to 255"),
        (np.full((1, 9, 8), -0.1, np.float32), "values from -0.1"),
        ([[1], [1, 2]], "expected an array of images, all of one size"),
        ([["a"]], r"got shape \[1, 1\]"),
        (Tensor(), r"this Tensor does not .*requires grad.*\.detach\(\)\.cpu\(\)\.numpy\(\)"),
    ],
)
def test_refuses_other_images(grey, images, message):
    for use in (grey.encode, grey.posterior, grey.compress):
        with pytest.raises(DataError, match=message) as caught:
            use(images)
        assert "\n" not in str(caught.value)


def test_says_how_to_turn_one_image_round():
    colour = make(height=9, width=8, channels=3, latent_dim=2, filters=(4,), dense_width=8)
    with pytest.raises(DataError, match=r"CHW: images.transpose\(1, 2, 0\)"):
        colour.encode(np.zeros((3, 9, 8), np.uint8))


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.zeros((2, 4)), r"expected latents of shape \[N, 5\] or \[5\], got \[2, 4\]"),
        (np.full((1, 5), np.inf), "NaN or infinity"),
        (np.zeros((1, 5), complex), "got dtype complex128"),
        (np.zeros((1, 5), bool), "got dtype bool"),
        (Tensor(), r"array of latents.*\.detach\(\)"),
    ],
)
def test_refuses_other_latents(grey, z, message):
    with pytest.raises(DataError, match=message):
        grey.decode(z)


def test_encoding_is_deterministic_and_independent_of_neighbours(grey):
    images = RNG.integers(0, 256, (70, 9, 8), np.uint8)
    together = grey.encode(images)
    np.testing.assert_array_equal(together, grey.encode(images))
    alone = np.concatenate([grey.encode(image) for image in images])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(grey.encode(images[::-1])[::-1], together, atol=1e-5)
    decoded = grey.decode(together)
    np.testing.assert_allclose(
        np.concatenate([grey.decode(z) for z in together]), decoded, atol=1e-5
    )


def test_sampling_needs_a_key_and_obeys_it(grey):
    a, b, c = (grey.sample(jax.random.key(k), 4) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    image = RNG.integers(0, 256, (9, 8), np.uint8)
    first, second = (grey.sample_posterior(jax.random.key(k), image) for k in (0, 1))
    assert not np.array_equal(first, second)


def test_a_seed_is_as_good_as_its_key(grey):
    keys = (3, np.int64(3), jax.random.key(3), jax.random.PRNGKey(3))
    for key in keys[1:]:
        np.testing.assert_array_equal(grey.sample(key, 2), grey.sample(keys[0], 2))
    assert grey.sample(0, 0).shape == (0, 9, 8, 1)
    assert grey.sample_posterior(3, np.zeros((9, 8))).shape == (1, 5)


@pytest.mark.parametrize(
    "key", [-1, 2**32, True, None, "0", 0.5, np.zeros(2, np.float32), jax.random.split(KEY, 2)]
)
def test_refuses_what_is_no_key(grey, key):
    with pytest.raises(ConfigError, match=r"expected one key, jax.random.key\(seed\)") as caught:
        grey.sample(key, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [-1, 1.5, None, "2"])
def test_refuses_what_is_no_number_of_samples(grey, n):
    with pytest.raises(ConfigError, match="expected a number of images"):
        grey.sample(0, n)


def test_under_transformations_the_methods_are_the_pure_functions(grey):
    images = RNG.integers(0, 256, (3, 9, 8), np.uint8)
    z = grey.encode(images)
    np.testing.assert_allclose(jax.jit(grey.encode)(images), z, atol=1e-5)
    np.testing.assert_allclose(jax.jit(grey.encode)(images[0] / 255.0), z[:1], atol=1e-5)
    for ours, traced in zip(grey.posterior(images), jax.jit(grey.posterior)(images), strict=True):
        np.testing.assert_allclose(traced, ours, atol=1e-5)
    decoded = grey.decode(z)
    np.testing.assert_allclose(jax.jit(grey.decode)(z), decoded, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(grey.decode)(z)[:, 0], decoded, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(grey.sample, static_argnums=1)(KEY, 2), grey.sample(KEY, 2), atol=1e-5
    )
    assert jax.jit(grey.sample_posterior)(KEY, images).shape == z.shape

    gradient = jax.grad(lambda z: grey.decode(z)[:, 4, 4].sum())(z)
    pure = jax.grad(lambda z: codec.decode(grey.params, z, grey.model)[:, 4, 4].sum())(z)
    np.testing.assert_allclose(gradient, pure, atol=1e-6)
    assert np.abs(gradient).max() > 0


def test_under_transformations_the_rest_says_that_it_cannot(grey):
    images = np.zeros((3, 9, 8), np.uint8)
    with pytest.raises(DataError, match=r"under jax\.jit, vmap or grad: there only"):
        jax.jit(grey.compress)(images)
    with pytest.raises(DataError, match=r"under jax\.jit"):
        jax.jit(lambda images: grey.find_quality(images, target_psnr=10))(images)
    with pytest.raises(DataError, match=r"got shape \[3, 8, 9\]"):
        jax.jit(grey.encode)(images.transpose(0, 2, 1))


def test_functional_forms_are_what_the_codec_computes(grey):
    images = RNG.integers(0, 256, (3, 9, 8, 1), np.uint8)
    z = jax.jit(codec.encode, static_argnums=2)(grey.params, images, grey.model)
    np.testing.assert_allclose(z, grey.encode(images), atol=1e-5)
    pixels = jax.jit(codec.decode, static_argnums=2)(grey.params, z, grey.model)
    np.testing.assert_allclose(pixels, grey.decode(z), atol=1e-5)
    with pytest.raises(DataError, match="got int32"):
        codec.encode(grey.params, images.astype(np.int32), grey.model)


def test_many_batch_sizes_are_few_compilations(monkeypatch):
    traced = []

    def decode(*arguments):
        traced.append("a size")
        return codec.decode(*arguments)

    monkeypatch.setattr(autoencoder, "decode", decode)
    c = make(height=4, width=4, latent_dim=2, filters=(2,), dense_width=3)
    for n in (*range(70), 1024, 1500, 2000, 100_000):
        c.decode(np.zeros((n, 2), np.float32))
    assert len(traced) <= 11  # 1, 2, 4, ... 1024


def test_load_finds_a_checkpoint_and_says_what_it_looked_for(grey, tmp_path):
    checkpoint.save(tmp_path / "model", {"params": grey.params}, grey.record.to_dict())
    loaded = codec.load(tmp_path / "model")
    image = RNG.integers(0, 256, (9, 8), np.uint8)
    np.testing.assert_array_equal(loaded.encode(image), grey.encode(image))
    with pytest.raises(CheckpointError, match="nowhere"):
        codec.load(tmp_path / "nowhere")


def test_importing_the_codec_brings_no_trainer_and_no_data_library():
    code = (
        "import sys, cvae_jax.codec; heavy = {'optax', 'tensorflow_datasets', 'tensorflow', "
        "'cvae_jax.training', 'cvae_jax.data', 'sklearn', 'matplotlib', 'orbax'}; "
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_released_checkpoint_works():
    c = codec.load(RELEASED)
    assert c.encode(np.zeros((2, 28, 28), np.uint8)).shape == (2, 16)


def test_a_codec_says_in_a_line_what_it_is(grey):
    c = codec.load(RELEASED)
    assert (c.image_shape, c.latent_dim) == ((28, 28, 1), 16)
    assert repr(c) == (
        "<Codec trained on mnist: 28x28x1 images, 16 latents, encodes and decodes, "
        "with coding tables>"
    )
    assert "without coding tables" in repr(grey)
    archive = c.compress(np.zeros((2, 28, 28), np.uint8), embed_model="float16")
    embedded = codec.from_embedded(bitstream.Reader(io.BytesIO(archive)).model(), c.identity)
    assert "from an archive" in repr(embedded)
    assert "only reads files" in repr(embedded)


def test_a_codec_can_be_pickled_copied_and_sent_to_a_process():
    c = codec.load(RELEASED)
    images = data.load("digits", "test")[:3]
    z, file = c.encode(images), c.compress(images)
    content = pickle.dumps(c)
    assert len(content) < 3_400_000  # the parameters and the file model, once
    for same in (pickle.loads(content), copy.copy(c), copy.deepcopy(c)):
        np.testing.assert_array_equal(same.encode(images), z)
        assert same.compress(images) == file
        assert repr(same) == repr(c)
        assert same.usual_errors == c.usual_errors
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(c.compress, images).result() == file
