"""The training objective: negative ELBO = reconstruction + beta * KL, in nats per image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from cvae_jax.modules import Posterior, VAEOutput


def bce(logits: Array, images: Array) -> Array:
    """Binary cross-entropy of each image, summed over pixels: ``[B, H, W, C]`` x2 -> ``[B]`` nats.

    From logits, so that no probability is ever rounded to 0 or 1; images are in [0, 1].
    """
    # -x log s(l) - (1 - x) log(1 - s(l)) = softplus(l) - l x
    return jnp.sum(jax.nn.softplus(logits) - logits * images, axis=(1, 2, 3))


def squared_error(logits: Array, images: Array) -> Array:
    """Squared error of each image, summed over pixels: ``[B, H, W, C]`` x2 -> ``[B]``.

    Up to a constant the negative log-likelihood of a Gaussian of variance 1/2.
    """
    return jnp.sum((jax.nn.sigmoid(logits) - images) ** 2, axis=(1, 2, 3))


RECONSTRUCTIONS = {"bce": bce, "mse": squared_error}


def kl(posterior: Posterior) -> Array:
    """KL(q(z | x) || N(0, I)) of each image, ``[B]`` nats (Kingma & Welling 2014, appendix B)."""
    z_mean, z_log_var = posterior
    return 0.5 * jnp.sum(z_mean**2 + jnp.exp(z_log_var) - 1 - z_log_var, axis=1)


def per_image(
    output: VAEOutput, images: Array, reconstruction: str = "bce", beta: float = 1.0
) -> dict[str, Array]:
    """The loss of each image and what it is made of, ``[B]`` each."""
    distortion = RECONSTRUCTIONS[reconstruction](output.logits, images)
    rate = kl(output.posterior)
    return {"loss": distortion + beta * rate, reconstruction: distortion, "kl": rate}


def elbo(
    output: VAEOutput, images: Array, reconstruction: str = "bce", beta: float = 1.0
) -> tuple[Array, dict[str, Array]]:
    """The training loss and its parts, means over the batch: ``(scalar, metrics)``."""
    terms = per_image(output, images, reconstruction, beta)
    metrics = {name: jnp.mean(values) for name, values in terms.items()}
    return metrics["loss"], metrics
