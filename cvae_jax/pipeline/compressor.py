"""Images to files, by the model of a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

import numpy as np
from jax import Array

from cvae_jax import bitstream, pixels
from cvae_jax.batching import Stopped, cores, mapped
from cvae_jax.bitstream.archive import OnProgress, unwatched
from cvae_jax.bitstream.writer import Labels, check_enough
from cvae_jax.coding import quantize, search, target
from cvae_jax.coding.maps.prior import MAX_SIDE, MapPrior
from cvae_jax.coding.maps.search import MapRefiner
from cvae_jax.coding.quantize import DEFAULT_QUALITY
from cvae_jax.config import ModelConfig, Size
from cvae_jax.errors import ConfigError, DataError, FormatError
from cvae_jax.file_model import FileModel
from cvae_jax.metrics import mse_of_levels
from cvae_jax.modules import decode
from cvae_jax.pipeline import blocks
from cvae_jax.pipeline.chunks import Coded, Maker
from cvae_jax.pipeline.decompressor import Decompressor
from cvae_jax.refinement import encoder


@dataclass(frozen=True, eq=False, repr=False)
class Compressor(Decompressor):
    """A model that makes files, and reads them."""

    def sized(self, height: int, width: int) -> Self:
        """The same codec for images of another size, of models whose latents are a map.

        What it makes is of the same model, and any codec or reader of that opens it.

        Raises:
          ConfigError: the model has images of its own size alone, or these would be too large.
        """
        for side in (height, width):
            whole = isinstance(side, int | np.integer) and not isinstance(side, bool)
            if not whole or not 1 <= side <= MAX_SIDE:
                raise ConfigError(f"images of {height}x{width}: from 1 to {MAX_SIDE} each way")
        height, width = int(height), int(width)
        if (height, width) == self.image_shape[:2]:
            return self
        trained = self.made_by().config.model
        if (height, width) == trained.image_shape[:2]:
            return self._of(trained, self.files and (self.files.original or self.files), None)
        model, files = trained.of_size(height, width), None
        if self.files is not None:
            try:
                files = (self.files.original or self.files).resized((height, width))
            except FormatError as error:  # of no file, but of what is asked for
                raise ConfigError(str(error)) from error
            files.require_readable()
        return self._of(model, files, (height, width))

    def _of(self, model: ModelConfig, files: FileModel | None, size: Size | None) -> Self:
        return dataclasses.replace(self, model=model, files=files, size=size)

    @functools.cached_property
    def _refiner(self) -> search.Refiner | MapRefiner:
        tables = self.tables
        if isinstance(tables, MapPrior):
            return MapRefiner(tables, self.decode_symbols)

        def pixels_of(z: Array) -> Array:
            return decode(self.params, z, self.model)

        return search.Refiner(pixels_of, tables, self.decode_symbols)

    def compress(
        self,
        images: Any,
        quality: float | None = None,
        effort: int = 0,
        *,
        max_error: int | None = None,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        embed_model: bool = False,
        progress: OnProgress = unwatched,
    ) -> bytes:
        """A file: of one image (``[H, W]`` or ``[H, W, C]``), or an archive (``[N, ...]``).

        quality: 0 to 100, bytes and fidelity rise with it; ``find_quality`` chooses one.  None: 50,
        or, with ``max_error``, what calibration found to make the smallest lossless files.
        max_error: no pixel comes back off by more grey levels than this; 0: lossless.
        effort: 0 to 9, rounds of looking for better symbols, the first of them quick (``search``).
        names, labels: of an archive's images, text and integers from 0 to 2**32 - 1.
        embed_model: the archive carries its decoder; ``load`` takes it.
        progress: called from time to time with the number of images finished since the last call.

        Raises:
          CheckpointError: the checkpoint has no coding tables, or no context model.
          ConfigError, DataError: an impossible setting or image.
        """
        images = pixels.on_host(images)
        arranged = self._images(images)  # refused before anything else is looked at
        if not pixels.is_single(images, self.image_shape):
            file = io.BytesIO()
            self.write(
                file, arranged, quality, effort, max_error=max_error, names=names, labels=labels,
                embed_model=embed_model, progress=progress,
            )  # fmt: skip
            return file.getvalue()
        if names is not None or labels is not None or embed_model:
            raise ConfigError("a single image has no names, labels or embedded model")
        content, _ = self.compress_one(images, quality, effort, max_error=max_error)
        progress(1)
        return content

    def compress_one(
        self,
        image: Any,
        quality: float | None = None,
        effort: int = 0,
        *,
        max_error: int | None = None,
    ) -> tuple[bytes, np.ndarray]:
        """The file of a single image, and what it decodes to, uint8 ``[1, H, W, C]``; arguments,
        and what is raised, as for ``compress``."""
        maker = self._maker(quality, effort, max_error)
        arranged = pixels.to_levels(self._images(pixels.on_host(image)))
        if max_error is not None:
            base, refinement, images = maker.refined(arranged, max_error)
            of_base = base.symbols, base.step, self.tables, self.identity, base.levels
            return bitstream.single.encode_refined(*of_base, refinement, images[0]), images
        symbols = maker.to_symbols(arranged)
        levels = self.decode_symbols(symbols, maker.step)
        return self.file_model.single(symbols[0], maker.step, levels[0]), levels

    def write(
        self,
        file: BinaryIO,
        images: Any,
        quality: float | None = None,
        effort: int = 0,
        *,
        max_error: int | None = None,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        embed_model: bool = False,
        progress: OnProgress = unwatched,
    ) -> None:
        """Writes an archive to a file object, in memory that does not depend on how many images
        there are; arguments, and what is raised, as for ``compress``.

        images: an array, a memory map, or an iterable of arrays of one or more images.
        """
        total = blocks.count(images, self.image_shape)
        if total is not None:
            check_enough(names, labels, total, exactly=True)  # before the work
        writer = self.file_model.writer(
            file, embed_model=embed_model, refined=max_error is not None
        )
        with contextlib.closing(
            self.chunks(images, quality, effort, max_error=max_error)
        ) as chunks:
            writer.append_all((coded.chunk for coded in chunks), names, labels, progress)
        writer.finish()

    def chunks(
        self,
        images: Any,
        quality: float | None = None,
        effort: int = 0,
        *,
        max_error: int | None = None,
        count: int | None = None,
        decode_all: bool = True,
        check: bool = False,
    ) -> Generator[Coded]:
        """The chunks of an archive, which ``file_model.writer`` writes; as many are made at once as
        there are cores.  Arguments, and what is raised, as for ``write``.

        count: of the images, where an iterable does not tell; chunks of files with a bounded error
        are then of about the same size.
        decode_all, check: as for ``pipeline.chunks.Maker``; the first only of lossy files, the
        other of those with a bounded error.
        """
        stop = threading.Event()
        maker = self._maker(quality, effort, max_error, stop)
        if max_error is None:
            size = self.file_model.chunk_images

            def made(block: np.ndarray) -> Coded:
                return maker.lossy(block, decode_all)
        else:
            bound, values = max_error, math.prod(self.image_shape)
            size = encoder.chunk_images(values, count or blocks.count(images, self.image_shape))

            def made(block: np.ndarray) -> Coded:
                return maker.bounded(block, bound, check)

        self.made_by()  # refuses a codec that cannot encode
        return mapped(made, blocks.of(images, self.image_shape, size), stop)

    def _maker(
        self,
        quality: float | None,
        effort: int,
        max_error: int | None,
        stop: threading.Event | None = None,
    ) -> Maker:
        """stop: set when nobody waits for chunks any more; a search then ends soon."""
        search.check_effort(effort)
        self.file_model.require_readable()
        usual = self.file_model.usual_quality(max_error)
        if quality is None:
            quality = usual
        step = quantize.step(DEFAULT_QUALITY if quality is None else quality)
        if effort:
            self._refiner.prepare(step, effort)

        def to_symbols(images: np.ndarray) -> np.ndarray:
            found = []
            size = self._refiner.block if effort else len(images)
            for block in blocks.recut([images], size):
                if stop and stop.is_set():
                    raise Stopped
                found.append(self._symbols(block, self._z_mean(block), step, effort))
            return np.concatenate(found)

        return Maker(self.file_model, to_symbols, step, self.decode_symbols, quality is not None)

    def pack(
        self,
        symbols: np.ndarray,
        step: int,
        *,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        embed_model: bool = False,
        levels: np.ndarray | None = None,
    ) -> bytes:
        """The file of one image, int32 ``[D]`` symbols, or an archive, ``[N, D]``; as ``compress``.

        step: of the quantiser that made the symbols (``encode_symbols``); levels: what they
        decode to (``decode_symbols``), where that is known already.

        Raises:
          DataError: no symbols of this model, or no step.
        """
        symbols = pixels.as_symbols(symbols, step, self.latent_dim)
        alone = symbols.ndim == 1
        if levels is None:
            levels = self.decode_symbols(symbols[None] if alone else symbols, step)
        if alone:
            return self.file_model.single(symbols, step, levels[0])
        size = self.file_model.chunk_images
        parts = [slice(at, at + size) for at in range(0, len(symbols), size)]
        found = (self.file_model.chunk(symbols[part], step, levels[part]) for part in parts)
        return self.file_model.archive(found, names, labels, embed_model=embed_model)

    def encode_symbols(
        self,
        images: Any,
        quality: float | None = None,
        effort: int = 0,
        progress: OnProgress = unwatched,
    ) -> tuple[np.ndarray, int]:
        """What a file holds of images: int32 ``[N, D]``, and the quantiser's step in units."""
        step = quantize.step(DEFAULT_QUALITY if quality is None else quality)
        search.check_effort(effort)
        arranged = pixels.to_levels(self._images(pixels.on_host(images)))
        out = np.empty((len(arranged), self.latent_dim), np.int32)
        block = self._refiner.block if effort else search.BLOCK
        size = block * cores()  # progress is reported after each
        for start in range(0, len(arranged), size):
            rows = slice(start, start + size)
            z_mean = self._z_mean(arranged[rows])
            out[rows] = self._symbols(arranged[rows], z_mean, step, effort)
            progress(len(z_mean))
        return out, step

    def _symbols(
        self, images: np.ndarray, z_mean: np.ndarray, step: int, effort: int
    ) -> np.ndarray:
        if not effort:  # and no search to compile
            return quantize.quantize(z_mean, self.tables, step)
        return self._refiner.refine(images, z_mean, step, effort)

    def find_quality(
        self,
        images: Any,
        *,
        target_bytes: float | None = None,
        target_psnr: float | None = None,
        effort: int = 0,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        embed_model: bool = False,
        progress: OnProgress = unwatched,
    ) -> int:
        """The quality that meets a target, by bisection.

        target_bytes: at most so many per image, of the very file that ``compress`` makes of all
        these arguments; target_psnr: at least so many dB, of the mean squared error over all.
        progress: told how many images each of the ``target.PROBES`` probes, at most, has done.

        Raises:
          ConfigError: not exactly one target, no number, or one that no quality meets.
        """
        if (target_bytes is None) == (target_psnr is None):
            raise ConfigError("give one of target_bytes and target_psnr")
        search.check_effort(effort)
        images = pixels.on_host(images)
        arranged = pixels.to_levels(self._images(images))
        if not len(arranged):
            raise DataError("no images to find a quality for")
        alone = pixels.is_single(images, self.image_shape)
        z_mean = self._z_mean(arranged)  # the same at every quality

        def probe(quality: int) -> tuple[np.ndarray, int]:
            step = quantize.step(quality)
            symbols = self._symbols(arranged, z_mean, step, effort)
            progress(len(symbols))
            return symbols, step

        if target_bytes is not None:
            extras = {"names": names, "labels": labels, "embed_model": embed_model}

            def bytes_per_image(quality: int, **extras: Any) -> float:
                symbols, step = probe(quality)
                # A check takes the same bytes whatever it is of.
                packed = self.pack(
                    symbols[0] if alone else symbols, step, levels=arranged, **extras
                )
                return len(packed) / len(arranged)

            return target.quality_for_bytes(bytes_per_image, target_bytes, extras)
        assert target_psnr is not None  # one of the two is given
        return target.quality_for_psnr(
            lambda quality: mse_of_levels(self.decode_symbols(*probe(quality)), arranged),
            target_psnr,
        )
