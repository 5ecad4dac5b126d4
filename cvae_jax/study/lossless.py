"""The codecs that lose nothing, or no more than is allowed of any pixel, as ``classical``.

imagecodecs has no FLIF, and neither it nor Pillow WebP's near-lossless mode.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from cvae_jax.study.classical import Setting, needs_imagecodecs, setting

BOUNDS = (0, 1, 2, 4, 8)  # largest errors of a pixel, in grey levels, that are tried
PNG_FILTERS = {"no filter": 0x08, "all filters": 0xF8}
JPEG_XL_EFFORTS = (7, 9)


class Stream(NamedTuple):
    """A lossless compressor of bytes."""

    compress: Callable[[bytes], bytes | bytearray]
    decompress: Callable[[bytes], bytes | bytearray]


# For all raw pixels in one stream, by what is in the standard library.
STREAMS = {
    "xz": Stream(partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    "bzip2": Stream(bz2.compress, bz2.decompress),
    "gzip": Stream(partial(gzip.compress, mtime=0), gzip.decompress),
}


def streams() -> dict[str, Stream]:
    """Every compressor of bytes that the study tries, at its best.

    Raises:
      ConfigError: imagecodecs is not installed.
    """
    with needs_imagecodecs():
        import imagecodecs as ic
    return {
        **STREAMS,
        "Zstandard": Stream(partial(ic.zstd_encode, level=22), ic.zstd_decode),
        "Brotli": Stream(partial(ic.brotli_encode, level=11), ic.brotli_decode),
    }


def settings(channels: int) -> list[Setting]:
    """Every setting that the study tries, for images of 1 or 3 channels.

    Raises:
      ConfigError: imagecodecs is not installed.
    """
    with needs_imagecodecs():
        import imagecodecs as ic
    one = partial(setting, channels)
    exact = partial(one, bound=0)
    found = [
        exact("PNG", f"lossless, {name}", partial(ic.png_encode, level=9, filter=of), ic.png_decode)
        for name, of in PNG_FILTERS.items()
    ]
    found.append(
        exact("WebP", "lossless", partial(ic.webp_encode, lossless=True, level=100), ic.webp_decode)
    )
    for effort in JPEG_XL_EFFORTS:
        encode = partial(ic.jpegxl_encode, lossless=True, effort=effort)
        label = f"lossless, effort {effort}"
        found.append(exact("JPEG XL", label, encode, ic.jpegxl_decode, slow=True))
    jpeg2000 = partial(ic.jpeg2k_encode, level=0, reversible=True, codecformat="j2k")
    found += [
        exact("JPEG 2000", "lossless", jpeg2000, ic.jpeg2k_decode),
        exact("QOI", "lossless", ic.qoi_encode, ic.qoi_decode),
    ]
    lerc = partial(ic.lerc_encode, compression="zstd", compressionargs={"level": 22})
    bounded: tuple[tuple[str, str, Callable, Callable], ...] = (
        ("JPEG-LS", "NEAR", ic.jpegls_encode, ic.jpegls_decode),
        ("LERC", "error", lerc, ic.lerc_decode),
    )
    return found + [
        one(codec, f"{word} {bound}" if bound else "lossless", partial(coder, level=bound), decode,
            bound=bound)
        for codec, word, coder, decode in bounded
        for bound in BOUNDS
    ]  # fmt: skip
