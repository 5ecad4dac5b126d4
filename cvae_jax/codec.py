"""The codec: images to latents and back, from a checkpoint.

    from cvae_jax import codec

    c = codec.load("checkpoints/mnist")
    z = c.encode(images)            # [N, 16] float32
    x = c.decode(z)                 # [N, 28, 28, 1] float32 in [0, 1]

    data = c.compress(images)       # bytes of a file
    x = c.decompress(data)          # [N, 28, 28, 1] uint8
    c.open("digits.cvae")[1234]     # one image of an archive

``encode`` and ``decode`` are also pure functions of parameters and arrays, for use inside
jitted code; ``Codec`` adds checked input, any number of images and bounded memory.
"""

from __future__ import annotations

import builtins
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax import backend, bitstream, checkpoint, embedded, quantize
from cvae_jax.archive import Archive, Progress, ignore
from cvae_jax.batching import chunked, stream
from cvae_jax.config import Config, ModelConfig
from cvae_jax.entropy import Tables
from cvae_jax.errors import CheckpointError, ConfigError, DataError, FormatError
from cvae_jax.modules import Decoder, Encoder, Posterior, abstract_params
from cvae_jax.quantize import DEFAULT_QUALITY
from cvae_jax.rdo import Refiner

DEFAULT_MODEL = ModelConfig()
BLOCK = 2048  # images that are encoded between two reports of progress
TABLES = "tables.bin"  # of a checkpoint, attached by calibration


