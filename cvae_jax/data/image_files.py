"""Image files, and folders of them."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.errors import DataError

# What is opened, by content whatever the name: nothing else of Pillow's many decoders.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 1 << 25  # a few bytes can claim many more; a frame of 8K video has as many
_ORIENTATION = 0x0112  # EXIF tag; of these values, width and height are exchanged
_ON_ITS_SIDE = 5, 6, 7, 8
WEBP_SIDE = 16383  # pixels, the most that a side has in this format
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)


def list_images(folder: str | Path) -> list[Path]:
    """The image files below a folder, as ``image_names``."""
    return [Path(folder, name) for name in image_names(folder)]


def image_names(folder: str | Path) -> list[str]:
    """The relative paths of the image files below a folder, by suffix, in order.

    Hidden files and folders are left out; links to folders are not followed, and files that
    are links are left out where they lead out of the folder.

    Raises:
      DataError: a folder cannot be read, or there is no image in it.
    """
    root = Path(folder).resolve()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}") from error

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(folder).as_posix()
        for name in names:
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            path = os.path.join(place, name)
            if not os.path.islink(path) or Path(path).resolve().is_relative_to(root):
                found.append(name if inside == "." else f"{inside}/{name}")
    if not found:
        raise DataError(f"{folder}: no images in this folder ({' '.join(SUFFIXES)})")
    return sorted(found)


def read_image(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> np.ndarray:
    """Reads one image file, upright as its EXIF orientation says.

    Args:
      path: a PNG, JPEG, BMP, GIF, TIFF, WebP or PPM file.
      image_size: (height, width) to stretch it to; None keeps its own.
      channels: 1 for grey (ITU-R 601 luma), 3 for RGB; None: 1 where all pixels are grey.

    Returns:
      uint8 [H, W, C].

    Raises:
      DataError: undecodable, damaged, of more than MAX_PIXELS, with transparency, or of several
        frames or pages (but of a camera's JPEG, whose others are previews, the first is read).
    """
    return _decode(path, str(path), image_size, channels)


# What is written, always without loss.
WRITABLE = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}


def encode_image(image: np.ndarray, suffix: str = ".png") -> bytes:
    """The bytes of an image file, lossless: uint8 ``[H, W, C]`` with 1 or 3 channels.

    Raises:
      DataError: a suffix that is not in WRITABLE, or another number of channels.
    """
    from PIL import Image

    if suffix.lower() not in WRITABLE:
        raise DataError(f"images are written as {', '.join(WRITABLE)}, not {suffix or 'that'}")
    if image.shape[2] not in (1, 3):
        raise DataError(f"image files hold 1 or 3 channels, not {image.shape[2]}; write .npy")
    if suffix.lower() == ".webp":  # else Pillow imports all of its formats to find this one
        from PIL import WebPImagePlugin  # noqa: F401
    file = BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    # Options of WebP and PNG; the other formats ignore them.
    picture.save(file, WRITABLE[suffix.lower()], lossless=True, optimize=True)
    return file.getvalue()


def stack(images: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    """uint8 [N, H, W, C] from at least one (name, image) pair, all of one height and width.

    Where some images are grey and others RGB, all become RGB.
    """
    pixels: list[np.ndarray] = []
    first = ""
    for name, image in images:
        first = first or name
        pixels.append(image)
        (h, w), (expected_h, expected_w) = image.shape[:2], pixels[0].shape[:2]
        if (h, w) != (expected_h, expected_w):
            raise DataError(
                f"{name}: {h}x{w} (height x width), but {first} is {expected_h}x{expected_w}; "
                "give a height and width to resize all images to"
            )
    shape = (*pixels[0].shape[:2], max(image.shape[2] for image in pixels))
    return np.stack([np.broadcast_to(image, shape) for image in pixels])


def sheet(images: np.ndarray) -> np.ndarray:
    """All images as one, row by row of a square, filled up with black: ``[R H, R W, C]``."""
    n, h, w, c = images.shape
    side = int(np.ceil(np.sqrt(n)))
    filled = np.zeros((side * side, h, w, c), images.dtype)
    filled[:n] = images
    rows = filled.reshape(side, side, h, w, c).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(rows.reshape(side * h, side * w, c))


def decode(
    data: bytes, name: str, image_size: tuple[int, int] | None, channels: int | None
) -> np.ndarray:
    """:func:`read_image` for an encoded image in memory; ``name`` is for the errors."""
    return _decode(BytesIO(data), name, image_size, channels)


def _decode(
    file: str | Path | BytesIO,
    name: str,
    image_size: tuple[int, int] | None,
    channels: int | None,
) -> np.ndarray:
    from PIL import Image, ImageOps

    if channels not in (None, 1, 3):
        raise DataError(f"{name}: image files give 1 or 3 channels, not {channels}")
    with _opened(file, name) as opened:
        image = _plain_mode(ImageOps.exif_transpose(opened), name)
    if channels is None:
        channels = 1 if _is_grey(image) else 3
    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None and image.size != image_size[::-1]:
        image = image.resize(image_size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image.height, image.width, channels)


def size_of(file: Path | BytesIO, name: str) -> tuple[int, int]:
    """Height and width of an image file, upright, from its header; raises as ``decode``."""
    with _opened(file, name) as opened:
        size = opened.height, opened.width
        return size[::-1] if opened.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE else size


@contextlib.contextmanager
def _opened(file: str | Path | BytesIO, name: str) -> Iterator[Any]:
    """A Pillow image, of which nothing but the header is read yet; errors, in here too, are
    DataErrors."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DataError(
                        f"{name}: too large an image ({opened.height}x{opened.width}; at most "
                        f"{MAX_PIXELS} pixels)"
                    )
                if getattr(opened, "is_animated", False) and opened.format != "MPO":
                    raise DataError(
                        f"{name}: several frames or pages; save each as a file of its own"
                    )
                yield opened
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: too large an image ({error})") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image, or damaged ({', '.join(FORMATS)})") from error
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or f'damaged image ({error})'}") from error
    except (ValueError, SyntaxError, EOFError, IndexError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: damaged image ({reason})") from error


def _plain_mode(image, name: str):
    """The Pillow image in mode L or RGB."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)
        levels += 128  # to the nearest; in place, for an image may be large
        levels //= 257
        return Image.fromarray(levels.astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: 32-bit pixels; save it with 8 or 16 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            raise DataError(f"{name}: has transparent pixels; flatten it onto a background")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def _is_grey(image) -> bool:
    if image.mode == "L":
        return True
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())
