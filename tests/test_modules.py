"""The architecture is the one promised, for any size, and its parameters are Linen's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.config import ModelConfig
from cvae_jax.modules import (
    CVAE,
    Posterior,
    abstract_params,
    decode,
    encode,
    from_prior,
    init_params,
    unit_noise,
)

MAP = ModelConfig(8, 8, 1, filters=(4, 8), latent_channels=4, blocks=1)
MAP_PARAMS = init_params(MAP, jax.random.key(0))
IMAGES = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_default_has_the_parameters_of_the_original():
    params = abstract_params(ModelConfig())
    assert count(params["encoder"]) == 424_480
    assert count(params["decoder"]) == 108_993


@pytest.mark.parametrize(
    ("shape", "filters"),
    [((28, 28, 1), (32, 64)), ((27, 30, 3), (8, 4)), ((5, 9, 2), (4,)), ((13, 13, 1), (4, 3, 2))],
)
def test_the_shapes_of_parameters_are_those_that_are_made(shape, filters):
    config = ModelConfig(*shape, latent_dim=3, filters=filters, dense_width=7)
    made = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert abstract_params(config) == made


@pytest.mark.parametrize(
    ("shape", "filters"),
    [((32, 32, 3), (32, 64)), ((27, 30, 1), (8, 4)), ((5, 9, 2), (4,)), ((13, 13, 1), (4, 4, 4))],
)
def test_output_has_exactly_the_inputs_size(shape, filters):
    config = ModelConfig(*shape, latent_dim=3, filters=filters, dense_width=7)
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    noise = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    out = jax.eval_shape(CVAE(config).apply, {"params": abstract_params(config)}, images, noise)
    assert out.logits.shape == (2, *shape)
    assert out.posterior.z_mean.shape == out.posterior.z_log_var.shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "filters", "blocks", "latent_map"),
    [
        ((8, 8, 1), (4, 8), 1, (2, 2, 4)),
        ((27, 30, 3), (8, 4), 2, (7, 8, 4)),
        ((5, 9, 2), (4,), 0, (3, 5, 4)),
    ],
)
def test_a_map_of_latents_has_its_shapes(shape, filters, blocks, latent_map):
    config = ModelConfig(*shape, filters=filters, latent_channels=4, blocks=blocks)
    assert (config.latent_map, config.latents) == (latent_map, np.prod(latent_map))
    made = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert abstract_params(config) == made
    assert made.keys() == {"encoder", "decoder", "prior"}
    for columns in (config.latents, config.noise_dim):
        noise = jax.ShapeDtypeStruct((2, columns), jnp.float32)
        images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        out = jax.eval_shape(CVAE(config).apply, {"params": made}, images, noise)
        assert out.logits.shape == (2, *shape)
        assert out.posterior.z_mean.shape == out.posterior.z_log_var.shape == (2, config.latents)
        assert out.coded.z.shape == out.coded.laws.mean.shape == (2, *latent_map)


def test_a_map_is_decoded_as_it_is_or_within_half_a_step():
    apply = jax.jit(CVAE(MAP).apply)
    z_mean = np.asarray(encode(MAP_PARAMS, IMAGES, MAP))
    plain = apply({"params": MAP_PARAMS}, IMAGES)
    np.testing.assert_allclose(plain.coded.z.reshape(3, -1), z_mean, atol=1e-6)
    np.testing.assert_array_equal(plain.coded.step, 1)
    expected = decode(MAP_PARAMS, z_mean, MAP)
    np.testing.assert_allclose(jax.nn.sigmoid(plain.logits), expected, atol=1e-6)
    noise = jax.random.normal(jax.random.key(2), (3, MAP.noise_dim))
    for columns in (MAP.latents, MAP.noise_dim):
        coded = apply({"params": MAP_PARAMS}, IMAGES, noise[:, :columns]).coded
        off = np.asarray(coded.z).reshape(3, -1) - z_mean
        half = np.asarray(coded.step)[:, None] / 2
        assert (np.abs(off) <= half * 1.001).all()
        assert (np.abs(off).max(1) > 0.7 * half[:, 0]).all()
        assert (len(np.unique(coded.step)) == 3) == (columns == MAP.noise_dim)


def test_the_posterior_of_a_map_is_uniform_and_has_the_variance_it_says():
    noise = np.asarray(unit_noise(jax.random.key(0), 2000, MAP))
    posterior = Posterior(jnp.zeros((1, 1)), jnp.full((1, 1), np.log(1 / 12)))
    z = np.asarray(posterior.sample(noise))
    assert -0.5 <= z.min() < -0.499 < 0.499 < z.max() <= 0.5
    np.testing.assert_allclose(z.var(), 1 / 12, rtol=0.02)
    assert unit_noise(jax.random.key(0), 5, ModelConfig()).shape == (5, 16)


def test_latents_are_drawn_from_the_prior_of_either_kind():
    noise = jax.random.normal(jax.random.key(2), (5, MAP.latents))
    drawn = from_prior(MAP_PARAMS, noise, MAP)
    assert drawn.shape == noise.shape
    np.testing.assert_allclose(from_prior(MAP_PARAMS, noise[:2], MAP), drawn[:2])
    np.testing.assert_array_equal(from_prior({}, noise[:, :16], ModelConfig()), noise[:, :16])


def test_kernels_are_glorot_uniform_and_biases_zero():
    params = init_params(ModelConfig(), jax.random.key(0))
    for layer in (*params["encoder"].values(), *params["decoder"].values()):
        kernel = np.asarray(layer["kernel"])
        receptive = np.prod(kernel.shape[:-2])
        limit = np.sqrt(6 / (receptive * (kernel.shape[-2] + kernel.shape[-1])))
        assert np.abs(kernel).max() <= limit
        assert np.abs(kernel).max() > 0.9 * limit
        assert not np.asarray(layer["bias"]).any()


def test_sampling_is_the_reparameterisation_trick():
    posterior = Posterior(jnp.array([[1.0, -2.0]]), jnp.array([[0.0, 2 * np.log(3.0)]]))
    np.testing.assert_allclose(posterior.sample(jnp.array([[0.5, -1.0]])), [[1.5, -5.0]], rtol=1e-6)


def test_bfloat16_computes_nearly_the_same_with_float32_parameters():
    config = ModelConfig(8, 8, 1, latent_dim=4, filters=(8,), dense_width=16)
    params = init_params(config, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    exact = jax.jit(CVAE(config).apply)({"params": params}, images)
    rough = jax.jit(CVAE(config, jnp.bfloat16).apply)({"params": params}, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, rough))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(rough.logits, exact.logits, atol=0.05)
    assert not np.array_equal(rough.logits, exact.logits)
