"""The network: ``Encoder``, ``Decoder`` and the ``CVAE`` that joins them (Flax Linen).

The latents are one dense vector, or a map of vectors (``ModelConfig.latent_map``), which has a
prior of its own.  Either way they are handed around as ``[B, D]``; of a map row by row, the
channels of a place together.

There is no randomness here: the reparameterisation trick takes its noise as an argument.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from cvae_jax import conv
from cvae_jax.config import ModelConfig, Size
from cvae_jax.layers import (
    KERNEL,
    STRIDE,
    Conv,
    ConvTranspose,
    Dense,
    Residual,
    at_least_float32,
    convolved,
)
from cvae_jax.pixels import to_unit
from cvae_jax.prior import SCALE, Coded, MapPrior, drawn_step, kernel_shapes, uniform

Params = dict[str, Any]  # a tree of named arrays, as Flax makes it

DEFAULT_MODEL = ModelConfig()


class Posterior(NamedTuple):
    """q(z | x), one row per image: N(z_mean, diag(exp(z_log_var))).

    Of a map: uniform, half a step of 1 to either side of z_mean, which is of that variance too.
    """

    z_mean: Array  # [B, D]
    z_log_var: Array  # [B, D]

    def sample(self, noise: Array) -> Array:
        """The reparameterisation trick (Kingma & Welling 2014, eq. 10).

        noise: N(0, I), [B, D]; of a map, uniform of the same mean and variance (``unit_noise``).
        """
        return self.z_mean + jnp.exp(self.z_log_var / 2) * noise


class VAEOutput(NamedTuple):
    logits: Array  # [B, H, W, C]; pixels are sigmoid(logits)
    posterior: Posterior
    coded: Coded | None = None  # the map of latents that was decoded


class Encoder(nn.Module):
    """Images to the posterior's parameters: ``[B, H, W, C]`` in [0, 1] -> two ``[B, D]``."""

    config: ModelConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Posterior:
        x = images.astype(self.dtype)
        for i, features in enumerate(self.config.filters):
            x = nn.relu(Conv(features, self.dtype, name=f"conv_{i}")(x))
        return self._map(x) if self.config.latent_map else self._dense(x)

    def _dense(self, x: Array) -> Posterior:
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(Dense(self.config.dense_width, self.dtype, name="dense")(x))
        z_mean = Dense(self.config.latent_dim, self.dtype, name="z_mean")(x)
        z_log_var = Dense(self.config.latent_dim, self.dtype, name="z_log_var")(x)
        return Posterior(at_least_float32(z_mean), at_least_float32(z_log_var))

    def _map(self, x: Array) -> Posterior:
        for i in range(self.config.blocks):
            x = Residual(self.dtype, name=f"block_{i}")(x)
        # A few steps wide from the start, or the noise of training drowns them.
        z_mean = convolved(x, self.config.latent_channels, self.dtype, "z_mean", gain=SCALE)
        z_mean = at_least_float32(z_mean).reshape(x.shape[0], -1)
        return Posterior(z_mean, jnp.full_like(z_mean, math.log(1 / 12)))


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
        filters, x = self.config.filters, z.astype(self.dtype)
        x = self._from_map(x) if self.config.latent_map else self._from_dense(x, sizes[-1])
        for i, (features, size) in enumerate(zip(filters[::-1], sizes[-2::-1], strict=True)):
            x = nn.relu(ConvTranspose(features, STRIDE, size, self.dtype, name=f"deconv_{i}")(x))
        x = ConvTranspose(self.config.channels, 1, sizes[0], self.dtype, name="output")(x)
        return at_least_float32(x)

    def _from_dense(self, x: Array, size: Size) -> Array:
        shape = *size, self.config.filters[-1]
        x = nn.relu(Dense(math.prod(shape), self.dtype, name="dense")(x))
        return x.reshape(x.shape[0], *shape)

    def _from_map(self, x: Array) -> Array:
        x, width = as_map(x, self.config), self.config.filters[-1]
        x = nn.relu(convolved(x, width, self.dtype, "input", gain=1 / SCALE))
        for i in range(self.config.blocks):
            x = Residual(self.dtype, name=f"block_{i}")(x)
        return x


