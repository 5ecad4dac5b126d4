"""Images and latents at the door: what is accepted, and how grey levels become numbers.

A *level* is a uint8 from 0 to 255; a *pixel value* is a float in [0, 1].  ``to_unit`` and
``to_levels`` are the only places where one becomes the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvae_jax.errors import DataError


def to_unit(images: Any) -> Any:
    """Levels as float32 in [0, 1]; floats come back as they are.  NumPy or JAX, any shape.

    Raises:
      DataError: integers other than uint8, whose scale is not known.
    """
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    if images.dtype.kind in "biu":
        raise DataError(f"expected images as uint8 or float in [0, 1], got {images.dtype}")
    return images


def to_levels(images: Any) -> Any:
    """Floats in [0, 1] as the nearest levels, uint8; levels come back as they are."""
    if images.dtype == np.uint8:
        return images
    return images.__array_namespace__().rint(images * 255).astype(np.uint8)


def as_images(images: Any, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Checks images and brings them to ``[N, H, W, C]``, without a copy.

    images: uint8, or float in [0, 1]; ``[N, H, W, C]``, ``[N, H, W]``, ``[H, W, C]`` or
    ``[H, W]``, those without channels where C is 1; N may be 0.

    Raises:
      DataError: another size, dtype or range, or NaN.
    """
    try:
        images = np.asarray(images)
    except ValueError as error:
        raise DataError(f"expected an array of images, all of one size ({error})") from error
    h, w, c = image_shape
    shape = images.shape
    if shape == image_shape:
        images = images[None]
    elif c == 1 and (shape == (h, w) or (images.ndim == 3 and shape[1:] == (h, w))):
        images = images.reshape(-1, h, w, 1)
    if images.ndim != 4 or images.shape[1:] != image_shape:
        accepted = [f"[N, {h}, {w}, {c}] or [{h}, {w}, {c}]"]
        if c == 1:
            accepted.append(f"[N, {h}, {w}] or [{h}, {w}]")
        raise DataError(
            f"expected images of {h}x{w}, {c} channel{'s' if c > 1 else ''}: "
            f"{', '.join(accepted)}; got shape {list(shape)}"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(f"expected images as uint8 or float in [0, 1], got {images.dtype}")
    # One pass over the data, and NaN fails both comparisons.
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise DataError(
            "float images must lie in [0, 1] and hold no NaN; "
            f"got values from {images.min():g} to {images.max():g}"
        )
    return images


def is_single(images: Any, image_shape: tuple[int, int, int]) -> bool:
    """Whether these are one image, ``[H, W]`` or ``[H, W, C]``, and not an array of images."""
    return np.ndim(images) == 2 or np.shape(images) == image_shape


def as_latents(z: Any, latent_dim: int) -> np.ndarray:
    """Checks latents and brings them to float32 ``[N, D]``, from ``[N, D]`` or ``[D]``.

    Raises:
      DataError: another shape or dtype, or a value that is not finite.
    """
    try:
        z = np.asarray(z)
    except ValueError as error:
        raise DataError(f"expected an array of latents ({error})") from error
    if z.ndim == 1:
        z = z[None]
    if z.ndim != 2 or z.shape[1] != latent_dim:
        raise DataError(
            f"expected latents of shape [N, {latent_dim}] or [{latent_dim}], got {list(z.shape)}"
        )
    if z.dtype.kind not in "fiu":
        raise DataError(f"expected latents as numbers, got dtype {z.dtype}")
    with np.errstate(over="ignore"):  # infinity is refused next
        z = z.astype(np.float32, copy=False)
    if not np.isfinite(z).all():
        raise DataError("latents hold NaN or infinity; expected finite numbers")
    return z
