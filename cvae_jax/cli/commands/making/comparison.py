"""An archive of a collection with its decoder inside, beside the formats of photographs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax import bitstream, codec, metrics, reader
from cvae_jax.cli.commands.info import GROWING, break_even
from cvae_jax.cli.files import outputs
from cvae_jax.cli.files.outputs import ToFile
from cvae_jax.cli.reports import db, finite, progress
from cvae_jax.data.sources import Source, blocks, spread_numbers
from cvae_jax.study import equal
from cvae_jax.study.equal import Other

MOST, MOST_BYTES = 1024, 1 << 25  # images that other formats are tried on, and of their pixels


@dataclass(frozen=True)
class Compared:
    """What an archive takes, and what others take for the same images at the same error."""

    output: str
    images: int
    bytes: int
    model_bytes: int  # of these
    mse: float  # of levels counted as 0 to 1
    sampled: int  # images that the others are tried on
    sampled_mse: float  # of the archive, on those: what the others are to reach
    others: dict[Other, int | None]  # from how many images on the archive is smaller; None: never

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **fields,
            "bytes_per_image": self.bytes / self.images,
            "bytes_per_image_without_model": (self.bytes - self.model_bytes) / self.images,
            "psnr": finite(float(metrics.psnr(self.mse))),
            "others": [
                {
                    "name": other.name,
                    "regime": other.regime,
                    "bytes_per_image": other.bytes_per_image,
                    "mse": other.mse,
                    "points": [point._asdict() for point in other.points],
                    "smaller_from": since,
                }
                for other, since in self.others.items()
            ],
        }

    def lines(self) -> list[str]:
        """The table."""
        whole, bare = self.bytes / self.images, (self.bytes - self.model_bytes) / self.images
        rows = [
            ("", "quality", "bytes each", "MSE", "this is smaller"),
            ("this archive", "", f"{whole:,.1f}", f"{self.mse:.5f}", ""),
            ("without its model", "", f"{bare:,.1f}", "", ""),
        ]
        for other, since in self.others.items():
            told = f"from {since:,} images on" if since else "never"
            size, mse = f"{other.bytes_per_image:,.1f}", f"{other.mse:.5f}"
            rows.append((f"{other.name}, {other.regime}", other.quality, size, mse, told))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        shown = [
            "  ".join(
                [f"{row[0]:{widths[0]}}"]
                + [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            ).rstrip()
            for row in rows
        ]
        first = (
            f"{self.output}: {self.images} images, {self.bytes} bytes, of which its model is "
            f"{self.model_bytes}; PSNR {db(float(metrics.psnr(self.mse)))}"
        )
        if not self.others:
            return [first, *shown, "not compared: image formats hold 1 or 3 channels"]
        of = f"{self.sampled} of the images" if self.sampled < self.images else "the images"
        last = (
            f"the others on {of}, the lossy ones at this archive's error, or as near as they come"
        )
        return [first, *shown, last]


def compressed(
    ckpt: Path, images: Source, names: list[str] | None, output: ToFile, quality: float, force: bool
) -> None:
    """Writes the archive of images, with the model of a checkpoint inside."""
    c = codec.load(ckpt)
    with (
        outputs.writing(output, force=force, read_back=True) as file,
        progress(len(images), "compress") as advance,
    ):
        parts = blocks(images, bitstream.CHUNK_IMAGES)
        c.write(file, parts, quality, names=names, embed_model=True, progress=advance)


def compare(path: Path, images: Source) -> Compared:
    """Reads an archive of images with its own model, and tries the others on a sample of them."""
    with path.open("rb") as file:
        opened = bitstream.Reader(file)
        spent, size = opened.ledger(), opened.size
    errors = _errors(path, images)
    n, each = len(images), int(np.prod(images.shape[1:]))
    numbers = spread_numbers(n, max(1, min(MOST, MOST_BYTES // each)))
    target = float(errors[numbers].mean())
    grows = sum(spent.get(use, 0) for use in GROWING)
    found = equal.others(images[numbers], target) if images.shape[3] in (1, 3) else []
    return Compared(
        str(path), n, size, spent["model"], float(errors.mean()), len(numbers), target,
        {o: break_even(size - grows, grows / n, o.bytes_per_image).images for o in found},
    )  # fmt: skip


def _errors(path: Path, images: Source) -> np.ndarray:
    """The mean squared error of each image in an archive, ``[N]``."""
    found, first = [], 0
    with reader.open(path) as archive, progress(len(images), "measure") as advance:
        for levels in archive.stream():
            numbers = np.arange(first, first + len(levels))
            found.append(metrics.mse_of_each(levels, images[numbers]))
            first += len(levels)
            advance(len(levels))
    return np.concatenate(found)
