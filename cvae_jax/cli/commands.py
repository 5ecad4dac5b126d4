"""What each subcommand of ``cvae`` does: read, call the codec, write, and say what came of it."""

from __future__ import annotations

import contextlib
import io
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from cvae_jax import bitstream, codec, data, metrics
from cvae_jax.bitstream.names import check_names
from cvae_jax.cli import inputs, ledger, outputs
from cvae_jax.codec import Codec
from cvae_jax.coding import quantize
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import ConfigError, CvaeError, DataError, FormatError
from cvae_jax.files import check_free, whole
from cvae_jax.runs import tables
from cvae_jax.runs.find import find


class Report(NamedTuple):
    values: dict[str, Any]  # for --json
    lines: list[str]  # for people
    status: int = 0


def compress(args: Namespace) -> Report:
    output = outputs.compressed_name(args)
    paths = [Path(name) for name in args.inputs if name != "-"]
    if output:
        check_free(output, force=args.force, inputs=paths)
    c = codec.load(args.ckpt)
    found = inputs.read(
        args.inputs,
        c.model.image_shape,
        resize=args.resize,
        grayscale=args.grayscale,
        stdin=sys.stdin.buffer,
    )
    images = found.images
    one = found.single and not args.embed_model and not args.labels
    given = images[0] if one else images
    quality = quantize.DEFAULT_QUALITY if args.quality is None else args.quality
    target = {"target_bytes": args.target_bytes, "target_psnr": args.target_psnr}
    if set(target.values()) != {None}:
        quality = c.find_quality(given, effort=args.effort, **target)
    names = None if args.no_names or one else found.names
    if names:
        check_names(names)  # what could not be unpacked is not packed
    with _progress(len(images), "compress") as progress:
        content = c.compress(
            given,
            quality,
            args.effort,
            names=names,
            labels=_read_labels(args.labels) if args.labels else None,
            embed_model=args.embed_model,
            progress=progress,
        )
    if output:
        with whole(output, force=args.force, inputs=found.paths) as file:
            file.write(content)
    else:
        outputs.to_stdout(content)

    mse = metrics.mse_of_levels(c.decompress(content), images)
    png = ledger.bytes_as(".png", images)
    each = len(content) / len(images)
    values = {
        "output": str(output or "-"),
        "images": len(images),
        "bytes": len(content),
        "bytes_per_image": each,
        "ratio_to_raw": images[0].size / each,
        "ratio_to_png": png / each if png else None,
        "psnr": _finite(metrics.psnr(mse)),
        "quality": quality,
        "effort": args.effort,
    }
    lines = [
        f"{values['output']}: {ledger.counted(len(images), 'image')}, "
        f"{len(content)} bytes, {each:.2f} per image, PSNR {_db(values['psnr'])}",
        f"{values['ratio_to_raw']:.1f} times smaller than raw"
        + (f", {png / each:.1f} times smaller than PNG" if png else ""),
    ]
    if args.verbose:
        lines.append(f"quality {quality:g}, effort {args.effort}, step {quantize.step(quality)}")
        lines.append(f"model {c.identity.model.hex()}, tables {c.identity.tables.hex()}")
    return Report(values, lines)


def decompress(args: Namespace) -> Report:
    content = _read(args.input)
    try:
        is_archive = bitstream.is_archive(content)
    except FormatError:
        if not args.keep_going:
            raise
        is_archive = True  # its first bytes may be what is damaged
    output = outputs.decompressed_name(args, is_archive)
    write = outputs.writer(output, args.force, [Path(args.input)])
    if args.labels:
        check_free(Path(args.labels), force=args.force)
    lost: list[tuple[int, int]] = []
    faults: list[str] = []
    names: list[str] | None = None
    labels = None
    if is_archive and args.keep_going:
        found = bitstream.recover(content, _codec_for(args, content).file_decoder)
        images, lost, faults = found.images, found.lost, found.faults
        names = [
            name or f"{number:06d}" for name, number in zip(found.names, found.numbers, strict=True)
        ]
        if args.labels:
            raise ConfigError("--labels and --keep-going do not go together")
    elif is_archive:
        c = _codec_for(args, content)
        with bitstream.Archive(io.BytesIO(content), c.file_decoder) as opened:
            names, labels = opened.names(), opened.labels()
            with _progress(len(opened), "decompress") as progress:
                images = opened.read(progress=progress)
    else:
        images = _codec_for(args, content).decompress(content)
    if args.labels and labels is None:
        raise DataError(f"{args.input} holds no labels")
    write(images, names)
    if args.labels and labels is not None:
        with whole(Path(args.labels), force=args.force) as file:
            np.save(file, labels)
    lines = [f"{output or '-'}: {ledger.counted(len(images), 'image')}"]
    lines += [f"fault: {fault}" for fault in faults]
    lines += [f"lost: images {first} to {last}" for first, last in lost]
    values = {"output": str(output or "-"), "images": len(images), "faults": faults, "lost": lost}
    return Report(values, lines, status=3 if faults or lost else 0)


