"""How well a model does on a set of images: the numbers that every report shows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax import losses, metrics
from cvae_jax.backend import Batched, microbatch_size, microbatched, stream
from cvae_jax.config import Config, ModelConfig
from cvae_jax.data.sources import Source, block_size, blocks
from cvae_jax.modules import Params, autoencode
from cvae_jax.pixels import to_levels, to_unit

# Name -> window, and the size of the smallest image that it fits into.
SSIM_WINDOWS: dict[str, tuple[metrics.Window, int]] = {
    "ssim": ("gaussian", 11),
    "ssim_uniform": ("uniform", 7),
}
# What is also measured by itself in colour images.
PARTS = ("red", "green", "blue", "luma")
IN_PARTS = ("psnr_of_mean_mse", "mean_psnr", *SSIM_WINDOWS)  # of each: name_part
# Name in the summary -> (label, digits after the point), in the order of the table.
LABELS = {
    "mse": ("MSE", 5),
    "psnr_of_mean_mse": ("PSNR of the mean MSE, dB", 2),
    "mean_psnr": ("mean of each image's PSNR, dB", 2),
    "ssim": ("SSIM, Gaussian 11, sigma 1.5", 4),
    "ssim_uniform": ("SSIM, uniform 7x7", 4),
    "bce": ("BCE, nats", 2),
    "kl": ("KL, nats", 2),
    "negative_elbo": ("-ELBO, nats", 2),
    "bits_per_dim": ("-ELBO, bits per dimension", 4),
    "active_units": ("active latent units", 0),
}


class Evaluation(NamedTuple):
    """summary: section -> name -> number, means over the images; per_image: name -> ``[N]``."""

    summary: dict[str, dict[str, float]]
    per_image: dict[str, np.ndarray]


def noise_for(seed: int, n: int, dim: int, first: int = 0) -> Array:
    """``[n, dim]`` of N(0, I), of the images from ``first`` on: the same row for the same image
    however many there are."""
    numbers = first + jnp.arange(n)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(numbers)
    return jax.vmap(lambda key: jax.random.normal(key, (dim,), jnp.float32))(keys)


@functools.partial(jax.jit, static_argnums=0)
def _negative_elbo(config: Config, params: Params, images: Array, noise: Array) -> Array:
    def per_image(images, noise):
        x = to_unit(images)
        output = autoencode(params, x, noise, config.model)
        loss = losses.per_image(output, x, config.train.reconstruction, config.train.beta)
        return loss["loss"]

    return microbatched(per_image)(images, noise)


def validation_loss(config: Config, params: Params, images: np.ndarray) -> float:
    """The training loss on held-out images, uint8 ``[N, H, W, C]``, always with the same noise."""
    noise = np.asarray(noise_for(config.train.seed, len(images), config.model.noise_dim))
    loss = stream(functools.partial(_negative_elbo, config, params), images, noise)
    return float(loss.astype(np.float64).mean())


@functools.partial(jax.jit, static_argnums=0)
def _measure(config: ModelConfig, params: Params, images: Array, noise: Array) -> dict:
    """Everything per image: ``[B]`` for each number, and z_mean ``[B, D]``."""

    def per_image(images, noise):
        x = to_unit(images)
        deterministic, sampled = (autoencode(params, x, n, config) for n in (None, noise))
        out = {}
        for section, output in (("", deterministic), ("sampled_", sampled)):
            pixels = jax.nn.sigmoid(output.logits)
            out[f"{section}kl"] = losses.rate(output)
            out[f"{section}bce"] = losses.bce(output.logits, x)
            out[f"{section}mse"] = metrics.mse(pixels, x)
            windows = {
                name: window
                for name, (window, smallest) in SSIM_WINDOWS.items()
                if min(config.height, config.width) >= smallest
            }
            for name, window in windows.items():
                out[f"{section}{name}"] = metrics.ssim(pixels, x, window)
            if config.channels == 3:
                parts = {"mse": _in_parts(metrics.mse_of_channels, pixels, images)}
                for name, window in windows.items():
                    measure = functools.partial(metrics.ssim_of_channels, window=window)
                    parts[name] = _in_parts(measure, pixels, images)
                for name, of in parts.items():
                    out |= {f"{section}{name}_{part}": of[:, i] for i, part in enumerate(PARTS)}
        return out, deterministic.posterior.z_mean

    return microbatched(per_image)(images, noise)


def _in_parts(measure: Callable[[Array, Array], Array], pixels: Array, images: Array) -> Array:
    """A measure of each of PARTS, ``[B, 4]``; luma is that of the nearest levels."""
    luma = measure(metrics.luma(to_levels(pixels)), metrics.luma(images))
    return jnp.concatenate([measure(pixels, to_unit(images)), luma], axis=1)


def evaluate(config: ModelConfig, params: Params, images: Source, seed: int = 0) -> Evaluation:
    """Measures the model on images, N at least 1, of which a block is in memory at a time.

    ``summary`` has two sections, "deterministic" (decode(z_mean)) and "sampled" (decode of one
    posterior sample per image, noise from ``seed``; of a map z_mean is rounded, and either is at a
    step of 1).  MSE, PSNR in dB (``psnr_of_mean_mse`` and
    ``mean_psnr``, the mean of each image's own), SSIM (absent where the window does not fit), BCE,
    KL and -ELBO in nats per image, -ELBO also in bits per dimension, and the active units.

    Of colour images, MSE and PSNR are over all three channels and SSIM is the mean of theirs; PSNR
    and SSIM are also given of each of PARTS (``ssim_red``, ...), luma as ``metrics.luma`` has it,
    of the reconstruction's 8-bit levels.
    """
    measure = functools.partial(_measure, config, params)
    parts: list[dict[str, np.ndarray]] = []
    sums = np.zeros((2, config.latents))  # of z_mean and its squares
    first = 0
    # In whole microbatches, so that the blocks change no number.
    for block in blocks(images, block_size(images, microbatch_size())):
        noise = np.asarray(noise_for(seed, len(block), config.latents, first))
        part, z_mean = stream(measure, block, noise)
        parts.append(part)
        z_mean = z_mean.astype(np.float64)
        sums += z_mean.sum(0), (z_mean**2).sum(0)
        first += len(block)
    per_image = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    sections = (("deterministic", ""), ("sampled", "sampled_"))
    summary = {section: _summary(config, per_image, prefix) for section, prefix in sections}
    mean, mean_of_squares = sums / len(images)
    summary["deterministic"]["active_units"] = metrics.active_units(mean_of_squares - mean**2)
    return Evaluation(summary, per_image)


def _summary(
    config: ModelConfig, per_image: dict[str, np.ndarray], prefix: str
) -> dict[str, float]:
    """A section of the summary, of the measures whose names begin with ``prefix``."""
    mean = {
        name: float(per_image[prefix + name].mean(dtype=np.float64))
        for name in ("mse", *SSIM_WINDOWS, "bce", "kl")
        if prefix + name in per_image
    }
    negative_elbo = mean["bce"] + mean["kl"]
    found = {
        "mse": mean.pop("mse"),
        "psnr_of_mean_mse": float(metrics.psnr(per_image[prefix + "mse"].mean())),
        "mean_psnr": float(metrics.psnr(per_image[prefix + "mse"]).mean()),
        **mean,
        "negative_elbo": negative_elbo,
        "bits_per_dim": metrics.bits_per_dim(negative_elbo, config.image_shape),
    }
    for part in PARTS if config.channels == 3 else ():
        mse = per_image[f"{prefix}mse_{part}"]
        found[f"psnr_of_mean_mse_{part}"] = float(metrics.psnr(mse.mean()))
        found[f"mean_psnr_{part}"] = float(metrics.psnr(mse).mean())
        for name in SSIM_WINDOWS:
            if (values := per_image.get(f"{prefix}{name}_{part}")) is not None:
                found[f"{name}_{part}"] = float(values.mean(dtype=np.float64))
    return found


def reconstruct(config: ModelConfig, params: Params, images: np.ndarray) -> np.ndarray:
    """decode(z_mean) of uint8 images ``[N, H, W, C]``: the same, of uint8."""

    def reconstructed(images: Array) -> Array:
        return to_levels(jax.nn.sigmoid(autoencode(params, to_unit(images), None, config).logits))

    return Batched(reconstructed)(images)


def table(summary: dict[str, dict[str, float]]) -> str:
    """A summary as text: a row for each number, a column for each section; what is of a colour
    image's PARTS, below what is of the whole."""
    sections = list(summary)
    lines = [f"{'':34}" + "".join(f"{s:>15}" for s in sections)]
    labels = {}
    for name, (label, digits) in LABELS.items():
        labels[name] = label, digits
        if name in IN_PARTS:
            labels |= {f"{name}_{part}": (f"  {part}", digits) for part in PARTS}
    for name, (label, digits) in labels.items():
        cells = [summary[s].get(name) for s in sections]
        if name in SSIM_WINDOWS and cells[0] is None:
            lines.append(f"{label:34}{'image too small':>15}")
        elif any(cell is not None for cell in cells):
            shown = ["" if cell is None else f"{cell:.{digits}f}" for cell in cells]
            lines.append(f"{label:34}" + "".join(f"{cell:>15}" for cell in shown))
    return "\n".join(lines)


def to_json(summary: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """A summary as JSON can hold it: an infinite PSNR becomes null."""
    return {
        section: {name: value if math.isfinite(value) else None for name, value in row.items()}
        for section, row in summary.items()
    }
