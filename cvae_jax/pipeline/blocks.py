"""Images in blocks of one size, however they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cvae_jax import pixels


def count(images: Any) -> int | None:
    """How many images there are; None of an iterable that is no array: nobody knows."""
    return len(images) if hasattr(images, "__array__") or isinstance(images, list | tuple) else None


def of(images: Any, image_shape: tuple[int, int, int], size: int) -> Iterator[np.ndarray]:
    """The images in blocks of ``size``, the last one shorter: uint8 ``[n, H, W, C]`` each.

    images: an array or a memory map, or an iterable of such, of ``pixels.as_images``'s kinds.

    Raises:
      DataError: they are none; when it comes to them.
    """
    parts = [images] if count(images) is not None else images
    arranged = (pixels.as_images(pixels.on_host(part), image_shape) for part in parts)
    return map(pixels.to_levels, recut(arranged, size))


def recut(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The rows of arrays, one after the other, in arrays of ``size``; the last has the rest."""
    held: list[np.ndarray] = []
    have = 0
    for part in parts:
        at = 0
        while at < len(part):
            rows = part[at : at + size - have]
            held.append(rows)
            have += len(rows)
            at += len(rows)
            if have == size:
                yield _joined(held)
                held, have = [], 0
    if held:
        yield _joined(held)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
