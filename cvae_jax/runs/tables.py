"""The coding tables of a checkpoint, its file ``tables.bin``."""

from __future__ import annotations

import jax
import numpy as np

from cvae_jax import modules
from cvae_jax.batching import microbatched, stream
from cvae_jax.coding.calibration import calibrate
from cvae_jax.coding.tables import Tables
from cvae_jax.pixels import as_images
from cvae_jax.runs import checkpoint
from cvae_jax.runs.checkpoint import StrPath
from cvae_jax.runs.record import Record

NAME = "tables.bin"


def read(path: StrPath) -> Tables | None:
    """The tables of a checkpoint, or None if it has none yet.

    Raises:
      CheckpointError, FormatError: they are damaged.
    """
    stored = checkpoint.attached(path, NAME)
    return None if stored is None else Tables.from_bytes(stored)


def make(path: StrPath, images: np.ndarray) -> Tables:
    """Calibrates a checkpoint on training images, uint8 ``[N, H, W, C]``, and adds the tables to
    it, in place of ones that it may have.

    Files are tied to the tables: with new ones, what was compressed before is refused.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be written.
      DataError: the images are not the model's.
    """
    model = Record.from_dict(checkpoint.read_config(path)).config.model
    params = checkpoint.restore(path, {"params": modules.abstract_params(model)})["params"]
    images = as_images(images, model.image_shape)
    posterior = jax.jit(microbatched(lambda images: modules.posterior(params, images, model)))
    tables = calibrate(
        lambda z: modules.decode(params, z, model), images, stream(posterior, images)
    )
    checkpoint.attach(path, NAME, tables.to_bytes())
    return tables