def info(args: Namespace) -> Report:
    content = _read(args.input)
    c = _codec_for(args, content)
    account = ledger.account(content, c)
    return Report({"file": args.input, **account.to_dict()}, [f"{args.input}: {account.text()}"])


def verify(args: Namespace) -> Report:
    results, lines, status = [], [], 0
    for name in args.inputs:
        try:
            content = _read(name)
            count = len(_codec_for(args, content).decompress(content))
        except CvaeError as error:
            results.append({"file": name, "intact": False, "error": str(error)})
            lines.append(f"{name}: {error}")
            status = max(status, error.exit_code)
        else:
            results.append({"file": name, "intact": True, "images": count})
            lines.append(f"{name}: intact, {ledger.counted(count, 'image')}")
    return Report({"files": results}, lines, status)


def concat(args: Namespace) -> Report:
    output = Path(args.output)
    # Reading is done before the output takes its name, so that it may be one of the inputs.
    check_free(output, force=args.force)
    with contextlib.ExitStack() as stack:
        readers = []
        for name in args.inputs:
            opened = stack.enter_context(Path(name).open("rb"))
            try:
                readers.append(bitstream.Reader(opened))
            except FormatError as error:
                raise type(error)(f"{name}: {error}") from error
        file = stack.enter_context(whole(output, force=args.force))
        writer = bitstream.Writer(file, readers[0].header, readers[0].model())
        for reader in readers:
            writer.copy(reader)
        writer.finish()
        count = sum(map(len, readers))
    values = {"output": str(output), "images": count, "bytes": output.stat().st_size}
    return Report(values, [f"{output}: {count} images, {values['bytes']} bytes"])


def calibrate(args: Namespace) -> Report:
    c = codec.load(args.checkpoint)
    if c.stored_tables is not None and not args.force:
        raise ConfigError(
            f"{args.checkpoint} has coding tables; -f replaces them, and what was compressed with "
            "them can then no longer be decompressed"
        )
    h, w, channels = c.model.image_shape
    dataset = args.dataset or c.made_by().dataset.name
    full = data.load(dataset, "train", args.data_dir, image_size=(h, w), channels=channels)
    fraction = c.made_by().config.train.validation_fraction
    images = TrainingData.split(dataset, full, full[:0], fraction).train
    made = tables.make(find(args.checkpoint), images)
    values = {
        "checkpoint": args.checkpoint,
        "images": len(images),
        "components": made.components,
        "tables": made.digest[:16].hex(),
    }
    return Report(
        values,
        [
            f"{args.checkpoint}: tables {values['tables']} of {made.components} components "
            f"from {len(images)} images of {dataset}"
        ],
    )


# Models


def _codec_for(args: Namespace, content: bytes) -> Codec:
    """The codec that is to decode this file."""
    if args.ckpt:
        return codec.load(args.ckpt)
    with contextlib.suppress(FormatError):  # damage is reported where the file is read
        found = bitstream.salvage(content)
        if found.model is not None:
            return codec.from_embedded(found.model, found.header.identity)
    return codec.load()


# Files


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _read_labels(name: str) -> np.ndarray:
    if name.endswith(".npy"):
        try:
            return np.load(name, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{name}: no array of labels ({error})") from error
    return data.read_idx(name)


# Figures


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _db(psnr: float | None) -> str:
    return "infinite" if psnr is None else f"{psnr:.2f} dB"


@contextlib.contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    with tqdm(
        total=total, desc=what, unit="image", delay=1, disable=not sys.stderr.isatty()
    ) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance
