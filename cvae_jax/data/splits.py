"""Splits that depend only on the examples' keys, not on any library's random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

SPLITS = ("train", "test", "all")
TEST_FRACTION = 10  # one example in this many, for sources without splits of their own


def position(number: int) -> bytes:
    """The key of an example that has no name: its position, in decimal."""
    return b"%d" % number


def member(count: int, split: str, key: Callable[[int], bytes] = position) -> np.ndarray:
    """bool [count]: which examples belong to ``split``, for a source without splits of its own.

    One example in ten, and at least one, is for testing: those whose key has the smallest
    SHA-256.  The others are for training.
    """
    if split == "all" or not count:
        return np.ones(count, bool)
    wanted = max(1, count // TEST_FRACTION)

    def digest(number: int) -> bytes:
        return hashlib.sha256(key(number)).digest()

    # The first eight bytes decide for all but those that share them with the last one chosen:
    # whole digests of millions of keys would take gigabytes.
    starts = np.fromiter((digest(i)[:8] for i in range(count)), "S8", count).view(">u8")
    last = np.partition(starts, wanted - 1)[wanted - 1]
    test = starts < last
    tied = sorted(np.flatnonzero(starts == last).tolist(), key=digest)
    test[tied[: wanted - int(test.sum())]] = True
    return test if split == "test" else ~test
