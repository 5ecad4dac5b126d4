"""The report's summary are what their names say."""

import jax
import numpy as np
import pytest

from cvae_jax import evaluation, losses
from cvae_jax.config import Config
from cvae_jax.data.sources import open_source, source
from cvae_jax.modules import CVAE, init_params

CONFIG = Config().replace(height=12, width=12, latent_dim=3, filters=(4,), dense_width=8)
PARAMS = init_params(CONFIG.model, jax.random.key(0))
IMAGES = np.random.default_rng(0).integers(0, 256, (70, 12, 12, 1), np.uint8)


@pytest.fixture(scope="module")
def result():
    return evaluation.evaluate(CONFIG.model, PARAMS, IMAGES)


def test_summary_follow_from_the_model(result):
    x = IMAGES / np.float32(255)
    output = CVAE(CONFIG.model).apply({"params": PARAMS}, x)
    pixels = jax.nn.sigmoid(output.logits)
    mse = np.mean((np.asarray(pixels) - x) ** 2, axis=(1, 2, 3))
    summary = result.summary["deterministic"]
    assert summary["mse"] == pytest.approx(float(mse.mean()), rel=1e-5)
    assert summary["psnr_of_mean_mse"] == pytest.approx(-10 * np.log10(mse.mean()), rel=1e-5)
    assert summary["mean_psnr"] == pytest.approx((-10 * np.log10(mse)).mean(), rel=1e-5)
    assert summary["bce"] == pytest.approx(float(losses.bce(output.logits, x).mean()), rel=1e-5)
    assert summary["kl"] == pytest.approx(float(losses.kl(output.posterior).mean()), rel=1e-5)
    assert summary["negative_elbo"] == pytest.approx(summary["bce"] + summary["kl"])
    nats_per_pixel = summary["negative_elbo"] / 144
    assert summary["bits_per_dim"] == pytest.approx(nats_per_pixel / np.log(2))
    levels = evaluation.reconstruct(CONFIG.model, PARAMS, IMAGES)
    np.testing.assert_allclose(levels, np.round(pixels * 255), atol=1)


def test_the_sampled_summary_are_those_of_a_sample(result):
    noise = evaluation.noise_for(0, len(IMAGES), 3)
    output = CVAE(CONFIG.model).apply({"params": PARAMS}, IMAGES / np.float32(255), noise)
    expected = float(losses.bce(output.logits, IMAGES / np.float32(255)).mean())
    assert result.summary["sampled"]["bce"] == pytest.approx(expected, rel=1e-5)


def test_an_images_noise_does_not_depend_on_how_many_there_are():
    np.testing.assert_array_equal(evaluation.noise_for(1, 5, 3), evaluation.noise_for(1, 9, 3)[:5])


def test_images_on_disk_have_the_same_numbers_bit_for_bit(result, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", IMAGES)
    on_disk = open_source(tmp_path / "x.npy")
    monkeypatch.setattr(source, "BLOCK_BYTES", 32 * 144)
    assert len(list(source.blocks(on_disk))) == 3
    read = evaluation.evaluate(CONFIG.model, PARAMS, on_disk)
    assert read.summary == result.summary
    for name, values in result.per_image.items():
        np.testing.assert_array_equal(read.per_image[name], values)


def test_validation_loss_is_the_training_loss():
    noise = evaluation.noise_for(0, len(IMAGES), 3)
    x = IMAGES / np.float32(255)
    for settings in ({}, {"reconstruction": "mse", "beta": 0.1}):
        config = CONFIG.replace(**settings)
        output = CVAE(config.model).apply({"params": PARAMS}, x, noise)
        expected, _ = losses.elbo(output, x, config.train.reconstruction, config.train.beta)
        measured = evaluation.validation_loss(config, PARAMS, IMAGES)
        assert measured == pytest.approx(float(expected), rel=1e-5)


def test_images_too_small_for_ssim_are_said_to_be():
    config = CONFIG.replace(height=8, width=9)
    params = init_params(config.model, jax.random.key(0))
    summary = evaluation.evaluate(config.model, params, IMAGES[:2, :8, :9]).summary
    assert "ssim" not in summary["deterministic"]
    assert "ssim_uniform" in summary["deterministic"]
    (row,) = [x for x in evaluation.table(summary).splitlines() if x.startswith("SSIM, Gauss")]
    assert "too small" in row


@pytest.fixture(scope="module")
def colour():
    """A colour model's evaluation, its images, and its reconstructions as they are, in [0, 1]."""
    config = CONFIG.replace(channels=3)
    params = init_params(config.model, jax.random.key(0))
    images = np.random.default_rng(1).integers(0, 256, (20, 12, 12, 3), np.uint8)
    output = CVAE(config.model).apply({"params": params}, images / np.float32(255))
    pixels = np.asarray(jax.nn.sigmoid(output.logits))
    return evaluation.evaluate(config.model, params, images), images, pixels


def test_colour_is_measured_by_channel_and_in_luma(colour):
    result, images, pixels = colour
    summary = result.summary["deterministic"]
    x = images / np.float32(255)
    for i, part in enumerate(("red", "green", "blue")):
        mse = np.mean((pixels - x)[..., i] ** 2, axis=(1, 2))
        mean = -10 * np.log10(mse.mean())
        assert summary[f"psnr_of_mean_mse_{part}"] == pytest.approx(mean, rel=1e-5)
        assert summary[f"mean_psnr_{part}"] == pytest.approx(-10 * np.log10(mse).mean(), rel=1e-5)
    luma = [np.rint(255 * a) @ (0.299, 0.587, 0.114) / 255 for a in (pixels, x)]
    mse = np.mean((luma[0] - luma[1]) ** 2)
    assert summary["psnr_of_mean_mse_luma"] == pytest.approx(-10 * np.log10(mse), rel=1e-4)
    ssim = evaluation.metrics.ssim(*(a[..., None].astype(np.float32) for a in luma)).mean()
    assert summary["ssim_luma"] == pytest.approx(float(ssim), rel=1e-4)
    channels = [summary[f"ssim_uniform_{part}"] for part in ("red", "green", "blue")]
    assert summary["ssim_uniform"] == pytest.approx(np.mean(channels), rel=1e-5)


def test_the_table_has_the_parts_of_colour_below_the_whole_and_none_of_grey(colour, result):
    lines = evaluation.table(colour[0].summary).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("SSIM, Gauss"))
    parts = [line.split()[0] for line in lines[at + 1 : at + 5]]
    assert parts == ["red", "green", "blue", "luma"]
    grey = evaluation.table(result.summary)
    assert len(grey.splitlines()) == 1 + len(evaluation.LABELS)
    assert not any(part in grey for part in parts)


def test_json_has_no_infinity():
    assert evaluation.to_json({"a": {"psnr": np.inf, "mse": 0.0}}) == {
        "a": {"psnr": None, "mse": 0.0}
    }
