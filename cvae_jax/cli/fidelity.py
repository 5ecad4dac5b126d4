"""What a file loses, seen chunk by chunk as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cvae_jax import metrics
from cvae_jax.bitstream.records import Chunk
from cvae_jax.cli.commands.info import SAMPLE, SAMPLE_VALUES, bytes_as
from cvae_jax.cli.reports import counted, db
from cvae_jax.errors import DataError
from cvae_jax.pipeline.chunks import Coded


class Fidelity:
    """Errors of images so far, of those that were decoded."""

    def __init__(
        self,
        names: Sequence[str] | None,
        min_psnr: float | None,
        unusual: Callable[[np.ndarray], np.ndarray],
    ):
        """unusual: which images are far from what the model was trained on, by their mean squared
        errors (``Codec.unusual``)."""
        self._names, self._min_psnr, self._unusual = names, min_psnr, unusual
        self._sample: list[np.ndarray] = []
        self._sum, self._decoded, self._below, self._far = 0.0, 0, 0, 0
        self._worst = (-1.0, 0)  # mean squared error, image
        self.count = 0
        self.raw = 0  # bytes of the pixels
        self.shapes: set[tuple[int, ...]] = set()  # [H, W, C], of all images
        self.largest = 0  # grey levels

    def watching(self, coded: Iterable[Coded]) -> Iterator[Chunk]:
        """The chunks, while their images are looked at."""
        for each in coded:
            self.add(each.images, each.levels)
            yield each.chunk

    def add(self, images: np.ndarray, levels: np.ndarray) -> None:
        """levels: what the file makes of images, uint8 ``[n, H, W, C]`` both, or of the first."""
        self.raw += images.size
        self.shapes.add(images.shape[1:])
        wanted = min(SAMPLE, max(SAMPLE_VALUES // images[0].size, 1)) - sum(map(len, self._sample))
        if len(self.shapes) == 1 and wanted > 0:
            self._sample.append(images[:wanted])
        decoded = images[: len(levels)]
        errors = metrics.mse_of_each(levels, decoded)
        at = int(errors.argmax())
        self._worst = max(self._worst, (float(errors[at]), self.count + at), key=lambda w: w[0])
        self._sum += float(errors.sum())
        self._decoded += len(decoded)
        self._far += len(self._unusual(errors))
        if self._min_psnr is not None:
            self._below += int((metrics.psnr(errors) < self._min_psnr).sum())
        self.largest = max(self.largest, metrics.largest_error(levels, decoded))
        self.count += len(images)

    @property
    def psnr(self) -> float:
        """dB, of the mean error of all images."""
        return float(metrics.psnr(self._sum / self._decoded))

    @property
    def worst(self) -> str:
        """The image of the largest error."""
        number = self._worst[1]
        return self._names[number] if self._names else f"image {number}"

    @property
    def worst_psnr(self) -> float:
        return float(metrics.psnr(self._worst[0]))

    def png_bytes(self) -> float | None:
        """Mean bytes of an image as a PNG file, over the first ones; None if it cannot be one, or
        images are of several sizes."""
        if len(self.shapes) > 1:
            return None
        return bytes_as(".png", np.concatenate(self._sample))

    def require(self, remedy: str) -> None:
        """Raises DataError, with this remedy, if an image is below ``min_psnr``."""
        if self._below:
            raise DataError(
                f"{self._below} of {counted(self.count, 'image')} below {self._min_psnr:g} dB, the "
                f"worst {self.worst} with {db(self.worst_psnr)}; {remedy}"
            )

    def warnings(self) -> list[str]:
        """Of images that are not of the kind that the model was trained on."""
        if not self._far:
            return []
        are = "is" if self._far == 1 else "are"
        return [
            f"{self._far} of {counted(self._decoded, 'image')} {are} unlike what this model was "
            f"trained on: far worse than its worst image; the worst, {self.worst}, has "
            f"{db(self.worst_psnr)}; --min-psnr refuses, another --ckpt may fit"
        ]
