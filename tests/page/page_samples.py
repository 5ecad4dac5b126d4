"""Files for the tests of the page, and the page's codec in Node."""

import hashlib

import numpy as np
import pytest

from benchmarks.page.node import NODE

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")


def sha256(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def digits(n, seed=0):
    """Images that look like some: strokes of random walks, uint8 ``[n, 28, 28, 1]``."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n, 28, 28, 1))
    for image in out:
        y, x = rng.uniform(8, 20, 2)
        angle = rng.uniform(0, 6.3)
        for _ in range(40):
            angle += rng.normal(0, 0.4)
            y = np.clip(y + np.sin(angle) / 2, 4, 23)
            x = np.clip(x + np.cos(angle) / 2, 4, 23)
            for i in range(-1, 2):
                for j in range(-1, 2):
                    near = np.exp(-((int(y) + i - y) ** 2 + (int(x) + j - x) ** 2))
                    image[int(y) + i, int(x) + j] = max(image[int(y) + i, int(x) + j, 0], near)
    return np.rint(out * 255).astype(np.uint8)
