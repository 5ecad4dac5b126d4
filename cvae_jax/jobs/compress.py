"""A collection compressed into a set of archives, one part of the work for each.

A shard is a pure function of the inputs and its number: whoever makes it, and however often, it has
the same bytes (on machines of one kind, with the same versions; others may round a latent the other
way).  It gets its name when it is whole, after the report of what it had to do without and before
the record that it is finished; one that is as its record says need not be made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax import __version__, backend, bitstream, codec, files, metrics
from cvae_jax.bitstream import CHUNK_IMAGES
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.codec import Codec
from cvae_jax.coding import quantize, search
from cvae_jax.errors import CheckpointError, ConfigError, DataError
from cvae_jax.jobs import plan
from cvae_jax.jobs.collection import Collection, Reading, Skipped
from cvae_jax.jobs.done import Output
from cvae_jax.jobs.names import check_unpackable
from cvae_jax.jobs.task import Result
from cvae_jax.refinement import grid
from cvae_jax.shards import Shards


@dataclass(frozen=True)
class Settings:
    """How images are compressed; as for ``Codec.write``."""

    quality: float | None = None
    effort: int = 0
    max_error: int | None = None
    embed_model: bool = False
    names: bool = True  # of images are kept, where all have one
    decode_all: bool = True  # otherwise a shard vouches for the first pixels of a chunk alone


@dataclass(frozen=True)
class Compression:
    """The task."""

    collection: Collection
    output: Output
    ckpt: str | None
    model: dict[str, str | None]  # digests of what the bytes depend on
    settings: Settings

    def range(self, number: int) -> tuple[int, int]:
        """The numbers of a shard's images, if all can be decoded: the first, and one too far."""
        n, shards = len(self.collection), self.output.shards.count
        return number * n // shards, (number + 1) * n // shards

    def run(self, number: int, advance: OnProgress) -> Result:
        """Makes a shard, unless it is there.  Raises as ``Codec.write``, and ``Collection``."""
        there = self.output.there(number)
        if there is not None and self._reported(number) == there["skipped"]:
            advance(there["images"] + there["skipped"])
            return there
        c = _codec(self.ckpt)
        if digests(c) != self.model:
            raise CheckpointError(
                f"{self.ckpt or 'the released checkpoint'} is not what it was when the job began"
            )
        return self._make(c, number, advance)

    def _make(self, c: Codec, number: int, advance: OnProgress) -> Result:
        start, stop = self.range(number)
        skipped: list[Skipped] = []
        names: list[str] | None = (
            [] if self.settings.names and self.collection.named else None
        )  # in step with the images that are read

        def blocks() -> Iterator[np.ndarray]:
            for part in self.collection.parts(start, stop, CHUNK_IMAGES):
                skipped.extend(part.skipped)
                if names is not None:
                    names.extend(name or "" for name in part.names)
                if len(part.images):
                    yield part.images

        how = self.settings
        step = quantize.step(quantize.DEFAULT_QUALITY if how.quality is None else how.quality)
        far = 0
        with self.output.making(number) as (file, result):
            writer = c.file_model.writer(
                file, embed_model=how.embed_model, refined=how.max_error is not None
            )
            with contextlib.closing(
                c.chunks(
                    blocks(),
                    how.quality,
                    how.effort,
                    max_error=how.max_error,
                    count=stop - start,
                    decode_all=how.decode_all,
                    check=True,
                )
            ) as chunks:

                def watched() -> Iterator[bitstream.Chunk]:
                    nonlocal far
                    for made in chunks:
                        if how.max_error is None:
                            decoded = made.images[: len(made.levels)]
                            errors = metrics.mse_of_each(made.levels, decoded)
                            far += len(c.unusual(errors, step))
                        yield made.chunk

                writer.append_all(watched(), names, progress=advance)
            result.update(
                images=stop - start - len(skipped),
                bytes=writer.finish(),
                skipped=len(skipped),
                far=far,  # unlike the training data
            )
            advance(len(skipped))
            self._report(number, skipped)
        return result

    def _report(self, number: int, skipped: list[Skipped]) -> None:
        path = plan.skipped_path(self.output.shards, number)
        self.output.check()
        if not skipped:
            path.unlink(missing_ok=True)  # of an attempt that read a damaged copy
            return
        with files.whole(path, force=True) as file:
            for each in skipped:
                file.write((json.dumps(each._asdict()) + "\n").encode())

    def _reported(self, number: int) -> int:
        """How many images a report says a shard had to do without."""
        path = plan.skipped_path(self.output.shards, number)
        return len(path.read_bytes().splitlines()) if path.exists() else 0


