"""What a file's bytes are spent on, and from how many images on that pays."""

from __future__ import annotations

import io
import lzma
from typing import NamedTuple

import numpy as np

from cvae_jax import bitstream, data
from cvae_jax.codec import Codec
from cvae_jax.coding import embedded, quantize

SAMPLE = 1000  # images that other formats are tried on


class BreakEven(NamedTuple):
    bytes_per_image: float  # of the other format, on the decoded images
    images: int | None  # from how many on the archive with its model is smaller; None: never


class Account(NamedTuple):
    kind: str  # "archive" or "single image"
    images: int
    bytes: int
    bytes_per_image: float
    qualities: list[float]
    image_shape: list[int]
    model: str  # digests
    tables: str
    bytes_by_use: dict[str, int]  # adds up to bytes
    model_bytes: int  # of the decoder: embedded, or as it would be
    break_even: dict[str, BreakEven]

    def to_dict(self) -> dict:
        """As JSON holds it."""
        rows = {name: other._asdict() for name, other in self.break_even.items()}
        return {**self._asdict(), "break_even": rows}

    def text(self) -> str:
        """For people, without the file's name."""
        count, shape = self.images, "x".join(map(str, self.image_shape))
        each = max(count, 1)
        lines = [
            f"{self.kind}, {counted(count, 'image')} of {shape}, "
            f"quality {', '.join(f'{q:g}' for q in self.qualities) or '-'}",
            f"model {self.model}",
            f"tables {self.tables}",
            f"{'':10}{'bytes':>12}{'per image':>12}",
        ]
        for use, size in [*self.bytes_by_use.items(), ("total", self.bytes)]:
            if size:
                lines.append(f"{use:10}{size:>12}{size / each:>12.3f}")
        if self.break_even:
            kept = (
                "embedded" if self.bytes_by_use.get("model") else "as --embed-model would store it"
            )
            lines.append(
                f"With its model ({self.model_bytes} bytes, {kept}), smaller than the decoded "
                "images as"
            )
        for name, other in self.break_even.items():
            since = f"from {other.images} images on" if other.images else "never"
            lines.append(f"  {name}, {other.bytes_per_image:.1f} bytes per image: {since}")
        return "\n".join(lines)


def counted(n: int, thing: str) -> str:
    """ "1 image", "2 images"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def account(content: bytes, codec: Codec) -> Account:
    """The account of a file that ``codec`` decodes.

    Raises:
      FormatError, ModelMismatchError: as for ``Codec.decompress``.
    """
    if bitstream.is_archive(content):
        opened = bitstream.Archive(io.BytesIO(content), codec.file_decoder)
        reader = opened.reader
        kind, count, spent = "archive", len(opened), reader.ledger()
        steps = {reader.chunk(k).step for k in range(len(reader.entries))}
        images = opened.read(range(min(count, SAMPLE)))
    else:
        symbols, step = bitstream.single.decode(content, codec.tables, codec.identity)
        kind, count, steps = "single image", 1, {step}
        spent = {"header": bitstream.single.ROOM - 4, "checks": 4}
        spent["streams"] = len(content) - bitstream.single.ROOM
        images = codec.decode_symbols(symbols[None], step)
    model = spent.get("model") or len(
        embedded.pack(codec.model, codec.params, codec.tables, "float16")
    )
    # Each further image costs its share of this; the rest is there once.
    grows = sum(spent.get(use, 0) for use in ("streams", "checks", "names", "labels"))
    fixed = model + len(content) - grows - spent.get("model", 0)
    others = other_formats(images) if count else {}
    return Account(
        kind,
        count,
        len(content),
        len(content) / max(count, 1),
        sorted(round(quantize.quality(step), 1) for step in steps),
        list(codec.model.image_shape),
        codec.identity.model.hex(),
        codec.identity.tables.hex(),
        spent,
        model,
        {name: _break_even(fixed, grows / count, size) for name, size in others.items()},
    )


def _break_even(fixed: float, each: float, other: float) -> BreakEven:
    return BreakEven(other, int(fixed // (other - each)) + 1 if other > each else None)


def bytes_as(suffix: str, images: np.ndarray) -> float | None:
    """Mean bytes of an image as a file of its own, over the first SAMPLE; None if it cannot be."""
    if images.shape[3] not in (1, 3):
        return None
    return float(np.mean([len(data.encode_image(image, suffix)) for image in images[:SAMPLE]]))


def other_formats(images: np.ndarray) -> dict[str, float]:
    """Bytes per image in lossless formats: files of their own, and one stream of raw pixels."""
    sizes = {"PNG": bytes_as(".png", images), "WebP": bytes_as(".webp", images)}
    sizes["xz"] = len(lzma.compress(images.tobytes(), preset=9)) / len(images)
    return {name: size for name, size in sizes.items() if size is not None}
