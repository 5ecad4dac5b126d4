"""Datasets that are image files: in a folder, a tar, a zip, or prepared by tensorflow-datasets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data import image_files, splits
from cvae_jax.data.sources import Files, Images, Packed, Source, Stored, Subset


class Collection(NamedTuple):
    """Image files, and which of them are in the split that is wanted."""

    stored: Stored
    chosen: np.ndarray  # bool [N]
    channels: int | None  # of its images, if anything but they says so

    def load(self, image_size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
        """The chosen images, uint8 ``[n, H, W, C]``.

        All are read whatever the split: whether they agree in size, and whether all are grey, must
        not depend on it.
        """
        images = self._decoded(image_size, channels or self.channels)
        named = ((self.stored.shown(i), image) for i, image in enumerate(images))
        return image_files.stack(named)[self.chosen]

    def source(self, image_size: tuple[int, int] | None, channels: int | None) -> Source:
        """The same images, read when they are wanted; one of another size is noticed then."""
        h, w = image_size or self.shape()[:2]
        channels = channels or self.channels or (3 if self._any_is_coloured() else 1)
        images = Images(
            self.stored, (h, w, channels), resize=image_size is not None, grayscale=channels == 1
        )
        return images if self.chosen.all() else Subset(images, np.flatnonzero(self.chosen))

    def shape(self) -> tuple[int, ...]:
        """``[H, W, C]`` of the first image."""
        return image_files.decode(self.stored.read(0), self.stored.shown(0), None, None).shape

    def shapes(self) -> Counter[tuple[int, ...]]:
        """How many of all images are of each shape ``[H, W, C]``; those of grey pixels have C 1."""
        return Counter(image.shape for image in self._decoded(None, self.channels))

    def names(self) -> list[str] | None:
        """The paths of all images inside their folder, tar or zip; None where some have none."""
        found = [self.stored.name(i) for i in range(len(self.stored))]
        return None if None in found else [str(name) for name in found]

    def size(self, image_size: tuple[int, int] | None, channels: int | None) -> int:
        """Bytes of the chosen images' pixels, if all are like the first."""
        shape = (*(image_size or self.shape()[:2]), channels or self.channels or 3)
        return int(self.chosen.sum()) * math.prod(shape)

    def _any_is_coloured(self) -> bool:
        return any(image.shape[2] == 3 for image in self._decoded((1, 1), None))

    def _decoded(
        self, image_size: tuple[int, int] | None, channels: int | None
    ) -> Iterator[np.ndarray]:
        for i in range(len(self.stored)):
            yield image_files.decode(
                self.stored.read(i), self.stored.shown(i), image_size, channels
            )


def of_folder(folder: Path, split: str) -> Collection:
    """A folder with subfolders ``train`` and ``test`` is split by them, any other by a hash of the
    files' relative paths."""
    return _named(Files(folder, image_files.image_names(folder)), split, 0)


def of_packed(stored: Packed, split: str) -> Collection:
    """The same of a tar or zip, in which these two may be in the one folder that holds all."""
    tops = {name.partition("/")[0] for name in map(stored.name, range(len(stored)))}
    return _named(stored, split, int(len(tops) == 1))


def _named(stored: Files | Packed, split: str, depth: int) -> Collection:
    n = len(stored)
    folders = [_folder(stored.name(i), depth) for i in range(n)]
    if {"train", "test"} <= set(folders):
        chosen = np.array([split in ("all", folder) for folder in folders])
    else:
        chosen = splits.member(n, split, stored.key)
    return Collection(stored, chosen, None)


def _folder(name: str, depth: int) -> str:
    """The folder at this depth that a file is in; nothing if it is in none."""
    return (name.split("/")[depth:-1] or [""])[0]
