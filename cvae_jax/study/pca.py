"""The linear codec that a neural one has to beat: principal components, coded the same way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cvae_jax import bitstream
from cvae_jax.coding import quantize
from cvae_jax.coding.vectors.mixture import fit_tables
from cvae_jax.coding.vectors.tables import Tables
from cvae_jax.pixels import to_levels, to_unit

SIGMA = 0.25  # of a pixel's range; stands in for a component's uncertainty in the tables


class PCA(NamedTuple):
    mean: np.ndarray  # [P]
    basis: np.ndarray  # [P, D], orthonormal columns
    tables: Tables
    image_shape: tuple[int, int, int]

    @property
    def decoder(self) -> bitstream.FileDecoder:
        identity = bitstream.Identity(bytes(16), self.tables.digest[:16])
        header = bitstream.Header(self.image_shape, self.basis.shape[1], identity)
        return bitstream.FileDecoder(header, self.tables, self.decode_symbols)

    def encode_symbols(self, images: np.ndarray, step: float) -> tuple[np.ndarray, int]:
        """int32 ``[N, D]`` of uint8 ``[N, H, W, C]``, and the step in the tables' units.

        step: the quantiser's, as a fraction of a pixel's range.
        """
        units = round(step / SIGMA * quantize.UNITS_PER_SIGMA)
        flat = to_unit(images).reshape(len(images), -1)
        return quantize.quantize((flat - self.mean) @ self.basis, self.tables, units), units

    def decode_symbols(self, symbols: np.ndarray, units: int) -> np.ndarray:
        """The inverse: uint8 ``[N, H, W, C]``."""
        flat = quantize.dequantize(symbols, self.tables, units) @ self.basis.T + self.mean
        return to_levels(np.clip(flat, 0, 1)).reshape(-1, *self.image_shape)

    def archive(self, images: np.ndarray, step: float) -> bytes:
        """One file of all images; arguments as for ``encode_symbols``."""
        file = io.BytesIO()
        writer = bitstream.Writer(file, self.decoder.header)
        symbols, units = self.encode_symbols(images, step)
        writer.add(symbols, units, self.tables, self.decode_symbols(symbols, units))
        writer.finish()
        return file.getvalue()

    def read(self, archive: bytes) -> np.ndarray:
        """What an archive decodes to, uint8 ``[N, H, W, C]``."""
        return bitstream.Archive(io.BytesIO(archive), self.decoder).read()

    def singles(self, images: np.ndarray, step: float) -> list[bytes]:
        """A file for each image; arguments as for ``encode_symbols``."""
        symbols, units = self.encode_symbols(images, step)
        identity = self.decoder.header.identity
        levels = self.decode_symbols(symbols, units)
        return [
            bitstream.single.encode(one, units, self.tables, identity, image)
            for one, image in zip(symbols, levels, strict=True)
        ]

    def read_singles(self, files: Sequence[bytes]) -> np.ndarray:
        """What the files of single images decode to, uint8 ``[N, H, W, C]``."""
        return np.stack([bitstream.single.decode(file, self.decoder).levels for file in files])


def fit(images: np.ndarray, components: int) -> PCA:
    """The principal components of uint8 ``[N, H, W, C]`` images, and tables for them.

    components: how many; at most as many as an image has values.
    """
    flat = to_unit(images).reshape(len(images), -1)
    mean = flat.mean(0)
    flat = flat - mean  # once, as photographs are many numbers
    covariance = flat.T @ flat / len(flat)
    basis = np.linalg.eigh(covariance.astype(np.float64))[1][:, ::-1][:, :components]
    # In an orthonormal basis an error counts the same in every dimension: one unit for all.
    tables = fit_tables(flat @ basis, np.full(basis.shape[1], SIGMA))
    _, height, width, channels = images.shape
    return PCA(mean, basis, tables, (height, width, channels))
