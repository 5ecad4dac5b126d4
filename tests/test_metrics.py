"""The metrics agree with scikit-image and with their definitions."""

import numpy as np
import pytest
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