def encode(params: dict, images: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Latents, the posterior's means: ``[B, H, W, C]``, uint8 or in [0, 1], -> ``[B, D]``."""
    return posterior(params, images, model).z_mean


def posterior(params: dict, images: Array, model: ModelConfig = DEFAULT_MODEL) -> Posterior:
    """Means and log-variances of the latents: ``[B, H, W, C]`` as for ``encode`` -> two ``[B, D]``.

    Raises:
      DataError: integers other than uint8, whose scale is not known.
    """
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    elif not jnp.issubdtype(images.dtype, jnp.floating):
        raise DataError(f"expected images as uint8 or float in [0, 1], got {images.dtype}")
    return Encoder(model).apply({"params": params["encoder"]}, images)


def decode(params: dict, z: Array, model: ModelConfig = DEFAULT_MODEL) -> Array:
    """Images in [0, 1] of latents: ``[B, D] -> [B, H, W, C]``."""
    return jax.nn.sigmoid(Decoder(model).apply({"params": params["decoder"]}, z))


@dataclass(frozen=True, eq=False)
class Codec:
    """A trained model, ready for use; make one with ``load``."""

    model: ModelConfig
    params: dict
    record: dict[str, Any]  # what the checkpoint says of its making: dataset, versions, ...
    tables: Tables | None = None  # for bytes; encode and decode do without
    embedded_in: bitstream.Identity | None = None  # the archive that it came with, if any

    # The jitted functions close over the parameters: XLA then lays the kernels out once, when it
    # compiles.  As arguments they would be laid out at every call, half of the time of one image.

    @functools.cached_property
    def _posterior(self) -> Callable[[Array], Posterior]:
        return jax.jit(chunked(lambda images: posterior(self.params, images, self.model)))

    @functools.cached_property
    def _z_mean(self) -> Callable[[Array], Array]:
        return jax.jit(chunked(lambda images: encode(self.params, images, self.model)))

    @functools.cached_property
    def _pixels(self) -> Callable[[Array], Array]:
        return jax.jit(chunked(lambda z: decode(self.params, z, self.model)))

    def encode(self, images: Any) -> np.ndarray:
        """The latents of images, ``[N, D]`` float32: the posterior's means, always the same.

        images: uint8, or float in [0, 1]; ``[N, H, W, C]``, or ``[N, H, W]``, ``[H, W, C]``,
        ``[H, W]`` (the last two give ``[1, D]``); N may be 0.

        Raises:
          DataError: another size, dtype or range, or NaN.
          CheckpointError: this codec came with an archive, and has no encoder.
        """
        return stream(self._z_mean, self._images(images))

    def posterior(self, images: Any) -> Posterior:
        """Means and log-variances of the latents, two ``[N, D]``; input as for ``encode``."""
        return stream(self._posterior, self._images(images))

    def decode(self, z: Any) -> np.ndarray:
        """Images in [0, 1], float32 ``[N, H, W, C]``, of latents ``[N, D]`` or ``[D]``.

        Raises:
          DataError: another shape or dtype, or a value that is not finite.
        """
        try:
            z = np.asarray(z)
        except ValueError as error:
            raise DataError(f"expected an array of latents ({error})") from error
        if z.ndim == 1:
            z = z[None]
        d = self.model.latent_dim
        if z.ndim != 2 or z.shape[1] != d:
            raise DataError(f"expected latents of shape [N, {d}] or [{d}], got {list(z.shape)}")
        if z.dtype.kind not in "fiu":
            raise DataError(f"expected latents as numbers, got dtype {z.dtype}")
        with np.errstate(over="ignore"):  # infinity is refused next
            z = z.astype(np.float32, copy=False)
        if not np.isfinite(z).all():
            raise DataError("latents hold NaN or infinity; expected finite numbers")
        return stream(self._pixels, z)

    def sample(self, key: Array, n: int) -> np.ndarray:
        """``n`` images decoded from the prior, float32 ``[n, H, W, C]``; the key decides which."""
        return self.decode(jax.random.normal(key, (n, self.model.latent_dim)))

    def sample_posterior(self, key: Array, images: Any) -> np.ndarray:
        """One random latent per image from its posterior, ``[N, D]``; see ``encode``."""
        posterior = self.posterior(images)
        noise = jax.random.normal(key, posterior.z_mean.shape)
        return np.asarray(posterior.sample(noise))

    # Files

    def compress(
        self,
        images: Any,
        quality: float = DEFAULT_QUALITY,
        effort: int = 0,
        *,
        names: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        embed_model: str | None = None,
        progress: Progress = ignore,
    ) -> bytes:
        """A file: of one image (``[H, W]`` or ``[H, W, C]``), or an archive (``[N, ...]``).

        quality: 0 to 100, bytes and fidelity rise with it; ``find_quality`` chooses one.
        effort: 0 to 9, rounds of looking for better symbols (``rdo``), paid for here alone.
        names, labels: of an archive's images, text and integers from 0 to 2**32 - 1.
        embed_model: "float16" or "float32": the archive carries its decoder; ``load`` takes it.
        progress: told, now and then, how many more images are done.

        Raises:
          CheckpointError: the checkpoint has no coding tables.
          ConfigError, DataError: an impossible setting or image.
        """
        alone = np.ndim(images) == 2 or np.shape(images) == self.model.image_shape
        if alone and (names is not None or labels is not None or embed_model):
            raise ConfigError("a single image has no names, labels or embedded model")
        symbols, step = self.symbols(images, quality, effort, progress)
        if alone:
            return self.pack_single(symbols[0], step)
        for what, given in (("names", names), ("labels", labels)):
            if given is not None and len(given) != len(symbols):
                raise DataError(f"{len(given)} {what} for {len(symbols)} images")
        model = None
        if embed_model:
            model = embedded.pack(self.model, self.params, self.coding_tables, embed_model)
        file = io.BytesIO()
        writer = bitstream.Writer(file, self.header, model)
        writer.add(symbols, step, self.coding_tables, names, labels)
        writer.finish()
        return file.getvalue()

    def symbols(
        self,
        images: Any,
        quality: float = DEFAULT_QUALITY,
        effort: int = 0,
        progress: Progress = ignore,
    ) -> tuple[np.ndarray, int]:
        """What ``compress`` codes: int32 ``[N, D]``, and the quantiser's step in units."""
        if not 0 <= effort <= 9:
            raise ConfigError(f"effort must be from 0 to 9, not {effort}")
        step, tables = quantize.step(quality), self.coding_tables
        images = self._images(images)
        out = np.empty((len(images), self.model.latent_dim), np.int32)
        for start in range(0, len(images), BLOCK):
            rows = slice(start, start + BLOCK)
            z_mean = stream(self._z_mean, images[rows])
            out[rows] = quantize.quantize(z_mean, tables, step)
            if effort:
                out[rows] = self._refiner.refine(images[rows], out[rows], step, effort)
            progress(len(z_mean))
        return out, step

    def pack_single(self, symbols: np.ndarray, step: int) -> bytes:
        """The file of one image: its int32 ``[D]`` symbols, of this step."""
        return bitstream.single.encode(symbols, step, self.coding_tables, self.identity)

    def find_quality(
        self,
        images: Any,
        *,
        target_bytes: float | None = None,
        target_psnr: float | None = None,
        effort: int = 0,
    ) -> int:
        """The quality that meets a target, by bisection.

        target_bytes: at most so many per image, everything in the file included.
        target_psnr: at least so many dB, of the mean squared error over all images.

        Raises:
          ConfigError: not exactly one target, or one that no quality meets.
        """
        if (target_bytes is None) == (target_psnr is None):
            raise ConfigError("give one of target_bytes and target_psnr")
        arranged = self._images(images)
        if not len(arranged):
            raise DataError("no images to find a quality for")
        levels = arranged if arranged.dtype == np.uint8 else np.rint(arranged * 255)

        def fine_enough(quality: int) -> bool:
            decoded = self.pixels(*self.symbols(arranged, quality, effort))
            mse = np.mean((decoded.astype(np.float32) - levels) ** 2, dtype=np.float64) / 255**2
            return mse <= 10 ** (-target_psnr / 10)

        def too_large(quality: int) -> bool:
            return len(self.compress(images, quality, effort)) > target_bytes * len(arranged)

        reached = fine_enough if target_bytes is None else too_large
        low, high = 0, 101  # the first quality of 0..100 that reached, 101 if none
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle + 1, high)
        found = low if target_bytes is None else low - 1
        if not 0 <= found <= 100:
            target = f"{target_bytes} bytes" if target_psnr is None else f"{target_psnr} dB"
            raise ConfigError(f"no quality from 0 to 100 reaches {target} with these images")
        return found

    def decompress(self, data: bytes, progress: Progress = ignore) -> np.ndarray:
        """The images of an archive or of a single image's file, uint8 ``[N, H, W, C]``.

        Raises:
          FormatError: damaged.
          VersionError: of a newer format.
          ModelMismatchError: compressed with another model.
        """
        if bitstream.is_archive(data):
            return Archive(self, io.BytesIO(data)).read(progress=progress)
        symbols, step = bitstream.single.decode(data, self.coding_tables, self.identity)
        return self.pixels(symbols[None], step)

    def open(self, path: str | Path) -> Archive:
        """An archive for random access: ``archive[i]``, ``archive[i:j]``, ``len(archive)``.

        Raises:
          FormatError, VersionError, ModelMismatchError: as for ``decompress``.
          OSError: it cannot be read.
        """
        file = builtins.open(path, "rb")  # noqa: SIM115, the archive closes it
        try:
            return Archive(self, file)
        except BaseException:
            file.close()
            raise

    def pixels(self, symbols: np.ndarray, step: int) -> np.ndarray:
        """Images of decoded symbols: int32 ``[N, D]`` -> uint8 ``[N, H, W, C]``."""
        return stream(self._levels, quantize.dequantize(symbols, self.coding_tables, step))

    @property
    def coding_tables(self) -> Tables:
        """The tables; raises CheckpointError where the checkpoint has none."""
        if self.tables is None:
            raise CheckpointError(
                "the checkpoint has no coding tables, so it cannot make or read files: "
                "add them with python -m cvae_jax calibrate CHECKPOINT"
            )
        return self.tables

    @functools.cached_property
    def identity(self) -> bitstream.Identity:
        """Digests of the decoder and of the tables, which every file names."""
        tables = self.coding_tables.digest[:16]
        return self.embedded_in or bitstream.Identity(embedded.digest(self.params)[:16], tables)

    @property
    def header(self) -> bitstream.Header:
        """What every archive of this codec starts with."""
        return bitstream.Header(self.model.image_shape, self.model.latent_dim, self.identity)

    @functools.cached_property
    def _levels(self) -> Callable[[Array], Array]:
        def levels(z: Array) -> Array:
            return jnp.round(decode(self.params, z, self.model) * 255).astype(jnp.uint8)

        return jax.jit(chunked(levels))

    @functools.cached_property
    def _refiner(self) -> Refiner:
        return Refiner(lambda z: decode(self.params, z, self.model), self.coding_tables)

    def _images(self, images: Any) -> np.ndarray:
        """Checked and brought to ``[N, H, W, C]``; not copied, however many they are."""
        if "encoder" not in self.params:
            raise CheckpointError(
                "this model came with an archive, and only decodes; name the checkpoint to encode"
            )
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise DataError(f"expected an array of images, all of one size ({error})") from error
        h, w, c = self.model.image_shape
        expected = f"expected images of {h}x{w}, {c} channel{'s' * (c > 1)}: "
        expected += f"[N, {h}, {w}, {c}] or [{h}, {w}, {c}]"
        expected += f", [N, {h}, {w}] or [{h}, {w}]" if c == 1 else ""
        shape = images.shape
        if shape == (h, w, c):
            images = images[None]
        elif c == 1 and (shape == (h, w) or (images.ndim == 3 and shape[1:] == (h, w))):
            images = images.reshape(-1, h, w, 1)
        if images.ndim != 4 or images.shape[1:] != (h, w, c):
            raise DataError(f"{expected}; got shape {list(shape)}")
        if images.dtype == np.uint8:
            return images
        if images.dtype.kind != "f":
            raise DataError(f"expected images as uint8 or float in [0, 1], got {images.dtype}")
        # One pass over the data, and NaN fails both comparisons.
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise DataError(
                "float images must lie in [0, 1] and hold no NaN; "
                f"got values from {images.min():g} to {images.max():g}"
            )
        return images


