"""Makes what calibration adds to a checkpoint.

``tables.bin`` and ``decoder.bin`` are what files are made and read with, ``context.bin`` is what
lossless and bounded ones need too; ``calibration.json`` says how well the model usually reproduces
images.
"""

from __future__ import annotations

import dataclasses
import math
import os

import jax
import numpy as np
from jax import Array

from cvae_jax import modules
from cvae_jax.backend import Batched
from cvae_jax.coding.calibration import SLOPE_IMAGES, calibrate, usual_errors
from cvae_jax.coding.quantize import UNITS_PER_SIGMA, quantize, step, units
from cvae_jax.coding.search import slope_per_step
from cvae_jax.coding.streams import CodingTables
from cvae_jax.coding.usual import UsualErrors
from cvae_jax.config import ModelConfig
from cvae_jax.data.sources import Source, spread, to_memory
from cvae_jax.errors import CheckpointError, DataError
from cvae_jax.exact import by_jax
from cvae_jax.exact.from_params import quantize_decoder
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.exact.prior_from_params import quantize_prior
from cvae_jax.file_model import FileModel
from cvae_jax.modules import Params, Posterior
from cvae_jax.pixels import as_images
from cvae_jax.refinement.encoder import Base
from cvae_jax.refinement.fit import fit
from cvae_jax.refinement.integers import ContextModel
from cvae_jax.runs import checkpoint
from cvae_jax.runs.checkpoint import StrPath
from cvae_jax.runs.find import CONTEXT, DECODER, ERRORS, TABLES, file_model
from cvae_jax.runs.manifest import Checkpoint
from cvae_jax.runs.record import Record

PARTIAL = "context.partial"  # beside these, while the context model is trained
FEWEST, MOST = 1000, 10_000  # images to measure the usual errors on, if there are that many
DECODER_IMAGES = 64  # that the integer decoder is fitted to, at each of DECODER_QUALITIES
DECODER_QUALITIES = (0, 50, 100)
PRIOR_IMAGES = 2048  # that the integer prior of a map is fitted to, at each of PRIOR_QUALITIES
PRIOR_QUALITIES = (25, 45, 65, 85)

# Training images that are looked at, and bytes of their pixels, which are kept in memory.
MOST_IMAGES, MOST_BYTES = 200_000, 1 << 28


