"""The training objective: negative ELBO = reconstruction + beta * KL, in nats per image.

Of a map of latents, the reconstruction counts the more the finer the step of an image: its error
over the square of the step, as the noise of that step is what the error comes from.  The loss of an
image is then taken times its step, or fine steps, which leave more bits, would outweigh all others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from cvae_jax import prior
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


def rate(output: VAEOutput) -> Array:
    """KL(q(z | x) || p(z)) of each image, ``[B]`` nats.

    Of a map it is that of the sample that was decoded: q is uniform over a bin, so that it is minus
    the logarithm of the prior's probability of that bin.
    """
    return kl(output.posterior) if output.coded is None else prior.nats(output.coded)


def per_image(
    output: VAEOutput, images: Array, reconstruction: str = "bce", beta: float = 1.0
) -> dict[str, Array]:
    """The loss of each image and what it is made of, ``[B]`` each."""
    distortion, nats = RECONSTRUCTIONS[reconstruction](output.logits, images), rate(output)
    if output.coded is None:
        loss = distortion + beta * nats
    else:
        step = output.coded.step
        loss = distortion / step + beta * step * nats
    return {"loss": loss, reconstruction: distortion, "kl": nats}


def elbo(
    output: VAEOutput, images: Array, reconstruction: str = "bce", beta: float = 1.0
) -> tuple[Array, dict[str, Array]]:
    """The training loss and its parts, means over the batch: ``(scalar, metrics)``."""
    terms = per_image(output, images, reconstruction, beta)
    metrics = {name: jnp.mean(values) for name, values in terms.items()}
    return metrics["loss"], metrics