def _plan(
    collection: Collection, shards: Shards, model: dict[str, str | None], settings: Settings
) -> dict[str, Any]:
    """All that the bytes of the shards depend on."""
    return {
        "version": __version__,
        "shards": shards.count,
        "images": len(collection),
        "model": model,
        "settings": dataclasses.asdict(settings),
        "reading": collection.reading._asdict(),
        "inputs": [dataclasses.asdict(given) for given in collection.inputs],
    }


@contextlib.contextmanager
def begun(
    patterns: list[str],
    shards: Shards,
    ckpt: str | None,
    settings: Settings,
    *,
    resize: bool,
    grayscale: bool,
    force: bool,
) -> Iterator[Compression]:
    """A job that is ready to run, for the first time or again; in here, no other has its set.

    Raises:
      CheckpointError: the checkpoint cannot make such files.
      ConfigError: an impossible setting, more shards than images, or another job is there
        or at work.
      DataError: as for ``Collection.of``, or images have names that could not be unpacked.
    """
    if settings.quality is not None:
        quantize.step(settings.quality)
    search.check_effort(settings.effort)
    if settings.max_error is not None:
        grid.checked(settings.max_error)
    if shards.suffix != ".cvae":
        raise ConfigError(f"{shards}: archives end in .cvae; name it {shards.name}@N.cvae")
    ckpt = str(Path(ckpt).absolute()) if ckpt is not None and Path(ckpt).exists() else ckpt
    c = _codec(ckpt)
    c.file_model.usual_quality(settings.max_error)
    collection = Collection.of(patterns, Reading(c.image_shape, resize, grayscale))
    if shards.count > len(collection):
        raise ConfigError(
            f"{shards.count} shards for {len(collection)} images; expected no more shards than "
            "images"
        )
    if settings.names and collection.named:
        check_unpackable(collection.names())
    read = {Path(given.path) for given in collection.inputs}
    if inside := read & set(map(Path.absolute, [*shards.paths, shards.beside(plan.SUFFIX)])):
        raise ConfigError(f"{inside.pop()} is also an input; name another output")
    model = digests(c)
    with plan.begun(shards, _plan(collection, shards, model, settings), force=force) as digest:
        yield Compression(collection, Output(shards, digest), ckpt, model, settings)


def check_images(task: Compression, results: list[Result]) -> None:
    """Refuses a set without images: of a job that came to it, the reports alone are left.

    Raises:
      DataError: no image could be decoded.
    """
    if any(result["images"] for result in results):
        return
    shards = task.output.shards
    for number in range(shards.count):
        plan.record_path(shards, number).unlink(missing_ok=True)
        shards.path(number).unlink(missing_ok=True)
    raise DataError(
        f"none of the {len(task.collection)} images could be decoded; see {plan.reports(shards)}"
    )


def digests(c: Codec) -> dict[str, str | None]:
    """Of all of a codec that the bytes of a file depend on."""
    encoder = hashlib.sha256()
    for leaf in jax.tree.leaves(c.params):
        encoder.update(np.asarray(leaf).tobytes())
    context = c.file_model.context
    return {
        "decoder": c.identity.model.hex(),
        "tables": c.identity.tables.hex(),
        "context": context.digest[:16].hex() if context else None,
        "parameters": encoder.hexdigest(),
    }


@functools.lru_cache(maxsize=1)
def _codec(ckpt: str | None) -> Codec:
    backend.use_compilation_cache()  # each worker would compile the same
    c = codec.load(ckpt)
    if c.record is None:
        raise CheckpointError(f"{ckpt}: holds no encoder, so it makes no files; name a checkpoint")
    return c