def sample(images: Source) -> np.ndarray:
    """What is calibrated on: all images, uint8 ``[N, H, W, C]``, or where there are more than
    ``MOST_IMAGES``, or than ``MOST_BYTES`` have room for, so many that are evenly spread."""
    each = math.prod(images.shape[1:])
    return to_memory(spread(images, max(1, min(MOST_IMAGES, MOST_BYTES // max(each, 1)))))


def make(
    path: StrPath,
    images: Source,
    held_out: np.ndarray | None = None,
    *,
    sigma: np.ndarray | None = None,
) -> FileModel:
    """Calibrates a checkpoint on a ``sample`` of training images.

    Adds tables, an integer decoder and the usual errors (`measure_errors`), replacing any that it
    has.  Files are tied to tables and decoder: those made with the old ones are then refused.

    held_out: as for `measure_errors`; sigma: as for ``calibration.calibrate``.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be written.
      ConfigError: integers cannot compute the model exactly.
      DataError: the images do not fit the model, or there are none.
    """
    model, params = _restored(path)
    sampled = as_images(sample(images), model.image_shape)
    posterior = Batched(lambda images: modules.posterior(params, images, model))
    measured = posterior(sampled)
    tables = _tables(model, params, sampled, measured, sigma)
    some = np.asarray(measured.z_mean)[:DECODER_IMAGES]
    steps = map(step, DECODER_QUALITIES)
    latents = [units(quantize(some, tables, at), tables, at) for at in steps]
    decoder = quantize_decoder(params, model, tables.unit, np.concatenate(latents))
    made = FileModel(tables, IntegerDecoder.from_bytes(decoder.to_bytes()))
    errors = _errors(model, params, made, sampled, held_out, np.asarray(measured.z_mean))
    checkpoint.attach(
        path,
        {TABLES: tables.to_bytes(), DECODER: decoder.to_bytes(), ERRORS: errors.to_bytes()},
    )
    return made


def _tables(
    model: ModelConfig,
    params: Params,
    images: np.ndarray,
    posterior: Posterior,
    sigma: np.ndarray | None,
) -> CodingTables:
    """What symbols are coded with, measured on images with these posteriors."""

    def decode(z: Array) -> Array:
        return modules.decode(params, z, model)

    if not model.latent_map:
        return calibrate(decode, images, posterior, sigma)
    z_mean = np.asarray(posterior.z_mean[:PRIOR_IMAGES])
    # The posterior of a map is the same everywhere.
    unit = float(np.exp(np.asarray(posterior.z_log_var).ravel()[0] / 2)) / UNITS_PER_SIGMA
    steps = map(step, PRIOR_QUALITIES)
    prior = quantize_prior(
        jax.device_get(params["prior"]), model.latent_map, unit, {at: z_mean / unit for at in steps}
    )
    some = slice(SLOPE_IMAGES)
    return dataclasses.replace(
        prior, slope=slope_per_step(decode, images[some], z_mean[some], prior)
    )


def make_context(path: StrPath, images: Source, steps: int, seed: int = 0) -> ContextModel:
    """Trains the context model of a calibrated checkpoint, and adds it, replacing any that it has.

    images: training images, of which it learns from a ``sample``.  A training that was stopped goes
    on where it saved its state last, and ends with the same bytes.

    Raises:
      CheckpointError: there is no calibrated checkpoint, or it cannot be written.
      ConfigError: integers cannot compute the model exactly.
      DataError: the images do not fit the model, or there are none.
      TrainingError: the loss is not finite.
    """
    model, params = _restored(path)
    stored = file_model(Checkpoint(checkpoint.absolute(path)))  # as it is now
    if stored is None:
        raise CheckpointError(
            f"checkpoint {os.fspath(path)} has no coding tables; calibrate it first"
        )
    levels_of = stored.levels_by(by_jax.decoder)
    z_mean = Batched(lambda images: modules.encode(params, images, model))

    def base_of(images: np.ndarray, quality: float) -> Base:
        symbols = quantize(z_mean(images), stored.tables, step(quality))
        return Base(symbols, step(quality), levels_of(symbols, step(quality)))

    sampled = as_images(sample(images), model.image_shape)
    partial = checkpoint.absolute(path) / PARTIAL
    made = fit(sampled, base_of, stored.tables, steps, seed, partial)
    checkpoint.attach(path, {CONTEXT: made.packed})
    partial.unlink(missing_ok=True)
    return made


def measure_errors(
    path: StrPath, images: Source, held_out: np.ndarray | None = None
) -> UsualErrors:
    """Measures how well a calibrated checkpoint reproduces images, and adds the result to it.

    images: its training images, of which a ``sample`` counts; held_out: others of the same kind,
    uint8 ``[N, H, W, C]``, which are measured, along with as many of the first training images as
    make up ``FEWEST``.  Without held-out images, the training images are measured.

    Raises:
      CheckpointError: there is no calibrated checkpoint, or it cannot be written.
      DataError: the images do not fit the model, or there are none.
    """
    model, params = _restored(path)
    stored = file_model(Checkpoint(checkpoint.absolute(path)))  # as it is now
    if stored is None:
        raise CheckpointError(
            f"checkpoint {os.fspath(path)} has no coding tables; calibrate it first"
        )
    errors = _errors(model, params, stored, as_images(sample(images), model.image_shape), held_out)
    checkpoint.attach(path, {ERRORS: errors.to_bytes()})
    return errors


def _errors(
    model: ModelConfig,
    params: Params,
    stored: FileModel,
    images: np.ndarray,
    held_out: np.ndarray | None,
    means: np.ndarray | None = None,
) -> UsualErrors:
    """means: of the latents of the images, ``[N, D]``, where they are known."""
    encode = Batched(lambda images: modules.encode(params, images, model))
    joining = MOST
    others = np.empty((0, *model.image_shape), np.uint8)
    if held_out is not None:
        others = as_images(held_out, model.image_shape)[:MOST]
        joining = max(0, FEWEST - len(others))
    images = images[:joining]
    if not len(others) + len(images):
        raise DataError("no images to measure the model's usual errors on")
    z_mean = encode(images) if means is None else means[:joining]
    levels = stored.levels_by(by_jax.decoder)
    return usual_errors(
        levels,
        np.concatenate([others, images]),
        np.concatenate([encode(others), z_mean]),
        stored.tables,
    )


def _restored(path: StrPath) -> tuple[ModelConfig, Params]:
    model = Record.from_dict(checkpoint.read_config(path)).config.model
    params = checkpoint.restore(path, {"params": modules.abstract_params(model)})["params"]
    return model, jax.device_put(params)
