"""Splits that depend only on the examples' keys, not on any library's random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "test", "all")
TEST_FRACTION = 10  # one example in this many, for sources without splits of their own


def numbers(count: int) -> list[bytes]:
    """Keys of examples that have no names: their positions, in decimal."""
    return [b"%d" % i for i in range(count)]


def member(keys: Sequence[bytes], split: str) -> np.ndarray:
    """bool [N]: which examples belong to ``split``, for a source without splits of its own.

    One example in ten, and at least one, is for testing: those whose key has the smallest
    SHA-256.  The others are for training.
    """
    if split == "all":
        return np.ones(len(keys), bool)
    ranks = sorted(range(len(keys)), key=lambda i: hashlib.sha256(keys[i]).digest())
    test = np.zeros(len(keys), bool)
    test[ranks[: max(1, len(keys) // TEST_FRACTION)]] = True
    return test if split == "test" else ~test
