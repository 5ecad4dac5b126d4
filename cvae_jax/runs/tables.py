"""What calibration adds to a checkpoint: its coding tables, ``tables.bin``, and how well the model
usually reproduces images, ``calibration.json``."""

from __future__ import annotations

import jax
import numpy as np

from cvae_jax import modules
from cvae_jax.batching import Batched
from cvae_jax.coding import usual
from cvae_jax.coding.calibration import calibrate
from cvae_jax.coding.tables import Tables
from cvae_jax.coding.usual import UsualErrors
from cvae_jax.config import ModelConfig
from cvae_jax.errors import CheckpointError, DataError
from cvae_jax.modules import Params
from cvae_jax.pixels import as_images, to_levels
from cvae_jax.runs import checkpoint
from cvae_jax.runs.checkpoint import StrPath
from cvae_jax.runs.record import Record

NAME = "tables.bin"
ERRORS = "calibration.json"
FEWEST, MOST = 1000, 10_000  # images that the usual errors are measured on, where there are as many


def read(path: StrPath) -> Tables | None:
    """The tables of a checkpoint, or None if it has none yet.

    Raises:
      CheckpointError, FormatError: they are damaged.
    """
    stored = checkpoint.attached(path, NAME)
    return None if stored is None else Tables.from_bytes(stored)


def read_errors(path: StrPath) -> UsualErrors | None:
    """The usual errors of a checkpoint's model, or None if nobody measured them yet.

    Raises:
      CheckpointError, FormatError: they are damaged.
    """
    stored = checkpoint.attached(path, ERRORS)
    return None if stored is None else UsualErrors.from_bytes(stored)


def make(path: StrPath, images: np.ndarray, held_out: np.ndarray | None = None) -> Tables:
    """Calibrates a checkpoint on training images, uint8 ``[N, H, W, C]``, and adds the tables to
    it, in place of ones that it may have, and the usual errors (`measure_errors`).

    Files are tied to the tables: with new ones, what was compressed before is refused.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be written.
      DataError: the images are not the model's.
    """
    model, params = _restored(path)
    images = as_images(images, model.image_shape)
    posterior = Batched(lambda images: modules.posterior(params, images, model))
    tables = calibrate(lambda z: modules.decode(params, z, model), images, posterior(images))
    checkpoint.attach(path, NAME, tables.to_bytes())
    measure_errors(path, images, held_out)
    return tables


def measure_errors(
    path: StrPath, images: np.ndarray, held_out: np.ndarray | None = None
) -> UsualErrors:
    """Measures how well a checkpoint with tables reproduces images, and adds the result to it.

    images: of its training, uint8 ``[N, H, W, C]``; held_out: others of the same kind.  These are
    what is measured; the first training images fill them up to ``FEWEST``.

    Raises:
      CheckpointError: there is no checkpoint with tables, or it cannot be written.
      DataError: the images are not the model's, or there are none.
    """
    model, params = _restored(path)
    tables = read(path)
    if tables is None:
        raise CheckpointError(f"checkpoint {path} has no coding tables; calibrate it first")
    images = as_images(images, model.image_shape)
    if held_out is not None:
        held_out = as_images(held_out, model.image_shape)
        images = np.concatenate([held_out, images[: max(0, FEWEST - len(held_out))]])
    images = images[:MOST]
    if not len(images):
        raise DataError("no images to measure the model's usual errors on")
    z_mean = Batched(lambda images: modules.encode(params, images, model))
    levels = Batched(lambda z: to_levels(modules.decode(params, z, model)))
    errors = usual.measure(levels, images, z_mean(images), tables)
    checkpoint.attach(path, ERRORS, errors.to_bytes())
    return errors


def _restored(path: StrPath) -> tuple[ModelConfig, Params]:
    model = Record.from_dict(checkpoint.read_config(path)).config.model
    params = checkpoint.restore(path, {"params": modules.abstract_params(model)})["params"]
    return model, jax.device_put(params)
