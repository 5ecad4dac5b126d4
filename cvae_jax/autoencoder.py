"""A trained autoencoder, ready for use: images to latents and back.

What goes in is checked, any number of images goes through in bounded memory, and under ``jax.jit``,
``vmap`` and ``grad`` the methods are the pure functions of ``modules``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax import pixels
from cvae_jax.backend import Batched
from cvae_jax.config import ModelConfig
from cvae_jax.errors import CheckpointError, ConfigError
from cvae_jax.modules import (
    Params,
    Posterior,
    decode,
    encode,
    from_prior,
    posterior,
    unit_noise,
)
from cvae_jax.runs.record import Record


@dataclass(frozen=True, eq=False, repr=False)
class Autoencoder:
    """A model and its parameters.

    One that came with an archive has neither a record nor parameters, and only reads files.
    """

    model: ModelConfig
    params: Params
    record: Record | None = None  # of how it was made; None if it came with an archive
    # Height and width of images, where the model is that of the next larger size (``sized``).
    size: tuple[int, int] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        h, w, channels = self.model.image_shape
        return (*(self.size or (h, w)), channels)

    @property
    def latent_dim(self) -> int:
        """How many numbers an image is encoded to."""
        return self.model.latents

    # The compiled functions close over the parameters: XLA then lays the kernels out once, when it
    # compiles.  As arguments they would be laid out at every call: half the time of one image.

    @functools.cached_property
    def _posterior(self) -> Batched:
        return Batched(lambda images: posterior(self.params, self._padded(images), self.model))

    @functools.cached_property
    def _z_mean(self) -> Batched:
        return Batched(lambda images: encode(self.params, self._padded(images), self.model))

    @functools.cached_property
    def _pixels(self) -> Batched:
        h, w, _ = self.image_shape
        return Batched(lambda z: decode(self.params, z, self.model)[:, :h, :w])

    def _padded(self, images: Array) -> Array:
        """Images to the model's size: their last row and column are repeated."""
        (h, w, _), (height, width, _) = self.image_shape, self.model.image_shape
        beyond = (0, 0), (0, height - h), (0, width - w), (0, 0)
        return jnp.pad(images, beyond, mode="edge") if self.size else images

    @functools.cached_property
    def _drawn(self) -> Batched:
        return Batched(lambda noise: from_prior(self.params, noise, self.model))

    def made_by(self) -> Record:
        """The record of how it was made.

        Raises:
          CheckpointError: this codec came with an archive, so it has none and only reads files.
        """
        if self.record is None:
            raise CheckpointError(
                "this model came with an archive, and only reads files; name the checkpoint instead"
            )
        return self.record

    def _images(self, images: Any) -> Any:
        self.made_by()  # refuses a codec that cannot encode
        return pixels.as_images(images, self.image_shape)

    def encode(self, images: Any) -> np.ndarray:
        """The latents of images, ``[N, D]`` float32: the posterior's means, always the same.

        images: uint8, or float in [0, 1]; ``[N, H, W, C]``, or ``[N, H, W]``, ``[H, W, C]``,
        ``[H, W]`` (the last two give ``[1, D]``); N may be 0.

        Raises:
          DataError: the size, dtype or range is wrong, or there is NaN.
          CheckpointError: this codec came with an archive, and has no encoder.
        """
        return self._z_mean(self._images(images))

    def posterior(self, images: Any) -> Posterior:
        """Means and log-variances of the latents, two ``[N, D]``; input as for ``encode``."""
        return self._posterior(self._images(images))

    def decode(self, z: Any) -> np.ndarray:
        """Images in [0, 1], float32 ``[N, H, W, C]``, of latents ``[N, D]`` or ``[D]``.

        Raises:
          DataError: the shape or dtype is wrong, or a value is not finite.
          CheckpointError: this codec came with an archive, and has no float decoder.
        """
        self.made_by()
        return self._pixels(pixels.as_latents(z, self.latent_dim))

    def sample(self, key: Array | int, n: int) -> np.ndarray:
        """``n`` images decoded from the prior, float32 ``[n, H, W, C]``; the key decides which.

        key: ``jax.random.key(seed)``, or the seed.

        Raises:
          ConfigError: the key or the number of images is not valid.
          CheckpointError: as for ``decode``.
        """
        if not isinstance(n, int | np.integer) or n < 0:
            raise ConfigError(f"expected a number of images, 0 or more, not {n!r:.60}")
        self.made_by()
        z: Any = jax.random.normal(pixels.as_key(key), (int(n), self.latent_dim), np.float32)
        if self.model.latent_map:
            z = self._drawn(z if pixels.is_traced(z) else np.asarray(z))
        return self.decode(z)

    def sample_posterior(self, key: Array | int, images: Any) -> np.ndarray:
        """One random latent per image from its posterior, ``[N, D]``; key as for ``sample``."""
        posterior = self.posterior(images)
        noise = unit_noise(pixels.as_key(key), len(posterior.z_mean), self.model)
        z: Any = posterior.sample(noise)
        return z if pixels.is_traced(z) else np.asarray(z)
