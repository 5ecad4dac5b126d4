"""``cvae compress``: read, find the quality, encode, refuse what is too bad, write, report."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cvae_jax import bitstream, codec, data, metrics
from cvae_jax.bitstream import UNLIMITED
from cvae_jax.bitstream.writer import checked_labels
from cvae_jax.cli.commands.info import bytes_as
from cvae_jax.cli.files import checkpoints, inputs, outputs
from cvae_jax.cli.files.unpacking import file_names
from cvae_jax.cli.reports import Report, counted, db, finite, progress
from cvae_jax.codec import Codec
from cvae_jax.coding import quantize, search, target
from cvae_jax.errors import ConfigError, DataError, FormatError
from cvae_jax.refinement import grid


class Content(NamedTuple):
    """What is to be stored."""

    symbols: np.ndarray  # int32 [N, D]; of a single image's file [D]
    step: int
    names: list[str] | None
    labels: np.ndarray | None  # [N]


class Worst(NamedTuple):
    """The image of the largest error."""

    name: str
    psnr: float  # dB


class Made(NamedTuple):
    """A file that is to be written."""

    content: bytes
    levels: np.ndarray  # uint8 [N, H, W, C], what it decodes to
    check: Callable[[BinaryIO], None]  # raises DataError unless a file holds that content
    quality: float | None  # of the base; None: there is none
    step: int


def compress(args: Namespace) -> Report:
    if args.quality is not None:
        quantize.step(args.quality)  # raises ConfigError, as the next line does
    search.check_effort(args.effort)
    bound = _bound(args)
    output = outputs.for_compressed(args.inputs, args.output)
    sources = inputs.expand(args.inputs)
    read = [source.path for source in sources if source.path]
    read += [Path(args.labels)] if args.labels else []
    read += checkpoints.named(args.ckpt)
    outputs.check([output], read, force=args.force)

    c = codec.load(args.ckpt)
    found = inputs.read(
        sources,
        c.model.image_shape,
        resize=args.resize,
        grayscale=args.grayscale,
        stdin=sys.stdin.buffer,
    )
    images = found.images
    one = found.single and not args.embed_model and not args.labels
    names = None if args.no_names or one else found.names
    if names:
        _check_names(names)
    labels = read_labels(args.labels, len(images)) if args.labels else None
    extras = {"names": names, "labels": labels, "embed_model": args.embed_model}

    if bound is None:
        made = _lossy(args, c, images, one, extras)
    else:
        made = _bounded(args, c, images, one, bound, extras)
    errors = metrics.mse_of_each(made.levels, images)
    worst = _worst(errors, found.names)
    if args.min_psnr is not None and worst.psnr < args.min_psnr:
        below = int((metrics.psnr(errors) < args.min_psnr).sum())
        raise DataError(
            f"{below} of {counted(len(images), 'image')} below {args.min_psnr:g} dB, the worst "
            f"{worst.name} with {db(worst.psnr)}; "
            + (
                "raise the quality, or choose another --ckpt"
                if bound is None
                else "lower the bound"
            )
        )
    warnings = []
    if bound is None:
        warnings = _unusual(c.unusual(errors, made.step), worst, len(images))
    outputs.write(output, made.content, force=args.force, read_back=made.check)

    png = bytes_as(".png", images)
    each = len(made.content) / len(images)
    psnr = float(metrics.psnr(errors.mean()))
    largest = metrics.largest_error(made.levels, images)
    values = {
        "output": str(output),
        "images": len(images),
        "bytes": len(made.content),
        "bytes_per_image": each,
        "ratio_to_raw": images[0].size / each,
        "ratio_to_png": png / each if png else None,
        "psnr": finite(psnr),
        "max_error": bound,
        "largest_error": largest,
        "worst": worst.name,
        "worst_psnr": finite(worst.psnr),
        "quality": made.quality,
        "effort": args.effort,
    }
    fidelity = f"PSNR {db(psnr)}"
    if bound is not None:
        fidelity = f"{fidelity}, no pixel off by more than {largest}" if bound else "lossless"
    lines = [
        f"{output}: {counted(len(images), 'image')}, "
        f"{len(made.content)} bytes, {each:.2f} per image, {fidelity}",
        f"{_times(images[0].size / each)} than raw"
        + (f", {_times(png / each)} than PNG" if png else ""),
    ]
    if args.verbose:
        lines.append(f"worst: {worst.name}, PSNR {db(worst.psnr)}")
        if made.quality is None:
            lines.append("no base")
        else:
            lines.append(f"quality {made.quality:g}, effort {args.effort}, step {made.step}")
        lines.append(f"model {c.identity.model.hex()}, tables {c.identity.tables.hex()}")
    return Report(values, lines, warnings=warnings)


def _bound(args: Namespace) -> int | None:
    """The largest error of a pixel that is asked for; None: any."""
    bound = 0 if args.lossless else args.max_error
    if bound is not None:
        grid.checked(bound)
        if args.target_bytes is not None or args.target_psnr is not None:
            raise ConfigError(
                "--lossless and --max-error already say how good the images are to be; leave out "
                "--target-bytes and --target-psnr"
            )
    return bound


def _lossy(
    args: Namespace, c: Codec, images: np.ndarray, one: bool, extras: dict[str, Any]
) -> Made:
    quality = _quality(args, c, images[0] if one else images, extras)
    with progress(len(images), "compress") as advance:
        symbols, step = c.encode_symbols(images, quality, args.effort, advance)
    levels = c.decode_symbols(symbols, step)
    stored = Content(symbols[0] if one else symbols, step, extras["names"], extras["labels"])
    content = c.pack(stored.symbols, step, levels=levels, **extras)
    return Made(content, levels, lambda file: check_written(file, stored, c), quality, step)


def _bounded(
    args: Namespace, c: Codec, images: np.ndarray, one: bool, bound: int, extras: dict[str, Any]
) -> Made:
    with progress(len(images), "compress") as advance:
        chunks = list(c.refined_chunks(images, bound, args.quality, args.effort, advance))
    levels = np.concatenate([chunk.images for chunk in chunks])
    content = c.pack_refined(chunks, alone=one, **extras)
    based = any(len(chunk.base.symbols) for chunk in chunks)
    context = c.file_model.context
    quality = args.quality if args.quality is not None or not context else context.base_quality
    step = chunks[0].base.step

    def check(file: BinaryIO) -> None:
        """Decodes what was written: the promise is about that, not about what was meant."""
        _check_read_back(lambda: _keeps_bound(file, images, bound, extras, c))

    return Made(content, levels, check, quality if based else None, step)


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times smaller" if ratio >= 1 else f"{1 / ratio:.1f} times larger"


def _quality(args: Namespace, c: Codec, images: np.ndarray, extras: dict[str, Any]) -> float:
    """The quality that is asked for, or that meets the target for the very file to be written."""
    goal = {"target_bytes": args.target_bytes, "target_psnr": args.target_psnr}
    if set(goal.values()) == {None}:
        return quantize.DEFAULT_QUALITY if args.quality is None else args.quality
    count = len(images) if images.ndim == 4 else 1
    with progress(count * target.PROBES, "find quality") as advance:
        return c.find_quality(images, effort=args.effort, progress=advance, **goal, **extras)


def _worst(errors: np.ndarray, names: Sequence[str] | None) -> Worst:
    at = int(errors.argmax())
    return Worst(names[at] if names else f"image {at}", float(metrics.psnr(errors[at])))


def _unusual(which: np.ndarray, worst: Worst, count: int) -> list[str]:
    """A warning of images that are not of the kind that the model was trained on."""
    if not len(which):
        return []
    are = "is" if len(which) == 1 else "are"
    return [
        f"{len(which)} of {counted(count, 'image')} {are} unlike what this model was trained on: "
        f"far worse than its worst image; the worst, {worst.name}, has {db(worst.psnr)}; "
        "--min-psnr refuses, another --ckpt may fit"
    ]


def read_labels(name: str, count: int) -> np.ndarray:
    """The labels of so many images, from an .npy or IDX file: uint32 ``[count]``.

    Raises:
      DataError: others than a file can hold, or not one for each image.
    """
    if Path(name).exists() and not Path(name).is_file():  # reading a FIFO may never end
        raise DataError(f"{name}: no array of labels (no regular file)")
    try:
        npy = name.lower().endswith(".npy")
        labels = data.map_array(name) if npy else data.read_idx(name, (count,))
    except DataError as error:
        reason = str(error).removeprefix(f"{name}: ")
        raise DataError(f"{name}: no array of labels ({reason})") from error
    if labels.shape != (count,):
        raise DataError(
            f"{name}: labels of shape {list(labels.shape)} for {counted(count, 'image')}; "
            f"expected [{count}]"
        )
    try:
        return checked_labels(labels, count)  # a copy: the file may be replaced
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def check_written(file: BinaryIO, stored: Content, c: Codec) -> None:
    """Reads a file back.

    Raises:
      DataError: it does not hold what was to be stored.
    """
    _check_read_back(lambda: _holds(file, stored, c))


def _check_read_back(holds: Callable[[], bool]) -> None:
    """Raises DataError unless a file ``holds`` what it should, where that can be found out."""
    try:
        same = holds()
    except FormatError as error:
        raise DataError(f"what was written cannot be read back ({error}); write it anew") from error
    if not same:
        raise DataError("what was written reads back as something else; write it anew")


def _keeps_bound(
    file: BinaryIO, images: np.ndarray, bound: int, extras: dict[str, Any], c: Codec
) -> bool:
    """Whether a file decodes to images within the bound, and has its extras."""
    file.seek(0)
    content = file.read()
    if not bitstream.is_archive(content):
        levels = bitstream.single.decode(content, c.file_decoder, UNLIMITED).levels[None]
        return metrics.largest_error(levels, images) <= bound
    archive = bitstream.Archive(file, c.file_decoder, allowed=UNLIMITED)
    reader = archive.reader
    with progress(len(images), "check") as advance:
        levels = archive.read(progress=advance)
    return (
        levels.shape == images.shape
        and metrics.largest_error(levels, images) <= bound
        and reader.names == extras["names"]
        and _same(reader.labels, extras["labels"])
    )


def _holds(file: BinaryIO, stored: Content, c: Codec) -> bool:
    if stored.symbols.ndim == 1:
        file.seek(0)
        image = bitstream.single.decode(file.read(), c.file_decoder, UNLIMITED)
        return image.step == stored.step and np.array_equal(image.symbols, stored.symbols)
    archive = bitstream.Archive(file, c.file_decoder, allowed=UNLIMITED)
    reader = archive.reader
    reader.model()
    return (
        len(archive) == len(stored.symbols)
        and reader.names == stored.names
        and _same(reader.labels, stored.labels)
        and all(_chunk_holds(reader, k, stored, c) for k in range(len(reader.entries)))
    )


def _same(labels: np.ndarray | None, others: np.ndarray | None) -> bool:
    return labels is others if labels is None or others is None else np.array_equal(labels, others)


def _chunk_holds(reader: bitstream.Reader, k: int, stored: Content, c: Codec) -> bool:
    chunk, rows = reader.chunk(k), slice(*map(int, reader.starts[k : k + 2]))
    return chunk.step == stored.step and np.array_equal(
        chunk.symbols(c.tables, UNLIMITED), stored.symbols[rows]
    )


def _check_names(names: list[str]) -> None:
    """What could not be unpacked is not packed."""
    try:
        file_names(names)
    except FormatError as error:
        raise DataError(f"{error}; rename it, or leave names out with --no-names") from error
