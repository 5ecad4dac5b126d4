"""``cvae compress``: read, find the quality, encode, refuse what is too bad, write, report."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvae_jax import codec, data
from cvae_jax.bitstream.writer import checked_labels
from cvae_jax.cli.commands import job
from cvae_jax.cli.fidelity import Fidelity
from cvae_jax.cli.files import checkpoints, inputs, outputs
from cvae_jax.cli.files.inputs import Inputs, Source
from cvae_jax.cli.files.outputs import ToFile, ToStdout
from cvae_jax.cli.reports import Report, counted, db, finite, progress
from cvae_jax.codec import Codec
from cvae_jax.coding import quantize, search, target
from cvae_jax.errors import ConfigError, DataError, FormatError
from cvae_jax.jobs.names import check_unpackable
from cvae_jax.pipeline.chunks import reading_back
from cvae_jax.refinement import grid
from cvae_jax.shards import Shards, parse


class Made(NamedTuple):
    """What was written."""

    size: int  # bytes
    quality: float | None  # of the base; None: there is none
    step: int
    fidelity: Fidelity


def compress(args: Namespace) -> Report:
    if args.quality is not None:
        quantize.step(args.quality)  # raises ConfigError, as the next line does
    search.check_effort(args.effort)
    bound = _bound(args)
    if shards := _shards(args):
        return job.compress(args, shards)
    if args.jobs is not None:
        raise ConfigError("--jobs is for a set of archives; add --shards")
    if args.quiet and (args.json or args.verbose):
        raise ConfigError("--quiet reports nothing; leave it out, or --json and --verbose")
    output = outputs.for_compressed(args.inputs, args.output)
    sources = inputs.expand(args.inputs)
    read = [source.path for source in sources if source.path]
    read += [Path(args.labels)] if args.labels else []
    read += checkpoints.named(args.ckpt)
    outputs.check([output], read, force=args.force)

    c = codec.load(args.ckpt)
    with _opened(args, c, sources) as groups:
        made = _write(args, groups, bound, output)
    if args.quiet:
        return Report({}, [], warnings=[] if bound is not None else made.fidelity.warnings())
    return _report(args, c, bound, output, made)


def _shards(args: Namespace) -> Shards | None:
    """The set that is asked for; None: one file."""
    shards = parse(args.output) if args.output is not None else None
    if args.shards is not None:
        output = outputs.for_compressed(args.inputs, args.output)
        if shards is not None or isinstance(output, ToStdout) or output.path.suffix != ".cvae":
            raise ConfigError("--shards divides a file; name it with -o NAME.cvae")
        at = output.path
        shards = Shards(at.parent, at.stem, args.shards, at.suffix)
        if os.path.lexists(str(shards)):
            raise ConfigError(
                f"{shards} is a file, and a set of that name could not be read; move it away, or "
                "name another output"
            )
    if shards is None:
        return None
    for flag in ("target_bytes", "target_psnr", "min_psnr", "labels"):
        if getattr(args, flag) is not None:
            raise ConfigError(
                f"--{flag.replace('_', '-')} does not go with shards; leave it out, or write one "
                "file"
            )
    return shards


class _Group(NamedTuple):
    """Images of one size, and the codec of that size."""

    codec: Codec
    images: Inputs


@contextlib.contextmanager
def _opened(args: Namespace, c: Codec, sources: Sequence[Source]) -> Iterator[list[_Group]]:
    """All images, in groups of one size: where the model takes but its own, in one."""
    reading = {"grayscale": args.grayscale, "stdin": sys.stdin.buffer}
    if args.resize or not c.model.latent_map:
        with inputs.opened(sources, c.image_shape, resize=args.resize, **reading) as found:
            yield [_Group(c, found)]
        return
    with inputs.opened_by_size(sources, c.image_shape[2], **reading) as by_size:
        yield [_Group(_sized(c, size, found), found) for size, found in by_size.items()]


def _sized(c: Codec, size: tuple[int, int], found: Inputs) -> Codec:
    """The codec for images of a size; errors name the first of them."""
    try:
        return c.sized(*size)
    except ConfigError as error:
        raise DataError(f"{found.first}: {error}; --resize stretches it") from error


def _write(
    args: Namespace, groups: Sequence[_Group], bound: int | None, output: ToStdout | ToFile
) -> Made:
    (c, found), *others = groups
    if others:
        _check_several(args, bound, len(groups))
    one = found.single and not others and not args.embed_model and not args.labels
    of_groups = [group.images.names for group in groups]
    all_names = None if None in of_groups else [name for some in of_groups for name in some or ()]
    names = None if args.no_names or one else all_names
    if names:
        check_unpackable(names)
    labels = read_labels(args.labels, found.total) if args.labels else None
    extras = {"names": names, "labels": labels, "embed_model": args.embed_model}
    quality = _quality(args, c, found, bound, one, extras)
    step = quantize.step(quantize.DEFAULT_QUALITY if quality is None else quality)
    fidelity = Fidelity(all_names, args.min_psnr, lambda errors: c.unusual(errors, step))
    total = sum(group.images.total for group in groups)

    with (
        outputs.writing(output, force=args.force, read_back=True) as file,
        progress(total, "compress") as advance,
    ):
        if one:
            image = found.all()
            content, levels = c.compress_one(image[0], quality, args.effort, max_error=bound)
            with reading_back():
                if not np.array_equal(c.decompress(content), levels):
                    raise FormatError("other pixels")
            fidelity.add(image, levels)
            size = file.write(content)
        else:
            writer = c.file_model.writer(
                file, embed_model=args.embed_model, refined=bound is not None
            )
            for of_size, images in groups:
                with contextlib.closing(
                    of_size.chunks(
                        images.blocks(of_size.file_model.chunk_images),
                        quality,
                        args.effort,
                        max_error=bound,
                        count=images.total,
                        decode_all=not args.quiet or args.min_psnr is not None,
                        check=True,
                    )
                ) as chunks:
                    named = names and images.names
                    writer.append_all(fidelity.watching(chunks), named, labels, advance)
            size = writer.finish()
        fidelity.require(
            "raise the quality, or choose another --ckpt" if bound is None else "lower the bound"
        )
    return Made(size, quality, step, fidelity)


def _check_several(args: Namespace, bound: int | None, sizes: int) -> None:
    """Raises ConfigError for what does not go with images of several sizes."""
    flags = [
        flag
        for flag in ("target_bytes", "target_psnr", "labels")
        if getattr(args, flag) is not None
    ]
    if bound is not None:
        flags.append("lossless" if args.lossless else "max_error")
    for flag in flags:
        raise ConfigError(
            f"--{flag.replace('_', '-')} is for images of one size, and these are of {sizes}: "
            "leave it out, or add --resize"
        )


def _report(
    args: Namespace, c: Codec, bound: int | None, output: ToStdout | ToFile, made: Made
) -> Report:
    seen, each = made.fidelity, made.size / made.fidelity.count
    png, raw = seen.png_bytes(), seen.raw / seen.count
    values = {
        "output": str(output),
        "images": seen.count,
        "bytes": made.size,
        "bytes_per_image": each,
        "ratio_to_raw": raw / each,
        "ratio_to_png": png / each if png else None,
        "psnr": finite(seen.psnr),
        "max_error": bound,
        "largest_error": seen.largest,
        "worst": seen.worst,
        "worst_psnr": finite(seen.worst_psnr),
        "quality": made.quality,
        "effort": args.effort,
    }
    told = f"PSNR {db(seen.psnr)}"
    if bound is not None:
        told = f"{told}, no pixel off by more than {seen.largest}" if bound else "lossless"
    lines = [
        f"{output}: {counted(seen.count, 'image')}, "
        f"{made.size} bytes, {each:.2f} per image, {told}",
        f"{_times(raw / each)} than raw" + (f", {_times(png / each)} than PNG" if png else ""),
    ]
    if args.verbose:
        lines.append(f"worst: {seen.worst}, PSNR {db(seen.worst_psnr)}")
        if made.quality is None:
            lines.append("no base")
        else:
            lines.append(f"quality {made.quality:g}, effort {args.effort}, step {made.step}")
        lines.append(f"model {c.identity.model.hex()}, tables {c.identity.tables.hex()}")
    return Report(values, lines, warnings=[] if bound is not None else seen.warnings())


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


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times smaller" if ratio >= 1 else f"{1 / ratio:.1f} times larger"


def _quality(
    args: Namespace,
    c: Codec,
    found: Inputs,
    bound: int | None,
    one: bool,
    extras: dict[str, Any],
) -> float | None:
    """The quality that is asked for, or that meets the target for the very file to be written; of
    the base of a bounded file, None if there is none."""
    if args.quality is not None:
        return args.quality
    goal = {"target_bytes": args.target_bytes, "target_psnr": args.target_psnr}
    if set(goal.values()) == {None}:  # as where errors are bounded
        return c.file_model.usual_quality(bound)
    images = found.all()
    with progress(len(images) * target.PROBES, "find quality") as advance:
        return c.find_quality(
            images[0] if one else images, effort=args.effort, progress=advance, **goal, **extras
        )


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
