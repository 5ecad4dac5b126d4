"""The linear codec that a neural one has to beat: principal components, coded the same way."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from cvae_jax import bitstream
from cvae_jax.coding import quantize
from cvae_jax.coding.mixture import fit_tables
from cvae_jax.coding.tables import Tables
from cvae_jax.pixels import to_levels, to_unit

STEP = quantize.UNITS_PER_SIGMA


class PCA(NamedTuple):
    mean: np.ndarray  # [P]
    basis: np.ndarray  # [P, D], orthonormal columns
    tables: Tables

    def code(self, images: np.ndarray, halvings: int) -> tuple[int, np.ndarray]:
        """Bytes of an archive of uint8 ``[N, H, W, C]`` images, and what it decodes to.

        The step is halved so many times from one unit of pixel difference.
        """
        step = STEP >> halvings
        flat = to_unit(images).reshape(len(images), -1)
        symbols = quantize.quantize((flat - self.mean) @ self.basis, self.tables, step)
        identity = bitstream.Identity(bytes(16), self.tables.digest[:16])
        header = bitstream.Header(images.shape[1:], self.basis.shape[1], identity)
        file = io.BytesIO()
        writer = bitstream.Writer(file, header)
        decoded = quantize.dequantize(symbols, self.tables, step) @ self.basis.T + self.mean
        levels = to_levels(np.clip(decoded, 0, 1)).reshape(images.shape)
        writer.add(symbols, step, self.tables, levels)
        writer.finish()
        return file.tell(), levels


def fit(images: np.ndarray, components: int) -> PCA:
    """The principal components of uint8 ``[N, H, W, C]`` images, and tables for them."""
    flat = to_unit(images).reshape(len(images), -1)
    mean = flat.mean(0)
    covariance = (flat - mean).T @ (flat - mean) / len(flat)
    basis = np.linalg.eigh(covariance.astype(np.float64))[1][:, ::-1][:, :components]
    # An orthonormal basis spreads every dimension's error alike: one unit for all of them.
    tables = fit_tables((flat - mean) @ basis, np.ones(components))
    return PCA(mean, basis, tables)
