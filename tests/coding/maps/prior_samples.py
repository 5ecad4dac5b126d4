"""Priors of small maps, and what they expect."""

import numpy as np

from benchmarks.fuzz.samples import random_prior
from cvae_jax.coding.maps.prior import MapPrior

__all__ = ["random_prior", "typical_latents"]


def typical_latents(prior: MapPrior, n: int, seed: int = 0) -> np.ndarray:
    """float32 ``[n, D]``."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, prior.latent_dim)) * prior.unit_size * 300).astype(np.float32)
