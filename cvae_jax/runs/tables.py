"""What calibration adds to a checkpoint: what files are made and read with, ``tables.bin`` and
``decoder.bin``, and how well the model usually reproduces images, ``calibration.json``."""

from __future__ import annotations

import jax
import numpy as np

from cvae_jax import modules
from cvae_jax.batching import Batched
from cvae_jax.coding import usual
from cvae_jax.coding.calibration import calibrate
from cvae_jax.coding.quantize import quantize, step
from cvae_jax.coding.usual import UsualErrors
from cvae_jax.config import ModelConfig
from cvae_jax.errors import CheckpointError, DataError
from cvae_jax.exact import by_jax
from cvae_jax.exact.from_params import quantize_decoder
from cvae_jax.exact.integers import IntegerDecoder
from cvae_jax.exact.model import FileModel
from cvae_jax.modules import Params
from cvae_jax.pixels import as_images
from cvae_jax.runs import checkpoint, filemodel
from cvae_jax.runs.checkpoint import StrPath
from cvae_jax.runs.filemodel import DECODER, TABLES
from cvae_jax.runs.record import Record

ERRORS = "calibration.json"
FEWEST, MOST = 1000, 10_000  # images that the usual errors are measured on, where there are as many
DECODER_IMAGES = 64  # that the integer decoder is fitted to, at each of
DECODER_QUALITIES = (0, 50, 100)


def read(path: StrPath) -> FileModel | None:
    """What files of a checkpoint are made and read with, or None if it has not all of it yet.

    Raises:
      CheckpointError, FormatError: it is damaged.
    """
    return filemodel.read(checkpoint.opened(path))


def read_errors(path: StrPath) -> UsualErrors | None:
    """The usual errors of a checkpoint's model, or None if nobody measured them yet.

    Raises:
      CheckpointError, FormatError: they are damaged.
    """
    stored = checkpoint.attached(path, ERRORS)
    return None if stored is None else UsualErrors.from_bytes(stored)


def make(path: StrPath, images: np.ndarray, held_out: np.ndarray | None = None) -> FileModel:
    """Calibrates a checkpoint on training images, uint8 ``[N, H, W, C]``, and adds tables and
    integer decoder to it, in place of ones that it may have, and the usual errors
    (`measure_errors`).

    Files are tied to both: with new ones, what was compressed before is refused.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be written.
      ConfigError: a model that integers could not compute exactly.
      DataError: the images are not the model's.
    """
    model, params = _restored(path)
    images = as_images(images, model.image_shape)
    posterior = Batched(lambda images: modules.posterior(params, images, model))
    measured = posterior(images)
    tables = calibrate(lambda z: modules.decode(params, z, model), images, measured)
    some = np.asarray(measured.z_mean)[:DECODER_IMAGES]
    steps = map(step, DECODER_QUALITIES)
    latents = [quantize(some, tables, at).astype(np.int64) * at for at in steps]
    decoder = quantize_decoder(params, model, tables.unit, np.concatenate(latents))
    made = FileModel(tables, IntegerDecoder.from_bytes(decoder.to_bytes()))
    checkpoint.attach(path, TABLES, tables.to_bytes())
    checkpoint.attach(path, DECODER, decoder.to_bytes())
    # By its path: what was found before does not list what was just added.
    measure_errors(checkpoint.absolute(path), images, held_out)
    return made


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
    stored = read(path)
    if stored is None:
        raise CheckpointError(f"checkpoint {path} has no coding tables; calibrate it first")
    images = as_images(images, model.image_shape)
    if held_out is not None:
        held_out = as_images(held_out, model.image_shape)
        images = np.concatenate([held_out, images[: max(0, FEWEST - len(held_out))]])
    images = images[:MOST]
    if not len(images):
        raise DataError("no images to measure the model's usual errors on")
    z_mean = Batched(lambda images: modules.encode(params, images, model))
    levels = stored.levels_by(by_jax.decoder)
    errors = usual.measure(levels, images, z_mean(images), stored.tables)
    checkpoint.attach(path, ERRORS, errors.to_bytes())
    return errors


def _restored(path: StrPath) -> tuple[ModelConfig, Params]:
    model = Record.from_dict(checkpoint.read_config(path)).config.model
    params = checkpoint.restore(path, {"params": modules.abstract_params(model)})["params"]
    return model, jax.device_put(params)
