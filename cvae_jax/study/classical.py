"""The codecs that one would otherwise choose: the lossy ones by imagecodecs and Pillow (extra
``bench``), and those that Pillow alone writes.

Each setting encodes and decodes an image, uint8 ``[H, W, C]`` with 1 or 3 channels.  Two traps
are avoided here, each of which gives a flat line instead of a curve: imagecodecs' WebP is lossless
by default, and its AVIF ignores the level of grey images.  That is why Pillow writes the AVIF, the
only data library that is imported outside ``data``.

Of colour images, JPEG and AVIF are two codecs each: one halves the resolution of the colours, as
their writers do unasked (4:2:0), the other keeps it (4:4:4).  WebP always halves it.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cvae_jax.data.image_files import WEBP_SIDE, encode_image
from cvae_jax.errors import ConfigError

# Values of each codec's own setting, from the smallest files to nearly lossless.
JPEG = (1, 5, 10, 20, 35, 50, 65, 80)
WEBP = (0, 5, 10, 20, 40, 80)
AVIF = (3, 8, 12, 18, 24, 30, 34, 38, 45)
JPEG_XL = (25, 15, 10, 6, 3, 1)
JPEG_2000 = (20, 22, 24, 26, 28, 31)
WITHOUT_GREY = ("WebP", "QOI")
SUBSAMPLINGS = ("4:4:4", "4:2:0")  # of colour
SHARED_START = ("JPEG", *(f"JPEG {name}" for name in SUBSAMPLINGS), "JPEG 2000")
AVIF_SPEED = 2  # from 0 to 10; takes twice as long as 4, which needs more bytes
# Of AVIF where it is searched: for images of so many pixels, and for small ones, of which it takes
# a third of the time for 0.5 % more bytes.
LARGE, LARGE_SPEED, SMALL_SPEED = 1 << 14, 4, 6
PNG_SIDE, AVIF_SIDE = (1 << 31) - 1, 1 << 16  # pixels, the most that a side has


class Setting(NamedTuple):
    codec: str
    label: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]
    slow: bool = False  # takes milliseconds even for a tiny image
    bound: int | None = None  # the largest error of a pixel, if the codec promises one; 0: lossless


def settings(channels: int) -> list[Setting]:
    """Every setting that the study tries, for images of 1 or 3 channels.

    Raises:
      ConfigError: imagecodecs is not installed, or Pillow cannot write AVIF.
    """
    with needs_imagecodecs():
        import imagecodecs as ic
        from PIL import Image, features
    if not features.check("avif"):
        raise ConfigError("this needs a Pillow that writes AVIF: pip install --upgrade pillow")

    def avif(image: np.ndarray, quality: int, subsampling: str = "4:0:0") -> bytes:
        return _saved(image, "AVIF", quality=quality, speed=AVIF_SPEED, subsampling=subsampling)

    def from_avif(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(content)).convert("L" if channels == 1 else "RGB"))

    def jpeg(image: np.ndarray, quality: int, subsampling: str = "") -> bytes:
        of_colour = subsampling.replace(":", "") or None
        return bytes(ic.jpeg8_encode(image, level=quality, optimize=True, subsampling=of_colour))

    def webp(image: np.ndarray, quality: int) -> bytes:
        return bytes(ic.webp_encode(image, level=quality, lossless=False, method=6))

    def jxl(image: np.ndarray, distance: float) -> bytes:
        return bytes(ic.jpegxl_encode(image, distance=float(distance), effort=7))

    def jpeg2000(image: np.ndarray, db: float) -> bytes:
        return bytes(ic.jpeg2k_encode(image, level=int(db), codecformat="j2k"))

    def sampled(codec: str, encode: Callable) -> dict[str, Callable]:
        """The codec by its name or names."""
        if channels == 1:
            return {codec: encode}
        return {f"{codec} {name}": partial(encode, subsampling=name) for name in SUBSAMPLINGS}

    jpegs, avifs = sampled("JPEG", jpeg), sampled("AVIF", avif)
    lossy: tuple[tuple[str, str, Sequence[int], Callable, Callable, bool], ...] = (
        *((name, "quality", JPEG, coder, ic.jpeg8_decode, False) for name, coder in jpegs.items()),
        ("WebP", "quality", WEBP, webp, ic.webp_decode, False),
        *((name, "quality", AVIF, coder, from_avif, True) for name, coder in avifs.items()),
        ("JPEG XL", "distance", JPEG_XL, jxl, ic.jpegxl_decode, True),
        ("JPEG 2000", "dB", JPEG_2000, jpeg2000, ic.jpeg2k_decode, False),
    )
    return [
        setting(
            channels, codec, f"{word} {value}", partial(_swapped, encode, value), decode, slow=slow
        )
        for codec, word, values, encode, decode, slow in lossy
        for value in values
    ]


class Pillow(NamedTuple):
    """A format by Pillow."""

    name: str
    encode: Callable[[np.ndarray, int], bytes]  # uint8 [H, W, C], and a quality from 0 to 100
    decode: Callable[[bytes], np.ndarray]
    largest: int  # side, in pixels
    lossless: bool = False  # the quality means nothing


def pillow(channels: int) -> list[Pillow]:
    """The formats of photographs that Pillow writes, for images of 1 or 3 channels; without AVIF,
    where it is built so."""
    from PIL import Image, features

    def decode(content: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(content)).convert("L" if channels == 1 else "RGB")
        return np.asarray(image).reshape(image.height, image.width, channels)

    def webp(image: np.ndarray, quality: int) -> bytes:
        return _saved(_plain(image), "WEBP", quality=quality, method=6)

    def avif(subsampling: str, image: np.ndarray, quality: int) -> bytes:
        speed = LARGE_SPEED if image[..., 0].size >= LARGE else SMALL_SPEED
        return _saved(_plain(image), "AVIF", quality=quality, speed=speed, subsampling=subsampling)

    found = [
        Pillow("PNG", lambda image, _: encode_image(image), decode, PNG_SIDE, lossless=True),
        Pillow("WebP", webp, decode, WEBP_SIDE),
    ]
    if features.check("avif"):
        for kind in ("4:0:0",) if channels == 1 else ("4:2:0", "4:4:4"):
            found.append(Pillow(f"AVIF {kind}", partial(avif, kind), decode, AVIF_SIDE))
    return found


def _saved(image: np.ndarray, kind: str, **options: Any) -> bytes:
    """The file of an image, uint8 ``[H, W]`` or ``[H, W, 3]``, by Pillow."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def setting(
    channels: int, codec: str, label: str, encode: Callable, decode: Callable, **more: Any
) -> Setting:
    """Of functions of an image as imagecodecs takes and gives them: grey ones ``[H, W]``.

    Codecs that know no grey take and give three channels, of which the green one is kept.
    """
    prepare = _coloured if codec in WITHOUT_GREY else _plain

    def decoded(content: bytes) -> np.ndarray:
        image = np.asarray(decode(content))
        image = image[..., None] if image.ndim == 2 else image[..., :3]
        return image[..., 1:2] if channels == 1 and image.shape[2] == 3 else image

    return Setting(codec, label, lambda image: bytes(encode(prepare(image))), decoded, **more)