class CVAE(nn.Module):
    """The whole autoencoder.

    noise: ~ N(0, 1), ``[B, D]``, decodes a sample of the posterior, and None z_mean.  Of a map, the
    sample is at a step of 1, or with ``[B, D + 1]`` at one that the last column draws.
    """

    config: ModelConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)
        if self.config.latent_map:
            self.prior = MapPrior(self.config.latent_channels, self.dtype)

    def __call__(self, images: Array, noise: Array | None = None) -> VAEOutput:
        posterior = self.encoder(images)
        if self.config.latent_map:
            return self._by_map(posterior, noise)
        z = posterior.z_mean if noise is None else posterior.sample(noise)
        return VAEOutput(self.decoder(z), posterior)

    def _by_map(self, posterior: Posterior, noise: Array | None) -> VAEOutput:
        z, latents = posterior.z_mean, self.config.latents
        step = jnp.ones_like(z[:, 0])
        if noise is not None:
            if noise.shape[1] > latents:
                step = drawn_step(noise[:, latents])
            z = z + step[:, None] * (uniform(noise[:, :latents]) - 0.5)
        latent_map = as_map(z, self.config)
        coded = Coded(latent_map, step, self.prior(latent_map, step))
        return VAEOutput(self.decoder(z), posterior, coded)


def as_map(z: Array, config: ModelConfig) -> Array:
    """Latents ``[B, D]`` of a map as ``[B, h, w, C]``."""
    assert config.latent_map
    return z.reshape(-1, *config.latent_map)


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


def from_prior(params: Params, noise: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Latents drawn from the prior, at a step of 1: ``[B, D]`` of N(0, 1) to the same."""
    if not model.latent_map:
        return noise
    prior, noise = MapPrior(model.latent_channels), as_map(noise, model)
    z: Any = prior.apply({"params": params["prior"]}, noise, method=MapPrior.draw)
    return z.reshape(-1, model.latents)


def unit_noise(key: Array, n: int, model: ModelConfig) -> Array:
    """What ``Posterior.sample`` takes, of mean 0 and variance 1, ``[n, D]``."""
    shape = n, model.latents
    if model.latent_map:
        return jax.random.uniform(key, shape, jnp.float32, -math.sqrt(3), math.sqrt(3))
    return jax.random.normal(key, shape, jnp.float32)


def _apply(module: nn.Module, params: Params, *arguments: Any) -> Any:
    return module.apply({"params": params}, *arguments)


def init_params(config: ModelConfig, key: Array) -> Params:
    """Fresh parameters, float32: ``{"encoder": {...}, "decoder": {...}}``, of a map ``prior``
    too."""
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
    last, flat = filters[-1], size[0] * size[1] * filters[-1]

    convs = {f"conv_{i}": (*KERNEL, *filters[i : i + 2]) for i in range(len(config.filters))}
    upward = [last, *filters[:0:-1]]  # channels before and after each transposed convolution
    deconvs = {f"deconv_{i}": (*KERNEL, *upward[i : i + 2]) for i in range(len(config.filters))}
    deconvs["output"] = (*KERNEL, upward[-1], filters[0])
    if not config.latent_map:
        latents = {name: (width, config.latent_dim) for name in ("z_mean", "z_log_var")}
        return {
            "encoder": _layers(**convs, dense=(flat, width), **latents),
            "decoder": _layers(dense=(config.latent_dim, flat), **deconvs),
        }
    channels = config.latent_channels
    block = _layers(first=(*KERNEL, last, last), second=(*KERNEL, last, last))
    blocks = {f"block_{i}": block for i in range(config.blocks)}
    return {
        "encoder": {**_layers(**convs, z_mean=(*KERNEL, last, channels)), **blocks},
        "decoder": {**_layers(input=(*KERNEL, channels, last), **deconvs), **blocks},
        "prior": _layers(**kernel_shapes(channels)),
    }


def _layers(**kernels: tuple[int, ...]) -> Params:
    """Kernels and biases of layers, by the shapes of their kernels."""

    def array(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    return {
        name: {"kernel": array(shape), "bias": array(shape[-1:])} for name, shape in kernels.items()
    }


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, like ``decoder/dense/bias``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
