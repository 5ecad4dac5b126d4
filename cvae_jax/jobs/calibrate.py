"""A checkpoint calibrated on all of a collection, in parts of one size.

Of every image that can be decoded, the encoder's standard deviations count; their sums are added
part by part, in order.  What needs the images themselves is made of a sample: those whose number
has one of the smallest hashes.  So nothing depends on who works on which part, or when.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax import __version__, backend, modules
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.config import ModelConfig
from cvae_jax.errors import DataError
from cvae_jax.file_model import FileModel
from cvae_jax.jobs import plan
from cvae_jax.jobs.collection import Collection, Reading
from cvae_jax.jobs.done import Output
from cvae_jax.jobs.task import Result
from cvae_jax.modules import Posterior
from cvae_jax.runs import checkpoint, tables
from cvae_jax.runs.find import find
from cvae_jax.runs.manifest import CONFIG
from cvae_jax.runs.record import Record
from cvae_jax.shards import Shards

PART = 1 << 17  # images
BLOCK = 4096  # images that are read and encoded at once


@dataclass(frozen=True)
class Calibration:
    """The task."""

    collection: Collection
    checkpoint: str  # absolute
    output: Output  # what parts come to: arrays "sum" [D], "images" and "numbers"
    sample: int  # images, about
    size: int  # images of a part

    def run(self, number: int, advance: OnProgress) -> Result:
        """Measures a part, unless it has been.  Raises DataError as ``Collection``."""
        start = number * self.size
        stop = min(start + self.size, len(self.collection))
        if (there := self.output.there(number)) is not None:
            advance(stop - start)
            return there
        sums, images, numbers, skipped = _zeros(self.checkpoint), [], [], 0
        encode = _encoder(self.checkpoint)
        for part in self.collection.parts(start, stop, BLOCK):
            skipped += len(part.skipped)
            if len(part.images):
                z_log_var = np.asarray(encode(part.images).z_log_var, np.float64)
                sums += np.exp(z_log_var / 2).sum(0)
            chosen = is_chosen(part.numbers, len(self.collection), self.sample)
            images.append(part.images[chosen])
            numbers.append(part.numbers[chosen])
            advance(len(part.images) + len(part.skipped))
        with self.output.making(number) as (file, result):
            result["images"] = stop - start - skipped
            np.savez(
                file,
                sum=sums,
                count=result["images"],
                images=np.concatenate(images),
                numbers=np.concatenate(numbers),
            )
        return result


@contextlib.contextmanager
def begun(
    name: str, patterns: list[str], work: Path, *, resize: bool, grayscale: bool, size: int = PART
) -> Iterator[Calibration]:
    """A job that is ready to run, for the first time or again; in here, no other has its folder.

    work: a folder for what parts come to, which on several machines all of them share; size: of a
      part, in images, on which the last digits of the result depend.

    Raises:
      CheckpointError: there is no such checkpoint.
      ConfigError: another job has begun in the folder, or is at work there.
      DataError: as for ``Collection.of``.
    """
    found = find(name)
    record = Record.from_dict(checkpoint.read_config(found))
    image_shape = record.config.model.image_shape
    collection = Collection.of(patterns, Reading(image_shape, resize, grayscale))
    shards = Shards(work, "part", -(-len(collection) // size), ".npz")
    each = int(np.prod(image_shape))
    sample = min(tables.MOST_IMAGES, tables.MOST_BYTES // each)
    given: dict[str, Any] = {
        "version": __version__,
        "checkpoint": str(found.path),
        "size": size,
        # Not of what calibration makes, or the same command could not be given again.
        "files": {
            name: digest["sha256"]
            for name, digest in sorted(found.files.items())
            if name == CONFIG or name.startswith(("params/", "params."))
        },
        "reading": collection.reading._asdict(),
        "inputs": [dataclasses.asdict(given) for given in collection.inputs],
    }
    other = "another folder with --work"
    with plan.begun(
        shards, given, force=False, remedy=f"name {other}, or empty it", elsewhere=other
    ) as digest:
        yield Calibration(collection, str(found.path), Output(shards, digest), sample, size)


def finish(task: Calibration) -> tuple[FileModel, int]:
    """Adds to the checkpoint what calibration makes of the parts; and how many images they had.

    Raises:
      CheckpointError: it cannot be written.
      ConfigError: integers cannot compute the model exactly.
      DataError: no image could be decoded.
    """
    sums, count, images, numbers = _zeros(task.checkpoint), 0, [], []
    for path in task.output.shards.paths:
        with np.load(path, allow_pickle=False) as part:
            sums += part["sum"]
            count += int(part["count"])
            images.append(part["images"])
            numbers.append(part["numbers"])
    if not sum(map(len, images)):
        raise DataError("none of the images could be decoded; calibrate with others")
    # In the order of their hashes: whatever looks at the first of them looks at any of them.
    order = np.argsort(hashes(np.concatenate(numbers)), kind="stable")
    made = tables.make(task.checkpoint, np.concatenate(images)[order], sigma=sums / count)
    return made, count


def is_chosen(numbers: np.ndarray, total: int, wanted: int) -> np.ndarray:
    """Which images of so many are in the sample, bool ``[n]``; about ``wanted`` are."""
    if total <= wanted:
        return np.ones(len(numbers), bool)
    return hashes(numbers) < np.uint64((wanted << 64) // total)


def hashes(numbers: np.ndarray) -> np.ndarray:
    """Evenly spread uint64 ``[n]``, each of its number alone (splitmix64, Steele et al. 2014)."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=1)
def _model(path: str) -> ModelConfig:
    return Record.from_dict(checkpoint.read_config(path)).config.model


def _zeros(path: str) -> np.ndarray:
    return np.zeros(_model(path).latents)


@functools.lru_cache(maxsize=1)
def _encoder(path: str) -> backend.Batched:
    backend.use_compilation_cache()
    model = _model(path)
    params = checkpoint.restore(path, {"params": modules.abstract_params(model)})["params"]
    on_device = jax.device_put(params)

    def posterior(images: jax.Array) -> Posterior:
        return modules.posterior(on_device, images, model)

    return backend.Batched(posterior)
