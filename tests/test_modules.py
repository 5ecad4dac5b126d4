"""The architecture is the one promised, for any size, and its parameters are Linen's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.config import ModelConfig
from cvae_jax.modules import CVAE, Posterior, abstract_params, init_params


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
