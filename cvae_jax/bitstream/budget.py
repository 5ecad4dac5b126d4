"""What reading one file may cost: the only place that says so.

Each cost is known, or bounded, before memory or time is spent on it, and then has to be within
its limit: an absolute, and as much again for each byte of the file (without the model that it may
carry: bytes that are no images pay for none).  An honest file stays far below; whoever trusts a
file that does not gives a larger ``Budget``.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import NamedTuple

from cvae_jax.errors import CostError


class Limit(NamedTuple):
    what: str
    always: int  # whatever the size of the file
    per_byte: int


# Of the released models' archives at quality 50, a byte holds some 80 pixels, 4 symbols and
# 120 lookups, each about 50 ns; of photos32's at quality 0 700 pixel values, 350 symbols and 1,400
# lookups; and where every image is a chunk of its own, some 3,000.
PIXELS = Limit("pixel values at once", 1 << 24, 1 << 10)
SYMBOLS = Limit("symbols in a chunk", 1 << 22, 64)
LOOKUPS = Limit("lookups of symbols", 1 << 26, 1 << 12)
TEXT = Limit("bytes of names or labels", 1 << 24, 16)
# Of a lossless archive of MNIST, a byte holds some 4 distributions, each about 1 µs, or 300 where
# every image is a chunk of its own.
DISTRIBUTIONS = Limit("distributions of pixels", 1 << 23, 1 << 10)
# Turns of a map's prior, each about 60 µs: an image of 600x600 pixels takes 2,400.
TURNS = Limit("turns of its prior", 1 << 13, 1)
# Only of a model that came with the file, or for images whose size the file names: any other is
# trusted.
MULTIPLY_ADDS = Limit("multiply-adds of its model", 1 << 37, 1 << 23)
ACTIVATIONS = Limit("bytes of memory to compute its model", 1 << 28, 0)
NUMBERS = Limit("numbers of its model", 1 << 23, 0)  # each some 24 bytes; mnist-hq has 400,000

# In lookups, what making a model ready for another size takes, at most once for each chunk.
RESIZING = 1 << 17

MICROBATCH = 32  # images that a model holds in memory at once, at most


def at_once(memory: int) -> int:
    """How many images of so many bytes a model holds in memory at once: a power of two, at least
    1."""
    room = max(min(ACTIVATIONS.always // memory, MICROBATCH), 1)
    return 1 << (room.bit_length() - 1)


@dataclass(frozen=True)
class Budget:
    """The limits, times ``scale``."""

    scale: float = 1.0

    def require(self, limit: Limit, wanted: int, size: int) -> None:
        """Raises CostError unless a file of ``size`` bytes may cost so much."""
        allowed = int(min((limit.always + limit.per_byte * size) * self.scale, 1 << 63))
        if wanted > allowed:
            raise CostError(
                f"reading {size} bytes would take {wanted} {limit.what}, and {allowed} is the "
                "limit: read fewer images at once, or raise the limit if you trust the file"
            )


DEFAULT = Budget()
UNLIMITED = Budget(math.inf)  # of what was just written here


class Meter:
    """What is spent of one limit, bit by bit, in any number of threads."""

    def __init__(self, limit: Limit, allowed: Budget, size: int):
        self._limit, self._allowed, self._size = limit, allowed, size
        self._spent = 0
        self._lock = threading.Lock()

    def spend(self, cost: int) -> None:
        """Raises CostError if that is more than may be spent in all."""
        with self._lock:
            # What is refused is not spent: other parts of a file may be read all the same.
            self._allowed.require(self._limit, self._spent + cost, self._size)
            self._spent += cost
