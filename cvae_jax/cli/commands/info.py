"""``cvae info``: what a file holds, what its bytes are spent on, and from how many images on that
pays."""

from __future__ import annotations

import contextlib
import io
import lzma
import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cvae_jax import bitstream, data
from cvae_jax.bitstream import Budget, Identity
from cvae_jax.bitstream.records import SECTION_ROOM, SPOT
from cvae_jax.cli import models
from cvae_jax.cli.reports import Report, counted
from cvae_jax.coding import quantize
from cvae_jax.config import Size
from cvae_jax.data.image_files import WEBP_SIDE, sheet
from cvae_jax.errors import CheckpointError, DataError, ModelMismatchError
from cvae_jax.file_model import FileModel
from cvae_jax.runs.find import find, maker
from cvae_jax.runs.manifest import CONFIG
from cvae_jax.runs.record import Record
from cvae_jax.shards import Shards, present

MODEL_FILE = "model file"
SAMPLE = 1000  # images that other formats are tried on, at most
SAMPLE_VALUES = 1 << 23  # of their pixels, at most
# Each further image costs its share of this; the rest is there once.
GROWING = ("streams", "refinements", "checks", "names", "labels")


def info(args: Namespace) -> Report:
    allowed = Budget(args.max_cost)
    if (shards := present(args.input)) is not None:
        described = _of_set(shards, args.ckpt, allowed)
    else:
        with models.naming(args.input):
            described = account(models.read(args.input), args.ckpt, allowed)
    return Report(
        {"file": args.input, **described.to_dict()}, [f"{args.input}: {described.text()}"]
    )


class BreakEven(NamedTuple):
    bytes_per_image: float  # of the other format, on the decoded images
    images: int | None  # from how many on the archive with its model is smaller; None: never


class Account(NamedTuple):
    kind: str  # "archive", "set of N archives", "single image" or "model file"
    images: int
    bytes: int
    bytes_per_image: float | None  # None: there are no images
    steps: list[int]  # of the quantiser
    qualities: list[float]
    max_error: int | None  # that a pixel may have; None: any
    spot_check: bool  # whether it vouches for the pixels of some images alone
    image_shape: list[int] | None  # None: the file does not say, or there are several
    sizes: list[list[int]]  # heights and widths of all images
    model: str  # digests; of a single image's model 3 bytes that stand for both
    tables: str | None
    names: bool  # whether there are any
    labels: bool
    bytes_by_use: dict[str, int]  # adds up to bytes
    # What takes the model; without it None, and the reason in ``missing``.
    model_bytes: int | None  # of the section with the decoder: embedded, or as it would be
    break_even: dict[str, BreakEven] | None
    missing: str | None

    def to_dict(self) -> dict:
        """As JSON holds it."""
        if self.break_even is None:
            return self._asdict()
        rows = {name: other._asdict() for name, other in self.break_even.items()}
        return {**self._asdict(), "break_even": rows}

    def text(self) -> str:
        """For people, without the file's name."""
        count = self.images
        shape = "x".join(map(str, self.image_shape or ()))
        if not shape and self.sizes:
            several = len(self.sizes) > 1
            shape = f"{len(self.sizes)} sizes" if several else "x".join(map(str, self.sizes[0]))
        if self.kind == MODEL_FILE:
            first = f"{self.kind}, for images of {shape}"
        else:
            qualities = ", ".join(f"{q:g}" for q in self.qualities) or "-"
            first = f"{self.kind}, {counted(count, 'image')}{shape and f' of {shape}'}, "
            first += f"quality {qualities}{_bound(self.max_error)}"
            first += f", pixels checked of {SPOT} images in a chunk" if self.spot_check else ""
        lines = [
            first,
            f"model {self.model}",
            *([f"tables {self.tables}"] if self.tables else []),
            f"{'':10}{'bytes':>12}" + (f"{'per image':>12}" if count else ""),
        ]
        for use, size in [*self.bytes_by_use.items(), ("total", self.bytes)]:
            if size:
                each = f"{size / count:>12.3f}" if count else ""
                lines.append(f"{use:10}{size:>12}{each}")
        if self.break_even:
            kept = (
                "embedded" if self.bytes_by_use.get("model") else "as --embed-model would store it"
            )
            lines.append(
                f"With its model ({self.model_bytes} bytes, {kept}), smaller than the decoded "
                "images as"
            )
        for name, other in (self.break_even or {}).items():
            since = f"from {other.images} images on" if other.images else "never"
            lines.append(f"  {name}, {other.bytes_per_image:.1f} bytes per image: {since}")
        if self.missing:
            lines.append(f"Not compared with others, as the model is missing: {self.missing}")
        return "\n".join(lines)


