"""Arrays of images in files: rows of one size, read where they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cvae_jax.data import arrays
from cvae_jax.data.sources.source import File
from cvae_jax.errors import DataError


class Rows:
    """Images of an .npy or IDX file, which is read rather than mapped into memory: the pages of a
    map count as memory in use, and stay."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]):
        self._file, self._offset, self._dtype = File(path), offset, dtype
        self.shape = arrays.images_shape(shape, dtype, str(path))
        if self._file.size < offset + shape[0] * self._row:
            raise DataError(f"{path}: damaged, shorter than its header says")

    @property
    def _row(self) -> int:
        """Bytes of an image."""
        return self._dtype.itemsize * math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        numbers = np.asarray(numbers)
        out = np.empty((len(numbers), *self.shape[1:]), self._dtype)
        # Where a number follows on the one before, the two are read at once.
        ends = [*(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
        start = 0
        for stop in ends if len(numbers) else []:
            first = int(numbers[start])
            if not 0 <= first <= len(self) - (stop - start):
                raise IndexError(f"{self._file.path}: image {first} of {len(self)}")
            data = self._file.read(self._offset + first * self._row, (stop - start) * self._row)
            out[start:stop] = np.frombuffer(data, self._dtype).reshape(-1, *self.shape[1:])
            start = stop
        return arrays.to_images(out, str(self._file.path))

    def name(self, number: int) -> str | None:
        return None


class InMemory:
    """Images of a file that is read into memory, as it has to be unpacked or turned."""

    def __init__(self, path: Path):
        self._path, self._images = path, _read(path)

    def __reduce__(self) -> tuple[type[InMemory], tuple[Path]]:
        return type(self), (self._path,)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        return self._images[numbers]

    def name(self, number: int) -> str | None:
        return None


def _read(path: Path) -> np.ndarray:
    with arrays.explained(path), path.open("rb") as file:
        is_idx = file.read(3).startswith(arrays.IDX_STARTS)
    if is_idx:
        return arrays.to_images(arrays.read_idx(path), str(path))
    return arrays.read_array(path)


def open_array(path: Path) -> Rows | InMemory:
    """The images of an .npy, .npz or IDX file.

    Raises:
      DataError: missing, damaged as far as its header says, pickled, or not images.
    """
    with arrays.explained(path), path.open("rb") as file:
        start = file.read(3)
    if start.startswith(arrays.IDX_STARTS[0]):
        with arrays.opened_idx(path) as (idx, shape):
            offset = idx.tell()
            arrays.check_idx_length(path.stat().st_size - offset, shape, path)
        return Rows(path, offset, np.dtype(np.uint8), shape)
    if start.startswith(arrays.IDX_STARTS) or path.suffix.lower() == ".npz":
        return InMemory(path)
    array = arrays.map_array(path)  # reads the header; of the rest no page is touched
    if isinstance(array, np.memmap) and array.flags.c_contiguous and array.ndim > 1:
        return Rows(path, array.offset, array.dtype, array.shape)
    return InMemory(path)
