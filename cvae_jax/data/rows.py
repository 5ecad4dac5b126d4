"""Arrays of images in files, some rows at a time, so that a file may be larger than memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data import arrays


class Rows(NamedTuple):
    """Images of a file."""

    shape: tuple[int, ...]  # [N, H, W, C]
    # In blocks of so many rows, the last one shorter, uint8 [n, H, W, C]; from the start at each
    # call.  Raises DataError where the file turns out to be damaged, or to hold no images.
    blocks: Callable[[int], Iterator[np.ndarray]]


def open_rows(path: str | Path) -> Rows:
    """The images of an .npy, .npz or IDX file, which is kept in memory only if it is an .npz file
    or stored column by column.

    Raises:
      DataError: missing, damaged as far as its header says, pickled, or not images.
    """
    path = Path(path)
    with arrays.explained(path), path.open("rb") as file:
        start = file.read(3)
    if start.startswith(arrays.IDX_STARTS):
        return _idx_rows(path)
    if path.suffix.lower() != ".npz":
        array = arrays.map_array(path)
        if isinstance(array, np.memmap) and array.flags.c_contiguous and array.ndim > 1:
            return _npy_rows(path, array)
    return _in_memory(arrays.read_array(path))


def _in_memory(images: np.ndarray) -> Rows:
    return Rows(
        images.shape,
        lambda size: (images[k : k + size] for k in range(0, len(images), size)),
    )


def _npy_rows(path: Path, array: np.memmap) -> Rows:
    """array: of the whole file; its pages would stay in memory, so the file is read instead."""
    offset, dtype, shape = array.offset, array.dtype, array.shape
    row = dtype.itemsize * math.prod(shape[1:])

    def blocks(size: int) -> Iterator[np.ndarray]:
        with arrays.explained(path), path.open("rb") as file:
            file.seek(offset)
            for first in range(0, shape[0], size):
                count = min(size, shape[0] - first)
                data = file.read(count * row)
                if len(data) < count * row:
                    raise ValueError("it became shorter while it was read")
                part = np.frombuffer(data, dtype).reshape(count, *shape[1:])
                yield arrays.to_images(part, str(path))

    return Rows((*shape, 1) if len(shape) == 3 else shape, blocks)


def _idx_rows(path: Path) -> Rows:
    def blocks(size: int) -> Iterator[np.ndarray]:
        with arrays.opened_idx(path) as (file, shape):
            for first in range(0, shape[0], size):
                part = (min(size, shape[0] - first), *shape[1:])
                last = first + part[0] == shape[0]
                data = arrays.read_idx_bytes(file, math.prod(part), shape, path, last)
                yield arrays.to_images(np.frombuffer(data, np.uint8).reshape(part), str(path))

    with arrays.opened_idx(path) as (_, shape):
        return Rows((*shape, 1) if len(shape) == 3 else shape, blocks)