def load(path: str | Path) -> Codec:
    """The codec of a checkpoint: a workdir of train.py, a step inside it, or a released one.

    An archive that carries its model is a checkpoint too; its codec decodes, and cannot encode.

    Raises:
      CheckpointError: nothing usable is there; the message says what was looked for.
      FormatError: an archive without a model, or damaged coding tables.
    """
    backend.dispatch_inline()
    if Path(path).is_file():
        with builtins.open(path, "rb") as file:
            archive = bitstream.Reader(file)
            return from_embedded(archive.model(), archive.header.identity)
    found = checkpoint.find(path)
    record = checkpoint.read_config(found)
    model = Config.from_dict(record["config"]).model
    params = checkpoint.restore(found, {"params": abstract_params(model)})["params"]
    stored = checkpoint.attached(found, TABLES)
    tables = None if stored is None else Tables.from_bytes(stored)
    return Codec(model, jax.device_put(params), record, tables)


def from_embedded(blob: bytes | None, identity: bitstream.Identity) -> Codec:
    """The codec that an archive of this identity carries; it decodes, and cannot encode.

    Raises:
      FormatError: it carries none, or a damaged one.
    """
    if blob is None:
        raise FormatError("this archive carries no model; name the checkpoint that made it")
    model, params, tables = embedded.unpack(blob)
    return Codec(model, jax.device_put(params), {}, tables, identity)
