"""Checks incoming images, latents and keys, and converts between grey levels and pixel values.

A *level* is a uint8 from 0 to 255; a *pixel value* is a float in [0, 1].  ``to_unit`` and
``to_levels`` are the only places where one becomes the other.

An array may be one that JAX traces (under ``jit``, ``vmap``, ``grad``): then its shape and dtype
are checked like any other's, but not its values, which are not known yet.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax.errors import ConfigError, DataError

_REMEDIES = {  # for dtypes whose scale is not known
    "bool": "for true as white, images.astype(np.uint8) * 255",
    "uint16": "for 16-bit levels, images / np.float32(65535)",
}


def to_unit(images: Any) -> Any:
    """Levels, or floats in [0, 1] as they are, as float32.  NumPy or JAX, any shape.

    Raises:
      DataError: integers other than uint8, whose scale is unknown, or something not numeric.
    """
    _check_dtype(images.dtype)
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    return images.astype(np.float32, copy=False)


def _check_dtype(dtype: np.dtype) -> None:
    if dtype == np.uint8 or jnp.issubdtype(dtype, np.floating):
        return
    message = f"expected images as uint8 or float in [0, 1], got {dtype}"
    if dtype.kind in "biu":
        remedy = _REMEDIES.get(dtype.name, "for levels from 0 to 255, images.astype(np.uint8)")
        message += f"; {remedy}"
    raise DataError(message)


def to_levels(images: Any) -> Any:
    """Floats in [0, 1] as the nearest levels, uint8; levels are returned as they are."""
    if images.dtype == np.uint8:
        return images
    return images.__array_namespace__().rint(images * 255).astype(np.uint8)


def is_traced(array: Any) -> bool:
    """Whether it stands for an array under ``jax.jit``, ``vmap`` or ``grad``."""
    return isinstance(array, jax.core.Tracer)


def on_host(array: Any, what: str = "images") -> np.ndarray:
    """A NumPy array, from anything whose values are available.

    Raises:
      DataError: it cannot become one; the message says what to call.
    """
    if is_traced(array):
        raise DataError(
            f"{what} have no values yet under jax.jit, vmap or grad: there only encode, "
            "posterior, decode and sampling work; call the rest outside"
        )
    try:
        return np.asarray(array)
    except ValueError as error:
        raise DataError(f"expected an array of {what}, all of one size ({error})") from error
    except Exception as error:  # whatever the object's own __array__ raises
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"expected an array of {what}, and this {type(array).__name__} does not become one "
            f"({reason}); of a tensor, give tensor.detach().cpu().numpy()"
        ) from error


def as_images(images: Any, image_shape: tuple[int, int, int]) -> Any:
    """Checks images and brings them to ``[N, H, W, C]``, without a copy.

    images: uint8, or float in [0, 1]; ``[N, H, W, C]``, ``[N, H, W]``, ``[H, W, C]`` or
    ``[H, W]``, those without channels only if C is 1; N may be 0.  Traced ones stay traced.

    Raises:
      DataError: the size, dtype or range is wrong, or there is NaN.
    """
    traced = is_traced(images)
    images = _arranged(images if traced else on_host(images), image_shape)
    _check_dtype(images.dtype)
    if traced or images.dtype == np.uint8:
        return images
    # One pass over the data, and NaN fails both comparisons.
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise DataError(
            "float images must lie in [0, 1] and hold no NaN; "
            f"got values from {float(images.min()):g} to {float(images.max()):g}"
        )
    return images


def _arranged(images: Any, image_shape: tuple[int, int, int]) -> Any:
    """Any accepted shape as ``[N, H, W, C]``."""
    h, w, c = image_shape
    shape = images.shape
    if shape == image_shape:
        return images[None]
    if c == 1 and (shape == (h, w) or (images.ndim == 3 and shape[1:] == (h, w))):
        return images.reshape(-1, h, w, 1)
    if images.ndim == 4 and shape[1:] == image_shape:
        return images
    accepted = [f"[N, {h}, {w}, {c}] or [{h}, {w}, {c}]"]
    if c == 1:
        accepted.append(f"[N, {h}, {w}] or [{h}, {w}]")
    message = (
        f"expected images of {h}x{w}, {c} channel{'s' if c > 1 else ''}: "
        f"{', '.join(accepted)}; got shape {list(shape)}"
    )
    if shape[-3:] == (c, h, w) and images.ndim in (3, 4):
        layout, axes = ("NCHW", "0, 2, 3, 1") if images.ndim == 4 else ("CHW", "1, 2, 0")
        message += f", which looks like {layout}: images.transpose({axes})"
    raise DataError(message)


def is_single(images: Any, image_shape: tuple[int, int, int]) -> bool:
    """Whether these are one image, ``[H, W]`` or ``[H, W, C]``, and not an array of images."""
    return np.ndim(images) == 2 or np.shape(images) == image_shape


def as_latents(z: Any, latent_dim: int) -> Any:
    """Checks latents and brings them to float32 ``[N, D]``, from ``[N, D]`` or ``[D]``.

    Raises:
      DataError: the shape or dtype is wrong, or a value is not finite.
    """
    traced = is_traced(z)
    z = z if traced else on_host(z, "latents")
    if z.ndim == 1:
        z = z[None]
    if z.ndim != 2 or z.shape[1] != latent_dim:
        raise DataError(
            f"expected latents of shape [N, {latent_dim}] or [{latent_dim}], got {list(z.shape)}"
        )
    if z.dtype.kind not in "iu" and not jnp.issubdtype(z.dtype, np.floating):
        raise DataError(f"expected latents as numbers, got dtype {z.dtype}")
    with np.errstate(over="ignore"):  # infinity is refused next
        z = z.astype(np.float32, copy=False)
    if not traced and not np.isfinite(z).all():
        raise DataError("latents hold NaN or infinity; expected finite numbers")
    return z


def as_key(key: Any) -> Array:
    """A JAX key, from a key or from an integer seed.

    Raises:
      ConfigError: anything else.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool) and 0 <= key < 2**32:
        return jax.random.key(int(key))
    if isinstance(key, Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if (typed and key.shape == ()) or (key.dtype == np.uint32 and key.shape == (2,)):
            return key
    got = " ".join(repr(key).split())
    raise ConfigError(
        f"expected one key, jax.random.key(seed), or a seed from 0 to {2**32 - 1}, not {got:.60}"
    )


def as_symbols(symbols: Any, step: Any, latent_dim: int) -> np.ndarray:
    """A file's symbols as int32 ``[D]`` or ``[N, D]``.

    step: of the quantiser that made them.

    Raises:
      DataError: they are none of a model of so many latents, or the step is none.
    """
    if not isinstance(step, int | np.integer) or not 1 <= step < 1 << 16:
        raise DataError(f"a quantiser's step is a whole number from 1 to 65535, not {step!r}")
    symbols = on_host(symbols, "symbols")
    if symbols.ndim not in (1, 2) or symbols.shape[-1] != latent_dim:
        raise DataError(
            f"symbols of shape {list(symbols.shape)} for a model of {latent_dim} latents"
        )
    if symbols.dtype != np.int32:
        info = np.iinfo(np.int32)
        whole = symbols.dtype.kind in "iu"
        if not whole or ((symbols < info.min) | (symbols > info.max)).any():
            raise DataError(f"symbols must be whole numbers of 32 bits, not {symbols.dtype}")
    return symbols.astype(np.int32, copy=False)
