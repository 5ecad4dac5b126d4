"""How far one image is from another: MSE, PSNR and SSIM, for images in [0, 1]."""

from __future__ import annotations

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

Window = Literal["gaussian", "uniform"]

K1, K2 = 0.01, 0.03
LUMA = (0.299, 0.587, 0.114)  # BT.601, of red, green and blue


def mse(x: Array, y: Array) -> Array:
    """Mean squared error of each image: ``[N, H, W, C]`` x2 -> ``[N]``."""
    return jnp.mean((x - y) ** 2, axis=(1, 2, 3))


def mse_of_channels(x: Array, y: Array) -> Array:
    """Mean squared error of each image's channels: ``[N, H, W, C]`` x2 -> ``[N, C]``."""
    return jnp.mean((x - y) ** 2, axis=(1, 2))


def luma(levels: Array) -> Array:
    """Brightness of colour images: uint8 ``[N, H, W, 3]`` -> ``[N, H, W, 1]`` in [0, 1].

    BT.601 with its full range, Y = 0.299 R + 0.587 G + 0.114 B, of the 8-bit levels (divided by
    255, and not rounded again): that of JPEG.
    """
    red, green, blue = (levels[..., i : i + 1].astype(jnp.float32) for i in range(3))
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue) / 255


def mse_of_levels(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared error over all of two uint8 arrays of one shape, levels counted as 0 to 1."""
    return float(np.mean((x.astype(np.float32) - y) ** 2, dtype=np.float64)) / 255**2


def mse_of_each(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, uint8 ``[N, H, W, C]`` x2 -> ``[N]``; levels as above."""
    squared = (x.astype(np.float32) - y) ** 2
    return squared.reshape(len(x), -1).mean(1, dtype=np.float64) / 255**2


def largest_error(x: np.ndarray, y: np.ndarray) -> int:
    """By how many levels two uint8 arrays of one shape differ at most."""
    return int((np.maximum(x, y) - np.minimum(x, y)).max(initial=0))


def psnr(mse: Array | np.ndarray | float) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of a mean squared error; infinite where it is 0."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.asarray(mse, np.float64))


def ssim(x: Array, y: Array, window: Window = "gaussian") -> Array:
    """Structural similarity of each image: ``[N, H, W, C]`` x2 -> ``[N]``, the mean over its
    channels of ``ssim_of_channels``."""
    return jnp.mean(ssim_of_channels(x, y, window), axis=1)


def ssim_of_channels(x: Array, y: Array, window: Window = "gaussian") -> Array:
    """Structural similarity of each channel: ``[N, H, W, C]`` x2 -> ``[N, C]``, data range 1.

    ``gaussian``: 11x11, sigma 1.5, population covariance (Wang et al. 2004), which is
    scikit-image's ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.
    ``uniform``: 7x7, sample covariance, which is scikit-image's default.
    Windows that cross the border are left out.

    Raises:
      ValueError: the image is smaller than the window.
    """
    weights = _gaussian(11, 1.5) if window == "gaussian" else np.full(7, 1 / 7)
    pixels = len(weights) ** 2
    bessel = 1.0 if window == "gaussian" else pixels / (pixels - 1)
    rows, cols = (_sliding(weights, size) for size in x.shape[1:3])

    def local_mean(image: Array) -> Array:
        return jnp.einsum("ih,nhwc,jw->nijc", rows, image, cols)

    mean_x, mean_y = local_mean(x), local_mean(y)
    var_x = bessel * (local_mean(x * x) - mean_x**2)
    var_y = bessel * (local_mean(y * y) - mean_y**2)
    cov = bessel * (local_mean(x * y) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * cov + K2**2) / (var_x + var_y + K2**2)
    return jnp.mean(luminance * structure, axis=(1, 2))


def bits_per_dim(nats: float, image_shape: tuple[int, ...]) -> float:
    """Nats per image as bits per pixel and channel."""
    return nats / math.log(2) / math.prod(image_shape)


def active_units(variance: np.ndarray, threshold: float = 0.01) -> int:
    """Latent dimensions that are used: Var_x(z_mean) > 0.01 (Burda et al. 2016); ``[D]``."""
    return int(np.sum(variance > threshold))


def _gaussian(size: int, sigma: float) -> np.ndarray:
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def _sliding(weights: np.ndarray, size: int) -> np.ndarray:
    """The matrix that slides a window along ``size`` pixels: ``[size - len + 1, size]``."""
    if size < len(weights):
        raise ValueError(f"SSIM needs images of at least {len(weights)} pixels a side, not {size}")
    matrix = np.zeros((size - len(weights) + 1, size), np.float32)
    for i, row in enumerate(matrix):
        row[i : i + len(weights)] = weights
    return matrix
