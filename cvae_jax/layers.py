"""What the networks are made of (Flax Linen)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from cvae_jax import conv
from cvae_jax.config import Size

KERNEL = (3, 3)
STRIDE = 2


def kernel_and_bias(layer: nn.Module, *shape: int, gain: float = 1.0) -> tuple[Array, Array]:
    """Glorot-uniform times gain, and zero, named as Linen names them; kept in float32, used in
    layer.dtype."""
    # The dtype is named because the default one is float64 under JAX_ENABLE_X64.
    glorot = nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")
    kernel = layer.param("kernel", glorot, shape, jnp.float32)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
    return kernel.astype(layer.dtype), bias.astype(layer.dtype)


def at_least_float32(x: Array) -> Array:
    """Losses are never computed in bfloat16, whatever the network computes in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dense(nn.Module):
    """``[..., K] -> [..., features]``; gain: as for ``kernel_and_bias``."""

    features: int
    dtype: DTypeLike
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = kernel_and_bias(self, x.shape[-1], self.features, gain=self.gain)
        return conv.matmul(x, kernel) + bias


class Conv(nn.Module):
    """``[B, H, W, C] -> [B, ceil(H/2), ceil(W/2), features]``."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = kernel_and_bias(self, *KERNEL, x.shape[-1], self.features)
        return conv.conv(x, kernel, STRIDE) + bias


class ConvTranspose(nn.Module):
    """``[B, h, w, C] -> [B, *size, features]``; gain: as for ``kernel_and_bias``."""

    features: int
    stride: int
    size: Size
    dtype: DTypeLike
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = kernel_and_bias(self, *KERNEL, x.shape[-1], self.features, gain=self.gain)
        return conv.conv_transpose(x, kernel, self.stride, self.size) + bias


def convolved(x: Array, features: int, dtype: DTypeLike, name: str, gain: float = 1.0) -> Array:
    """What a convolution of stride 1, a layer of the module that calls, makes of ``[B, h, w, C]``.

    A transposed one, of which the kernel is flipped: here it is several times faster.
    """
    _, h, w, _ = x.shape
    return ConvTranspose(features, 1, (h, w), dtype, gain, name=name)(x)


class Residual(nn.Module):
    """``relu(x + second(relu(first(x))))``, of the shape of x, ``[B, h, w, C]``."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inner = nn.relu(convolved(x, x.shape[-1], self.dtype, "first"))
        # Small, so that a block begins near the identity.
        return nn.relu(x + convolved(inner, x.shape[-1], self.dtype, "second", gain=0.1))
