"""Encoded images, wherever they are stored, decoded when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from cvae_jax.data import image_files
from cvae_jax.data.sources.names import Names
from cvae_jax.data.sources.source import reading
from cvae_jax.errors import DataError


class Stored(Protocol):
    """Image files by number, somewhere; pickled like a ``FileSource``."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> bytes:
        """The content of a file.  Raises DataError."""
        ...

    def name(self, number: int) -> str | None: ...

    def shown(self, number: int) -> str:
        """What an image is called where something is wrong with it."""
        ...


class ShapeError(DataError):
    """An image is of another shape than the others."""


class Images:
    """Images of one shape, ``[H, W, C]``, by default the first one's.

    resize: stretches those of another size; grayscale: makes coloured ones grey.
    """

    def __init__(
        self,
        stored: Stored,
        image_shape: tuple[int, int, int] | None = None,
        *,
        resize: bool = False,
        grayscale: bool = False,
    ):
        self.stored = stored
        if image_shape is None:
            image_shape = image_files.decode(stored.read(0), stored.shown(0), None, None).shape
        self._image_shape, self._resize, self._grayscale = image_shape, resize, grayscale

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.stored), *self._image_shape)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        images = np.empty((len(numbers), *self._image_shape), np.uint8)
        for at, number in enumerate(np.asarray(numbers).tolist()):
            images[at] = self._image(number)
        return images

    def name(self, number: int) -> str | None:
        return self.stored.name(number)

    def _image(self, number: int) -> np.ndarray:
        shown, (h, w, channels) = self.stored.shown(number), self._image_shape
        image = image_files.decode(
            self.stored.read(number),
            shown,
            (h, w) if self._resize else None,
            # Otherwise the image says, so that colours are not lost unasked.
            1 if self._grayscale else 3 if channels == 3 else None,
        )
        if image.shape[2] < channels:
            image = np.repeat(image, channels, axis=2)
        if image.shape != self._image_shape:
            flags = ["--resize"] * (image.shape[:2] != (h, w))
            flags += ["--grayscale"] * (image.shape[2] != channels)
            raise ShapeError(
                f"{shown}: {words(image.shape)}, expected {words(self._image_shape)}; "
                f"{' '.join(flags)} converts"
            )
        return image


class Part:
    """Some of the image files that are stored somewhere, by their numbers there."""

    def __init__(self, stored: Stored, numbers: list[int]):
        self._stored, self._numbers = stored, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, number: int) -> bytes:
        return self._stored.read(self._numbers[number])

    def name(self, number: int) -> str | None:
        return self._stored.name(self._numbers[number])

    def shown(self, number: int) -> str:
        return self._stored.shown(self._numbers[number])


class Files:
    """Image files of a folder."""

    def __init__(self, folder: Path, names: list[str]):
        self._folder, self._names = folder, Names(names)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, number: int) -> bytes:
        path = self._folder / self._names[number]
        with reading(path):
            return path.read_bytes()

    def name(self, number: int) -> str:
        return self._names[number]

    def key(self, number: int) -> bytes:
        return self._names.key(number)

    def shown(self, number: int) -> str:
        return str(self._folder / self._names[number])


def words(shape: tuple[int, ...]) -> str:
    """A shape ``[H, W, C]`` as a message says it."""
    return f"{shape[0]}x{shape[1]} {'grey' if shape[2] == 1 else 'colour'}"
