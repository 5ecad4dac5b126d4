"""The network: ``Encoder``, ``Decoder`` and the ``CVAE`` that joins them (Flax Linen).

No randomness in here: the reparameterisation trick takes its noise as an argument.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from cvae_jax import conv
from cvae_jax.config import ModelConfig

KERNEL = (3, 3)
STRIDE = 2


class Posterior(NamedTuple):
    """q(z | x) = N(z_mean, diag(exp(z_log_var))), one row per image."""

    z_mean: Array  # [B, D]
    z_log_var: Array  # [B, D]

    def sample(self, noise: Array) -> Array:
        """The reparameterisation trick (Kingma & Welling 2014, eq. 10): noise ~ N(0, I), [B, D]."""
        return self.z_mean + jnp.exp(self.z_log_var / 2) * noise


class VAEOutput(NamedTuple):
    logits: Array  # [B, H, W, C]; pixels are sigmoid(logits)
    posterior: Posterior


def _kernel_and_bias(layer: nn.Module, *shape: int) -> tuple[Array, Array]:
    """Glorot-uniform and zero, named as Linen names them; kept in float32, used in layer.dtype."""
    kernel = layer.param("kernel", nn.initializers.glorot_uniform(), shape)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:])
    return kernel.astype(layer.dtype), bias.astype(layer.dtype)


def _at_least_float32(x: Array) -> Array:
    """Losses are never computed in bfloat16, whatever the network computes in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dense(nn.Module):
    """``[B, K] -> [B, features]``."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, x.shape[-1], self.features)
        return conv.matmul(x, kernel) + bias


class Conv(nn.Module):
    """``[B, H, W, C] -> [B, ceil(H/2), ceil(W/2), features]``."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, *KERNEL, x.shape[-1], self.features)
        return conv.conv(x, kernel, STRIDE) + bias


class ConvTranspose(nn.Module):
    """``[B, h, w, C] -> [B, *size, features]``."""

    features: int
    stride: int
    size: conv.Size
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, *KERNEL, x.shape[-1], self.features)
        return conv.conv_transpose(x, kernel, self.stride, self.size) + bias


class Encoder(nn.Module):
    """Images to the posterior's parameters: ``[B, H, W, C]`` in [0, 1] -> two ``[B, D]``."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Posterior:
        x = images.astype(self.dtype)
        for i, features in enumerate(self.config.filters):
            x = nn.relu(Conv(features, self.dtype, name=f"conv_{i}")(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(Dense(self.config.dense_width, self.dtype, name="dense")(x))
        z_mean = Dense(self.config.latent_dim, self.dtype, name="z_mean")(x)
        z_log_var = Dense(self.config.latent_dim, self.dtype, name="z_log_var")(x)
        return Posterior(_at_least_float32(z_mean), _at_least_float32(z_log_var))


class Decoder(nn.Module):
    """Latents to the logits of pixels: ``[B, D] -> [B, H, W, C]``."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        # sizes[i] is what the encoder's first i convolutions leave of the image.
        sizes = [(self.config.height, self.config.width)]
        for _ in self.config.filters:
            sizes.append(conv.output_size(sizes[-1], STRIDE))
        (h, w), filters = sizes[-1], self.config.filters

        x = z.astype(self.dtype)
        x = nn.relu(Dense(h * w * filters[-1], self.dtype, name="dense")(x))
        x = x.reshape(x.shape[0], h, w, filters[-1])
        for i, (features, size) in enumerate(zip(filters[::-1], sizes[-2::-1], strict=True)):
            x = nn.relu(ConvTranspose(features, STRIDE, size, self.dtype, name=f"deconv_{i}")(x))
        x = ConvTranspose(self.config.channels, 1, sizes[0], self.dtype, name="output")(x)
        return _at_least_float32(x)


class CVAE(nn.Module):
    """The whole autoencoder; ``noise=None`` decodes z_mean, else a sample (see Posterior)."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)

    def __call__(self, images: Array, noise: Array | None = None) -> VAEOutput:
        posterior = self.encoder(images)
        z = posterior.z_mean if noise is None else posterior.sample(noise)
        return VAEOutput(self.decoder(z), posterior)


def init_params(config: ModelConfig, key: Array) -> dict:
    """Fresh parameters, ``{"encoder": {...}, "decoder": {...}}``, float32."""
    images = jnp.zeros((1, config.height, config.width, config.channels))
    return jax.jit(CVAE(config).init)(key, images)["params"]


def abstract_params(config: ModelConfig) -> dict:
    """Shapes and dtypes of the parameters, nothing computed or allocated."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
