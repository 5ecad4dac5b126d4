"""Images held out of the training split, to choose the best checkpoint."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from cvae_jax.data.sources import Source, Subset, blocks, to_memory
from cvae_jax.errors import TrainingError

# More than these tell no better which checkpoint is best, and they are kept in memory.
MOST_HELD_OUT = 20_000
PATIENCE = 3  # seconds before it is shown how far the fingerprint is


@dataclass(frozen=True)
class TrainingData:
    """A run's images, uint8 ``[N, H, W, C]``, and what is recorded about them."""

    train: Source
    validation: np.ndarray
    test: Source
    name: str
    fingerprint: str  # of the training split, validation images included

    @classmethod
    def split(
        cls, name: str, train: Source, test: Source, validation_fraction: float
    ) -> TrainingData:
        """Holds out a share of the training split; as ``hold_out``."""
        rest, validation = hold_out(name, train, validation_fraction)
        return cls(rest, validation, test, name, fingerprint(train))

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each part has."""
        return {part: len(getattr(self, part)) for part in ("train", "validation", "test")}


def hold_out(name: str, train: Source, fraction: float) -> tuple[Source, np.ndarray]:
    """The other images, and those held out, always the same of the same split; at most
    ``MOST_HELD_OUT``, which are read into memory.

    Raises:
      TrainingError: there are fewer than 2 training images.
    """
    if len(train) < 2:
        raise TrainingError(f"{name}: fewer than 2 training images")
    order = np.random.default_rng(0).permutation(len(train))
    held_out = min(max(1, round(len(train) * fraction)), len(train) - 1, MOST_HELD_OUT)
    if isinstance(train, np.ndarray):
        return train[order[held_out:]], train[order[:held_out]]
    return Subset(train, order[held_out:]), to_memory(Subset(train, order[:held_out]))


def fingerprint(images: Source) -> str:
    """SHA-256 of the images' shape and pixels, in order."""
    digest = hashlib.sha256(f"uint8 {images.shape}".encode())
    with tqdm(
        total=len(images),
        desc="look at all images",
        unit="image",
        delay=PATIENCE,
        disable=not sys.stderr.isatty(),
    ) as bar:
        for block in blocks(images):
            digest.update(np.ascontiguousarray(block).data)
            bar.update(len(block))
    return digest.hexdigest()
