"""The loss is the negative ELBO, and its gradient is its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from cvae_jax import losses
from cvae_jax.config import ModelConfig
from cvae_jax.modules import CVAE, Posterior, VAEOutput, init_params
from cvae_jax.prior import Coded, Laws

KEY = jax.random.key(0)


def test_bce_is_the_cross_entropy_of_the_pixels():
    logits = 3 * jax.random.normal(KEY, (2, 4, 5, 1))
    images = jax.random.uniform(jax.random.key(1), (2, 4, 5, 1))
    p = jax.nn.sigmoid(logits)
    expected = -(images * jnp.log(p) + (1 - images) * jnp.log1p(-p)).sum((1, 2, 3))
    np.testing.assert_allclose(losses.bce(logits, images), expected, rtol=1e-5)


def test_bce_is_finite_and_exact_for_extreme_logits():
    logits = jnp.array([1e4, -1e4]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(losses.bce(logits, jnp.zeros((2, 1, 1, 1))), [1e4, 0.0])


def test_kl_is_the_divergence_of_the_gaussians():
    mean, log_var = jnp.array([[0.7, -1.1]]), jnp.array([[0.3, -0.8]])
    x = np.linspace(-12, 12, 200_001)
    expected = 0.0
    for m, v in zip(mean[0], np.exp(log_var[0]), strict=True):
        q = np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
        log_ratio = -((x - m) ** 2) / (2 * v) - 0.5 * np.log(v) + x**2 / 2
        expected += np.trapezoid(q * log_ratio, x)
    np.testing.assert_allclose(losses.kl(Posterior(mean, log_var)), [expected], rtol=1e-4)


def test_kl_of_the_prior_is_zero():
    assert losses.kl(Posterior(jnp.zeros((3, 4)), jnp.zeros((3, 4)))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("reconstruction", ["bce", "mse"])
def test_elbo_adds_up(reconstruction):
    output = VAEOutput(
        jax.random.normal(KEY, (3, 4, 4, 1)), Posterior(jnp.ones((3, 2)), jnp.zeros((3, 2)))
    )
    images = jax.random.uniform(KEY, (3, 4, 4, 1))
    loss, metrics = losses.elbo(output, images, reconstruction, beta=0.5)
    np.testing.assert_allclose(loss, metrics[reconstruction] + 0.5 * metrics["kl"], rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"], 1.0, rtol=1e-6)
    if reconstruction == "mse":
        expected = ((jax.nn.sigmoid(output.logits) - images) ** 2).sum() / 3
        np.testing.assert_allclose(metrics["mse"], expected, rtol=1e-5)


def test_elbo_of_a_map_weighs_errors_by_the_step_and_counts_the_bins():
    latent_map = (2, 2, 4)
    mean, log_scale = jax.random.normal(KEY, (2, 3, *latent_map))
    z = jnp.rint(2 * jax.random.normal(jax.random.key(1), (3, *latent_map)))
    steps = jnp.array([1.0, 0.5, 2.0])
    z = z * steps[:, None, None, None]
    output = VAEOutput(
        jax.random.normal(KEY, (3, 4, 4, 1)),
        Posterior(jnp.zeros((3, 16)), jnp.zeros((3, 16))),
        Coded(z, steps, Laws(mean, log_scale)),
    )
    images = jax.random.uniform(KEY, (3, 4, 4, 1))
    terms = losses.per_image(output, images, "mse", beta=0.5)
    np.testing.assert_allclose(terms["mse"], losses.squared_error(output.logits, images))
    expected = steps * (terms["mse"] / steps**2 + 0.5 * terms["kl"])
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-6)
    for i, step in enumerate(steps):
        law = scipy.stats.logistic(mean[i], np.exp(log_scale[i]))
        bins = law.cdf(z[i] + step / 2) - law.cdf(z[i] - step / 2)
        np.testing.assert_allclose(terms["kl"][i], -np.log(bins).sum(), rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(6, 5, 1, latent_dim=3, filters=(4, 5), dense_width=6),
        ModelConfig(6, 5, 1, filters=(4, 5), latent_channels=4, blocks=1),
    ],
    ids=["dense", "map"],
)
def test_gradient_of_the_elbo_is_its_finite_difference(config):
    """In float64, along random directions, through the encoder, the sample, the decoder and the
    prior."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype(jnp.float64), init_params(config, KEY))
        start, unravel = ravel_pytree(params)
        # Off the zeros of the biases: there, a ReLU that gets nothing has its kink.
        start += 0.01 * jax.random.normal(jax.random.key(3), start.shape, jnp.float64)
        images = jax.random.uniform(jax.random.key(1), (3, 6, 5, 1), jnp.float64)
        noise = jax.random.normal(jax.random.key(2), (3, config.noise_dim), jnp.float64)

        @jax.jit
        def loss_and_gradient(flat):
            def loss(flat):
                output = CVAE(config, jnp.float64).apply({"params": unravel(flat)}, images, noise)
                return losses.elbo(output, images)[0]

            return jax.value_and_grad(loss)(flat)

        _, gradient = loss_and_gradient(start)
        for seed in range(5):
            direction = jax.random.normal(jax.random.key(10 + seed), start.shape, jnp.float64)
            ahead, behind = (loss_and_gradient(start + by * direction)[0] for by in (1e-6, -1e-6))
            np.testing.assert_allclose(gradient @ direction, (ahead - behind) / 2e-6, rtol=1e-5)