def account(content: bytes, ckpt: str | None, allowed: Budget) -> Account:
    """The account of a file, as far as it goes with the models at hand.

    ckpt: what ``--ckpt`` says; None: the file's own model, or else the released one.

    Raises:
      FormatError: it is damaged.
      ModelMismatchError, CheckpointError: ``ckpt`` is another model, or none.
    """
    if not bitstream.is_archive(content):
        return _of_single(content, ckpt, allowed)
    opened = models.open_archive(content, allowed)

    def looked_at() -> tuple[FileModel, np.ndarray]:
        found = models.of_archive(opened, ckpt)
        archive = bitstream.Archive(io.BytesIO(content), found.decoder(), opened)
        return found.files, archive.read(_sample(archive))

    kind = MODEL_FILE if opened.is_model_file else "archive"
    return _of_archives(kind, [opened], looked_at, ckpt)


def _of_set(shards: Shards, ckpt: str | None, allowed: Budget) -> Account:
    """The account of a set of archives: their sums."""

    def readers() -> Iterator[bitstream.Reader]:
        for path in shards.paths:
            with models.open_shard(path, allowed) as reader:
                yield reader

    def looked_at() -> tuple[FileModel, np.ndarray]:
        with models.open_shard(shards.path(0), allowed) as first:
            model = models.of_archive(first, ckpt)
        with models.open_set(shards, ckpt, allowed) as archives:
            return model.files, archives.read(_sample(archives.shard(0)))

    return _of_archives(f"set of {counted(shards.count, 'archive')}", readers(), looked_at, ckpt)


def _of_archives(
    kind: str,
    readers: Iterable[bitstream.Reader],
    looked_at: Callable[[], tuple[FileModel, np.ndarray]],
    ckpt: str | None,
) -> Account:
    """looked_at: the model, and the first images; raises where there is no model at hand."""
    count = size = chunks = 0
    steps: set[int] = set()
    bounds: list[int] = []
    spot, spent = False, dict[str, int]()
    sizes: set[Size] = set()
    for opened in readers:
        header = opened.header
        count, size = count + len(opened), size + opened.size
        for k in range(len(opened.entries)):
            chunk = opened.chunk(k)
            chunks += 1
            if chunk.based:
                steps.add(chunk.step)
            if chunk.refinement:
                bounds.append(chunk.refinement.max_error)
            spot |= bool(chunk.spot)
            sizes.add(chunk.size or header.image_shape[:2])
        for use, part in opened.ledger().items():
            spent[use] = spent.get(use, 0) + part
    model, images, missing = None, None, None
    try:
        model, images = looked_at()
    except (CheckpointError, ModelMismatchError) as error:
        if ckpt:
            raise
        missing = str(error)
    own = sizes == {header.image_shape[:2]}
    sheets = _measured_sheet(header.identity, steps) if own and not bounds else {}
    return Account(
        kind=kind,
        **_sizes(size, count, steps),
        max_error=max(bounds) if 0 < len(bounds) == chunks else None,
        spot_check=spot,
        image_shape=_shape(header.image_shape, sizes),
        sizes=sorted(map(list, sizes)),
        model=header.identity.model.hex(),
        tables=header.identity.tables.hex(),
        names=spent["names"] > 0,
        labels=spent["labels"] > 0,
        bytes_by_use=spent,
        **_compared(size, count, spent, model, images, sheets),
        missing=missing,
    )


