"""Splits that depend on nothing but the keys of the examples: no library's random stream."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "test", "all")
TEST_FRACTION = 10  # one in so many, where a source has no split of its own


def lowest_ranked(keys: Sequence[bytes], count: int, salt: bytes = b"") -> np.ndarray:
    """bool [N]: the ``count`` examples whose key has the smallest SHA-256 after ``salt``."""
    digests = [hashlib.sha256(salt + key).digest() for key in keys]
    mask = np.zeros(len(keys), bool)
    mask[sorted(range(len(keys)), key=digests.__getitem__)[:count]] = True
    return mask


def numbers(count: int) -> list[bytes]:
    """Keys of examples that have no names: their positions, in decimal."""
    return [b"%d" % i for i in range(count)]


def member(keys: Sequence[bytes], split: str) -> np.ndarray:
    """bool [N]: who belongs to ``split``, for a source that has no split of its own.

    One example in ten, and at least one, is for testing; the others are for training.
    """
    if split == "all":
        return np.ones(len(keys), bool)
    test = lowest_ranked(keys, max(1, len(keys) // TEST_FRACTION))
    return test if split == "test" else ~test
