"""The codec: images to latents and back, from a checkpoint.

    from cvae_jax import codec

    c = codec.load("checkpoints/mnist")
    z = c.encode(images)            # [N, 16] float32
    x = c.decode(z)                 # [N, 28, 28, 1] float32 in [0, 1]

``encode`` and ``decode`` are also pure functions of parameters and arrays, for use inside
jitted code; ``Codec`` adds checked input, any number of images and bounded memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax import backend, checkpoint
from cvae_jax.batching import chunked, stream
from cvae_jax.config import Config, ModelConfig
from cvae_jax.errors import DataError
from cvae_jax.modules import Decoder, Encoder, Posterior, abstract_params

DEFAULT_MODEL = ModelConfig()


def encode(params: dict, images: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Latents, the posterior's means: ``[B, H, W, C]``, uint8 or in [0, 1], -> ``[B, D]``."""
    return posterior(params, images, model).z_mean


def posterior(params: dict, images: Array, model: ModelConfig = DEFAULT_MODEL) -> Posterior:
    """Means and log-variances of the latents: ``[B, H, W, C]`` as for ``encode`` -> two ``[B, D]``.

    Raises:
      DataError: integers other than uint8, whose scale is not known.
    """
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    elif not jnp.issubdtype(images.dtype, jnp.floating):
        raise DataError(f"expected images as uint8 or float in [0, 1], got {images.dtype}")
    return Encoder(model).apply({"params": params["encoder"]}, images)


def decode(params: dict, z: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Images in [0, 1] of latents: ``[B, D] -> [B, H, W, C]``."""
    return jax.nn.sigmoid(Decoder(model).apply({"params": params["decoder"]}, z))


@dataclass(frozen=True, eq=False)
class Codec:
    """A trained model, ready for use; make one with ``load``."""

    model: ModelConfig
    params: dict
    record: dict[str, Any]  # what the checkpoint says of its making: dataset, versions, ...

    # The jitted functions close over the parameters: XLA then lays the kernels out once, when it
    # compiles.  As arguments they would be laid out at every call, half of the time of one image.

    @functools.cached_property
    def _posterior(self) -> Callable[[Array], Posterior]:
        return jax.jit(chunked(lambda images: posterior(self.params, images, self.model)))

    @functools.cached_property
    def _z_mean(self) -> Callable[[Array], Array]:
        return jax.jit(chunked(lambda images: encode(self.params, images, self.model)))

    @functools.cached_property
    def _pixels(self) -> Callable[[Array], Array]:
        return jax.jit(chunked(lambda z: decode(self.params, z, self.model)))

    def encode(self, images: Any) -> np.ndarray:
        """The latents of images, ``[N, D]`` float32: the posterior's means, always the same.

        images: uint8, or float in [0, 1]; ``[N, H, W, C]``, or ``[N, H, W]``, ``[H, W, C]``,
        ``[H, W]`` (the last two give ``[1, D]``); N may be 0.

        Raises:
          DataError: another size, dtype or range, or NaN.
        """
        return stream(self._z_mean, self._images(images))

    def posterior(self, images: Any) -> Posterior:
        """Means and log-variances of the latents, two ``[N, D]``; input as for ``encode``."""
        return stream(self._posterior, self._images(images))

    def decode(self, z: Any) -> np.ndarray:
        """Images in [0, 1], float32 ``[N, H, W, C]``, of latents ``[N, D]`` or ``[D]``.

        Raises:
          DataError: another shape or dtype, or a value that is not finite.
        """
        try:
            z = np.asarray(z)
        except ValueError as error:
            raise DataError(f"expected an array of latents ({error})") from error
        if z.ndim == 1:
            z = z[None]
        d = self.model.latent_dim
        if z.ndim != 2 or z.shape[1] != d:
            raise DataError(f"expected latents of shape [N, {d}] or [{d}], got {list(z.shape)}")
        if z.dtype.kind not in "fiu":
            raise DataError(f"expected latents as numbers, got dtype {z.dtype}")
        with np.errstate(over="ignore"):  # infinity is refused next
            z = z.astype(np.float32, copy=False)
        if not np.isfinite(z).all():
            raise DataError("latents hold NaN or infinity; expected finite numbers")
        return stream(self._pixels, z)

    def sample(self, key: Array, n: int) -> np.ndarray:
        """``n`` images decoded from the prior, float32 ``[n, H, W, C]``; the key decides which."""
        return self.decode(jax.random.normal(key, (n, self.model.latent_dim)))

    def sample_posterior(self, key: Array, images: Any) -> np.ndarray:
        """One random latent per image from its posterior, ``[N, D]``; see ``encode``."""
        posterior = self.posterior(images)
        noise = jax.random.normal(key, posterior.z_mean.shape)
        return np.asarray(posterior.sample(noise))

    def _images(self, images: Any) -> np.ndarray:
        """Checked and brought to ``[N, H, W, C]``; not copied, however many they are."""
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise DataError(f"expected an array of images, all of one size ({error})") from error
        h, w, c = self.model.image_shape
        expected = f"expected images of {h}x{w}, {c} channel{'s' * (c > 1)}: "
        expected += f"[N, {h}, {w}, {c}] or [{h}, {w}, {c}]"
        expected += f", [N, {h}, {w}] or [{h}, {w}]" if c == 1 else ""
        shape = images.shape
        if shape == (h, w, c):
            images = images[None]
        elif c == 1 and (shape == (h, w) or (images.ndim == 3 and shape[1:] == (h, w))):
            images = images.reshape(-1, h, w, 1)
        if images.ndim != 4 or images.shape[1:] != (h, w, c):
            raise DataError(f"{expected}; got shape {list(shape)}")
        if images.dtype == np.uint8:
            return images
        if images.dtype.kind != "f":
            raise DataError(f"expected images as uint8 or float in [0, 1], got {images.dtype}")
        # One pass over the data, and NaN fails both comparisons.
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise DataError(
                "float images must lie in [0, 1] and hold no NaN; "
                f"got values from {images.min():g} to {images.max():g}"
            )
        return images


def load(path: str | Path) -> Codec:
    """The codec of a checkpoint: a workdir of train.py, a step inside it, or a released one.

    Raises:
      CheckpointError: nothing usable is there; the message says what was looked for.
    """
    backend.dispatch_inline()
    found = checkpoint.find(path)
    record = checkpoint.read_config(found)
    model = Config.from_dict(record["config"]).model
    params = checkpoint.restore(found, {"params": abstract_params(model)})["params"]
    return Codec(model, jax.device_put(params), record)