def _sample(archive: bitstream.Archive) -> range:
    """The first images, as many as others are tried on; none where they are of several sizes, whose
    mean says nothing beside that of some."""
    try:
        each = math.prod(archive.image_shape)
    except DataError:
        return range(0)
    return range(min(len(archive), SAMPLE, max(SAMPLE_VALUES // each, 1)))


def _shape(image_shape: tuple[int, int, int], sizes: set[Size]) -> list[int] | None:
    """Of images of these sizes, of a model of images of that shape; None: they are of several."""
    if len(sizes) > 1:
        return None
    (size,) = sizes or {image_shape[:2]}
    return [*size, image_shape[2]]


def _of_single(content: bytes, ckpt: str | None, allowed: Budget) -> Account:
    short, step = bitstream.single.head(content)
    model, images, missing = None, None, None
    try:
        found = models.of_single(content, ckpt, allowed)
        model = found.files
        images = bitstream.single.decode(content, found.decoder(1), allowed).levels[None]
    except (CheckpointError, ModelMismatchError) as error:
        if ckpt:
            raise
        missing = str(error)
    spent = bitstream.single.ledger(content)
    known = model if images is not None else None
    size = bitstream.single.size_of(content)
    shape = None if images is None else list(images.shape[1:])
    return Account(
        kind="single image",
        **_sizes(len(content), 1, {step} if spent["streams"] else set()),
        max_error=bitstream.single.max_error(content),
        spot_check=False,
        image_shape=shape,
        sizes=[shape[:2]] if shape else [list(size)] if size else [],
        model=known.identity.model.hex() if known else short.hex(),
        tables=known.identity.tables.hex() if known else None,
        names=False,
        labels=False,
        bytes_by_use=spent,
        **_compared(len(content), 1, spent, known, images, {}),
        missing=missing,
    )


def _bound(max_error: int | None) -> str:
    if max_error is None:
        return ""
    return f", no pixel off by more than {max_error}" if max_error else ", lossless"


def _sizes(size: int, count: int, steps: set[int]) -> dict[str, Any]:
    return {
        "images": count,
        "bytes": size,
        "bytes_per_image": size / count if count else None,
        "steps": sorted(steps),
        "qualities": sorted(round(quantize.quality(step), 1) for step in steps),
    }


def _compared(
    total: int,
    count: int,
    spent: dict[str, int],
    model: FileModel | None,
    images: np.ndarray | None,
    sheets: dict[str, float],
) -> dict[str, Any]:
    """What takes the model: its size, and from how many images on it pays."""
    if model is None or images is None:
        return {"model_bytes": spent.get("model") or None, "break_even": None}
    refined = spent.get("refinements", 0) > 0
    size = spent.get("model") or len(model.pack(with_context=refined)) + SECTION_ROOM
    grows = sum(spent.get(use, 0) for use in GROWING)
    fixed = size + total - grows - spent.get("model", 0)
    others = other_formats(images) if len(images) else {}
    others |= sheets
    return {
        "model_bytes": size,
        "break_even": {
            name: break_even(fixed, grows / count, other) for name, other in others.items()
        },
    }


def _measured_sheet(identity: Identity, steps: set[int]) -> dict[str, float]:
    """Bytes per image of the best other codec's sheet, as the study of the released checkpoint of
    this identity measured it at the default quality; empty for others."""
    if steps != {quantize.step(quantize.DEFAULT_QUALITY)}:
        return {}
    released = maker(lambda other: other == identity)
    with contextlib.suppress(CheckpointError):
        if released:
            record = find(released, files=(CONFIG,)).read_json(CONFIG)
            best = Record.from_dict(record).best_sheet
            if best:
                return {f"{best['codec']} sheet, lossy (measured)": float(best["bytes_per_image"])}
    return {}


def break_even(fixed: float, each: float, other: float) -> BreakEven:
    """fixed: bytes that are there once; each, other: bytes per image, of this file and of another
    format."""
    return BreakEven(other, int(fixed // (other - each)) + 1 if other > each else None)


def bytes_as(suffix: str, images: np.ndarray) -> float | None:
    """Mean bytes of an image as a file of its own, over the first SAMPLE; None if it cannot be."""
    too_large = suffix == ".webp" and max(images.shape[1:3]) > WEBP_SIDE
    if too_large or images.shape[3] not in (1, 3):
        return None
    return float(np.mean([len(data.encode_image(image, suffix)) for image in images[:SAMPLE]]))


def other_formats(images: np.ndarray) -> dict[str, float]:
    """Bytes per image in lossless formats: files of their own, all as one picture, and all raw
    pixels in one stream."""
    sizes = {"PNG": bytes_as(".png", images), "WebP": bytes_as(".webp", images)}
    if together := bytes_as(".webp", sheet(images)[None]):
        sizes["WebP sheet"] = together / len(images)
    raw = images.tobytes()
    # A dictionary no larger than what it is for: clearing 64 MB takes longer than all the rest.
    room = min(max(len(raw), 4096), 1 << 26)
    settings = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": room}
    sizes["xz"] = len(lzma.compress(raw, filters=[settings])) / len(images)
    return {name: size for name, size in sizes.items() if size is not None}
