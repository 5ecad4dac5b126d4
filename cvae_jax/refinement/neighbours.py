"""What the distribution of a pixel depends on: pixels that are coded before it, and the base.

Channel by channel, each row by row.  What a reader knows when it comes to a pixel is the *causal*
pixels of its channel, above and to the left; all of the *base*, the image that the file's symbols
decode to; and all of the earlier channels.
"""

from __future__ import annotations

import numpy as np

# Runs of causal pixels: rows and columns from the pixel, the last column exclusive.
CAUSAL_RUNS = ((-4, -1, 2), (-3, -2, 3), (-2, -3, 4), (-1, -3, 4), (0, -4, 0))
CAUSAL = tuple((row, column) for row, low, high in CAUSAL_RUNS for column in range(low, high))
AROUND = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
LEFT, UP, CORNER = (CAUSAL.index(at) for at in ((0, -1), (-1, 0), (-1, -1)))
MARGIN = 4  # zeros around an image, so that every pixel has all neighbours

MAX_CHANNELS = 4  # what is known of a pixel grows with every channel
BASE_STEP = 8  # of the base, only multiples of this are seen
HIGH = 252  # levels from here on are marked, as those that are 0 are: images often have peaks there
FULL = 255  # what a mark counts
ERROR_UNIT = 4  # what a grey level of the largest error counts


def values(channels: int) -> int:
    """How many neighbours a pixel has, of the base and of earlier channels too."""
    return len(CAUSAL) + len(AROUND) * channels


def inputs(channels: int) -> int:
    """How many numbers the network gets: the values, two marks of each, and three more."""
    return 3 * values(channels) + 3


def padded(images: np.ndarray) -> np.ndarray:
    """uint8 ``[N, H, W, C]`` -> ``[C, H + 2 * MARGIN, W + 2 * MARGIN, N]``, zeros around."""
    around = (MARGIN, MARGIN)
    return np.pad(images.transpose(3, 1, 2, 0), ((0, 0), around, around, (0, 0)))


def coarse(base: np.ndarray) -> np.ndarray:
    """What is seen of a base, uint8 of any shape."""
    return base // BASE_STEP * BASE_STEP


def expected(
    left: np.ndarray, up: np.ndarray, corner: np.ndarray, shift: np.ndarray | None = None
) -> np.ndarray:
    """The level that a pixel is likely to have, int16 of the arguments' shape, from 0 to 255.

    Of one channel that is JPEG-LS's guess (Weinberger et al. 2000, eq. 1), the median of left, up
    and left + up - corner; shift: by how much such a guess missed in the channel before.
    """
    left, up = left.astype(np.int16), up.astype(np.int16)
    low, high = np.minimum(left, up), np.maximum(left, up)
    guess = np.clip(left + up - corner, low, high)
    return guess if shift is None else np.clip(guess + shift, 0, 255)


def missed(images: np.ndarray) -> np.ndarray:
    """By how much ``expected``, of each channel alone, misses: int16, for the channel after it.

    images: as ``padded`` makes them, ``[C, ..., N]`` -> ``[C, H, W, N]``.
    """
    inner = slice(MARGIN, -MARGIN)
    left, up, corner = (
        images[:, MARGIN + row : row - MARGIN, MARGIN + column : column - MARGIN]
        for row, column in (CAUSAL[LEFT], CAUSAL[UP], CAUSAL[CORNER])
    )
    return images[:, inner, inner] - expected(left, up, corner)
