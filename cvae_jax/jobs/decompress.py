"""A set of archives decompressed into a set of .npy files, one part of the work for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvae_jax import bitstream, data, files, reader
from cvae_jax.bitstream import Archive, Budget
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.errors import ConfigError, naming
from cvae_jax.jobs import plan
from cvae_jax.jobs.task import Result
from cvae_jax.shards import Shards


@dataclass(frozen=True)
class Decompression:
    """The task."""

    shards: Shards
    output: Shards
    ckpt: str | None
    max_cost: float = 1.0

    def run(self, number: int, advance: OnProgress) -> Result:
        """Writes a shard's images, unless they are there.

        Raises:
          FormatError, ModelMismatchError, CheckpointError: as ``reader.open``.
        """
        path, source = self.output.path(number), self.shards.path(number)
        with naming(source), source.open("rb") as file:
            opened = bitstream.Reader(file, Budget(self.max_cost))
            shape = (len(opened), *opened.header.image_shape)
            made = not _is_there(path, shape)
            if made:
                decoder = reader.of_archive(opened, self.ckpt).decoder(len(opened))
                _write(path, Archive(file, decoder, opened), shape, advance)
            else:
                advance(len(opened))
        size = path.stat().st_size
        return {"file": str(path), "images": shape[0], "bytes": size, "made": made}


def prepare(
    shards: Shards, output: Shards, ckpt: str | None, max_cost: float, *, force: bool
) -> Decompression:
    """A job that is ready to run, for the first time or again.

    Raises:
      ConfigError: the output is no set of as many .npy files, or another job is there.
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
    plan.begin(output, given, force=force)
    return Decompression(shards, output, ckpt, max_cost)


def _is_there(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds such an array: it got its name when it was whole."""
    with contextlib.suppress(OSError, ValueError):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return found.shape == shape and found.dtype == np.uint8
    return False


def _write(path: Path, archive: Archive, shape: tuple[int, ...], advance: OnProgress) -> None:
    def blocks() -> Iterator[np.ndarray]:
        for images in archive.stream():
            yield images
            advance(len(images))

    with files.whole(path, force=True) as file:
        data.write_npy(file, blocks(), shape)
