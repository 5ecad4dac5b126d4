"""The names of the images in a folder, a tar or a zip: which are read, and in which order."""

from __future__ import annotations

import itertools
from pathlib import Path, PurePosixPath

import numpy as np

from cvae_jax.data.image_files import SUFFIXES
from cvae_jax.errors import DataError

MOST_MEMBERS = 5_000_000  # of a tar or zip; their names are a gigabyte while they are sorted
MOST_BYTES = 1 << 28  # of an image's file: the largest image with 16 bits per channel is smaller


def is_image(name: str) -> bool:
    """Whether a path inside a collection is read: by its suffix, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not any(
        part.startswith(".") and part not in (".", "..") for part in name.split("/")
    )


def member_name(name: str, path: Path) -> str:
    """The path of an image inside a tar or zip, without a ``./`` at its start.

    Raises:
      DataError: it leads out of where the file would be unpacked.
    """
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise DataError(f"{path}: the name {name!r} leads out of a folder; pack it anew")
    return "/".join(parts)


class Names:
    """Paths in their order, in one block of bytes: many are to be kept, few to be looked at."""

    def __init__(self, names: list[str]):
        encoded = [_bytes(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def key(self, number: int) -> bytes:
        """What decides which split it belongs to."""
        start = int(self._ends[number - 1]) if number else 0
        return self._bytes[start : int(self._ends[number])]

    def __getitem__(self, number: int) -> str:
        return self.key(number).decode("utf-8", "surrogateescape")


def ordered(names: list[str], path: Path) -> np.ndarray:
    """The order of members by their names, as of the files of a folder: int ``[n]``.

    Raises:
      DataError: there is none, or two have the same name.
    """
    if not names:
        raise DataError(f"{path}: no images in it ({' '.join(SUFFIXES)})")
    order = sorted(range(len(names)), key=names.__getitem__)
    for one, next_one in itertools.pairwise(order):
        if names[one] == names[next_one]:
            raise DataError(f"{path}: two members are called {names[one]}; pack it anew")
    return np.array(order)


def _bytes(name: str) -> bytes:
    # What the system's names are in memory: those that are not UTF-8 stay as they are.
    return name.encode("utf-8", "surrogateescape")