@contextlib.contextmanager
def needs_imagecodecs() -> Iterator[None]:
    """Raises ConfigError where an import fails."""
    try:
        yield
    except ImportError as error:
        raise ConfigError("this needs imagecodecs: pip install -e '.[bench]'") from error


def _plain(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)


def _coloured(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)


def _swapped(encode: Callable, value: float, image: np.ndarray) -> bytes:
    return encode(image, value)


def cut(whole: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``image_files.sheet`` for images of shape ``[N, H, W, C]``."""
    n, h, w, c = shape
    side = whole.shape[0] // h
    tiles = whole.reshape(side, h, side, w, c).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(-1, h, w, c)[:n]


def payload_sizes(codec: str, contents: Sequence[bytes]) -> list[int] | None:
    """Bytes of each file without what a reader could put back, or None if that is not known.

    For JPEG and JPEG 2000 that is the start that all files share, tables included; for WebP the
    RIFF header, which follows from the length.  Every stripped file is restored and compared.
    """
    if codec in SHARED_START:
        shared = _common_start(contents)
        rests = [content[len(shared) :] for content in contents]
        again = [shared + rest for rest in rests]
    elif codec == "WebP":
        rests = [content[20:] for content in contents]
        # The chunk's length is that of the rest, less one if it ends in a byte of padding.
        padded = [content[16:20] != struct.pack("<I", len(content) - 20) for content in contents]
        again = [_riff(rest, pad) for rest, pad in zip(rests, padded, strict=True)]
        rests = [rest[: len(rest) - pad] for rest, pad in zip(rests, padded, strict=True)]
    else:
        return None
    if again != list(contents):
        return None
    return [len(rest) for rest in rests]


def _riff(rest: bytes, pad: bool) -> bytes:
    size, length = struct.pack("<I", len(rest) + 12), struct.pack("<I", len(rest) - pad)
    return b"RIFF" + size + b"WEBPVP8 " + length + rest


def _common_start(contents: Sequence[bytes]) -> bytes:
    low, high = min(contents), max(contents)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:n]
