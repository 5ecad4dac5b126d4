"""Images held out of the training split, to choose the best checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from cvae_jax.errors import TrainingError


@dataclass(frozen=True)
class TrainingData:
    """A run's images, uint8 ``[N, H, W, C]``, and what is recorded about them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    name: str
    fingerprint: str  # of the training split, validation images included

    @classmethod
    def split(
        cls, name: str, train: np.ndarray, test: np.ndarray, validation_fraction: float
    ) -> TrainingData:
        """Holds out a share of the training split, always the same images of the same split.

        Raises:
          TrainingError: there are fewer than 2 training images.
        """
        if len(train) < 2:
            raise TrainingError(f"{name}: fewer than 2 training images")
        order = np.random.default_rng(0).permutation(len(train))
        held_out = min(max(1, round(len(train) * validation_fraction)), len(train) - 1)
        digest = hashlib.sha256(f"{train.dtype} {train.shape}".encode())
        digest.update(np.ascontiguousarray(train).data)
        validation, rest = train[order[:held_out]], train[order[held_out:]]
        return cls(rest, validation, test, name, digest.hexdigest())

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each part has."""
        return {part: len(getattr(self, part)) for part in ("train", "validation", "test")}
