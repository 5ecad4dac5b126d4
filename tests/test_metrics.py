"""The metrics agree with scikit-image and with their definitions."""

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cvae_jax import metrics

RNG = np.random.default_rng(0)
SETTINGS = {
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {},
}


@pytest.mark.parametrize("window", SETTINGS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (17, 23, 3)])
def test_ssim_is_scikit_images(window, shape):
    x = RNG.random((4, *shape), np.float32)
    y = np.clip(x + RNG.normal(0, [[[[0.01]]], [[[0.1]]], [[[0.5]]], [[[0]]]], x.shape), 0, 1)
    y = y.astype(np.float32)
    expected = [
        structural_similarity(a, b, data_range=1, channel_axis=-1, **SETTINGS[window])
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(x, y, window), expected, atol=1e-4)


def test_channels_are_measured_as_grey_images_and_their_mean_is_the_whole():
    x, y = RNG.random((2, 5, 17, 23, 3), np.float32)
    for whole, of_channels in (
        (metrics.mse, metrics.mse_of_channels),
        (metrics.ssim, metrics.ssim_of_channels),
    ):
        alone = [whole(x[..., i : i + 1], y[..., i : i + 1]) for i in range(3)]
        np.testing.assert_allclose(of_channels(x, y), np.stack(alone, 1), rtol=1e-5)
        np.testing.assert_allclose(whole(x, y), np.mean(alone, 0), rtol=1e-5)


def test_luma_is_jpegs():
    """As Pillow converts to YCbCr, which is JPEG's, but for its rounding to levels."""
    levels = RNG.integers(0, 256, (4, 9, 7, 3), np.uint8)
    expected = [np.asarray(Image.fromarray(x).convert("YCbCr"))[..., :1] for x in levels]
    np.testing.assert_allclose(255 * metrics.luma(levels), expected, atol=1)
    grey = np.repeat(levels[..., :1], 3, axis=3)
    np.testing.assert_allclose(metrics.luma(grey), grey[..., :1] / 255, atol=1e-6)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(np.zeros((1, 10, 20, 1)), np.zeros((1, 10, 20, 1)))


def test_psnr_is_scikit_images():
    x, y = RNG.random((2, 8, 8, 1)), RNG.random((2, 8, 8, 1))
    expected = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(metrics.psnr(metrics.mse(x, y)), expected, rtol=1e-5)
    assert metrics.psnr(0.0) == np.inf


def test_bits_per_dim_and_active_units():
    assert metrics.bits_per_dim(784 * np.log(2), (28, 28, 1)) == pytest.approx(1.0)
    assert metrics.active_units(np.array([1.0, 0.0001, 0.04])) == 2
