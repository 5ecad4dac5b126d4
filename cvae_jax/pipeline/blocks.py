"""Images in blocks of one size, however they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cvae_jax import pixels
from cvae_jax.errors import DataError


def count(images: Any, image_shape: tuple[int, int, int]) -> int | None:
    """How many images an array, or a list of single ones, has; None of any other iterable: nobody
    knows."""
    if isinstance(images, list | tuple):
        alone = all(pixels.is_single(image, image_shape) for image in images)
        return len(images) if alone else None
    return len(images) if hasattr(images, "__array__") else None


def of(images: Any, image_shape: tuple[int, int, int], size: int) -> Iterator[np.ndarray]:
    """The images in blocks of ``size``, the last one shorter: uint8 ``[n, H, W, C]`` each.

    images: an array or a memory map, or an iterable of such, of ``pixels.as_images``'s kinds.

    Raises:
      DataError: they are none; when it comes to them.
    """
    whole = count(images, image_shape) is not None
    if not whole and not isinstance(images, Iterable):
        raise DataError(f"expected images, or an iterable of them, not {type(images).__name__}")

    def arranged() -> Iterator[np.ndarray]:
        for part in [images] if whole else images:
            checked = pixels.as_images(pixels.on_host(part), image_shape)
            # An iterable may reuse its memory as soon as it is asked for the next.
            yield checked if whole else np.array(checked)

    return map(pixels.to_levels, recut(arranged(), size))


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
