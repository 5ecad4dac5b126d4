"""A set of archives decompressed into a set of .npy files, one part of the work for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cvae_jax import bitstream, data, reader
from cvae_jax.bitstream import Archive, Budget
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.errors import ConfigError, naming
from cvae_jax.jobs import plan
from cvae_jax.jobs.done import Output
from cvae_jax.jobs.task import Result
from cvae_jax.shards import Shards


@dataclass(frozen=True)
class Decompression:
    """The task."""

    shards: Shards
    output: Output
    ckpt: str | None
    max_cost: float = 1.0

    def run(self, number: int, advance: OnProgress) -> Result:
        """Writes a shard's images, unless they are there.

        Raises:
          FormatError, ModelMismatchError, CheckpointError: as ``reader.open``.
        """
        if (there := self.output.there(number)) is not None:
            advance(there["images"])
            return there
        source = self.shards.path(number)
        with naming(source), source.open("rb") as archive:
            opened = bitstream.Reader(archive, Budget(self.max_cost))
            decoder = reader.of_archive(opened, self.ckpt).decoder(len(opened))
            images = Archive(archive, decoder, opened)
            shape = (len(opened), *images.image_shape)
            with self.output.making(number) as (file, result):
                _write(file, images, shape, advance)
                result["images"] = shape[0]
        return result


@contextlib.contextmanager
def begun(
    shards: Shards, output: Shards, ckpt: str | None, max_cost: float, *, force: bool
) -> Iterator[Decompression]:
    """A job that is ready to run, for the first time or again; in here, no other has its set.

    Raises:
      ConfigError: the output is no set of as many .npy files, or another job is there or
        at work.
    """
    if output.suffix != ".npy" or output.count != shards.count:
        raise ConfigError(
            f"{output}: a set of {shards.count} archives becomes as many .npy files; name it "
            f"{output.name}@{shards.count}.npy"
        )
    status = [path.stat() for path in shards.paths]
    given = {
        "set": str(shards.folder.absolute() / shards.name),
        "shards": shards.count,
        "inputs": [[found.st_size, found.st_mtime_ns] for found in status],
    }
    with plan.begun(output, given, force=force) as digest:
        yield Decompression(shards, Output(output, digest), ckpt, max_cost)


def _write(file: BinaryIO, archive: Archive, shape: tuple[int, ...], advance: OnProgress) -> None:
    def blocks() -> Iterator[np.ndarray]:
        for images in archive.stream():
            yield images
            advance(len(images))

    data.write_npy(file, blocks(), shape)
