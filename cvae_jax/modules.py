"""The network: ``Encoder``, ``Decoder`` and the ``CVAE`` that joins them (Flax Linen).

There is no randomness here: the reparameterisation trick takes its noise as an argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from cvae_jax import conv
from cvae_jax.config import ModelConfig
from cvae_jax.pixels import to_unit

Params = dict[str, Any]  # a tree of named arrays, as Flax makes it

DEFAULT_MODEL = ModelConfig()
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
    # The dtype is named because the default one is float64 under JAX_ENABLE_X64.
    kernel = layer.param("kernel", nn.initializers.glorot_uniform(), shape, jnp.float32)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
    return kernel.astype(layer.dtype), bias.astype(layer.dtype)


def _at_least_float32(x: Array) -> Array:
    """Losses are never computed in bfloat16, whatever the network computes in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dense(nn.Module):
    """``[B, K] -> [B, features]``."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, x.shape[-1], self.features)
        return conv.matmul(x, kernel) + bias


class Conv(nn.Module):
    """``[B, H, W, C] -> [B, ceil(H/2), ceil(W/2), features]``."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, *KERNEL, x.shape[-1], self.features)
        return conv.conv(x, kernel, STRIDE) + bias


class ConvTranspose(nn.Module):
    """``[B, h, w, C] -> [B, *size, features]``."""

    features: int
    stride: int
    size: conv.Size
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, *KERNEL, x.shape[-1], self.features)
        return conv.conv_transpose(x, kernel, self.stride, self.size) + bias


class Encoder(nn.Module):
    """Images to the posterior's parameters: ``[B, H, W, C]`` in [0, 1] -> two ``[B, D]``."""

    config: ModelConfig
    dtype: DTypeLike = jnp.float32

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
    dtype: DTypeLike = jnp.float32

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
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)

    def __call__(self, images: Array, noise: Array | None = None) -> VAEOutput:
        posterior = self.encoder(images)
        z = posterior.z_mean if noise is None else posterior.sample(noise)
        return VAEOutput(self.decoder(z), posterior)


# The network as pure functions of parameters and arrays, for use inside jitted code.


def autoencode(
    params: Params,
    images: Array,
    noise: Array | None,
    model: ModelConfig,
    dtype: DTypeLike = jnp.float32,
) -> VAEOutput:
    """What the whole autoencoder makes of images, as for ``encode``; noise as for ``CVAE``."""
    return _apply(CVAE(model, dtype), params, to_unit(images), noise)


def encode(params: Params, images: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Latents, the posterior's means: ``[B, H, W, C]``, uint8 or in [0, 1], -> ``[B, D]``."""
    return posterior(params, images, model).z_mean


def posterior(params: Params, images: Array, model: ModelConfig = DEFAULT_MODEL) -> Posterior:
    """Means and log-variances of the latents: ``[B, H, W, C]`` as for ``encode`` -> two ``[B, D]``.

    Raises:
      DataError: integers other than uint8, whose scale is unknown.
    """
    return _apply(Encoder(model), params["encoder"], to_unit(images))


def decode(params: Params, z: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Images in [0, 1] of latents: ``[B, D] -> [B, H, W, C]``."""
    return jax.nn.sigmoid(_apply(Decoder(model), params["decoder"], z))


def _apply(module: nn.Module, params: Params, *arguments: Any) -> Any:
    return module.apply({"params": params}, *arguments)


def init_params(config: ModelConfig, key: Array) -> Params:
    """Fresh parameters, ``{"encoder": {...}, "decoder": {...}}``, float32."""
    images = jnp.zeros((1, *config.image_shape), jnp.float32)
    return jax.jit(CVAE(config).init)(key, images)["params"]


def abstract_params(config: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters, nothing computed or allocated.

    Written out, as having JAX trace ``init_params`` for them takes longer than encoding an image.
    """
    size = config.height, config.width
    for _ in config.filters:
        size = conv.output_size(size, STRIDE)
    filters, width = (config.channels, *config.filters), config.dense_width
    flat = size[0] * size[1] * filters[-1]

    def layers(**kernels: tuple[int, ...]) -> Params:
        def array(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        return {
            name: {"kernel": array(shape), "bias": array(shape[-1:])}
            for name, shape in kernels.items()
        }

    convs = {f"conv_{i}": (*KERNEL, *filters[i : i + 2]) for i in range(len(config.filters))}
    upward = [filters[-1], *filters[:0:-1]]  # channels before and after each transposed convolution
    deconvs = {f"deconv_{i}": (*KERNEL, *upward[i : i + 2]) for i in range(len(config.filters))}
    latents = {name: (width, config.latent_dim) for name in ("z_mean", "z_log_var")}
    return {
        "encoder": layers(**convs, dense=(flat, width), **latents),
        "decoder": layers(
            dense=(config.latent_dim, flat), **deconvs, output=(*KERNEL, upward[-1], filters[0])
        ),
    }


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, like ``decoder/dense/bias``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
