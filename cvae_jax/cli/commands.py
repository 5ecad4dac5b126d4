"""What each subcommand of ``cvae`` does: read, call the codec, write, and say what came of it."""

from __future__ import annotations

import contextlib
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from cvae_jax import bitstream, codec, data, errors
from cvae_jax.bitstream import UNLIMITED, Budget
from cvae_jax.cli import ledger, models, outputs
from cvae_jax.cli.compress import compress
from cvae_jax.cli.decompress import decompress
from cvae_jax.cli.folders import file_names
from cvae_jax.cli.reports import Report, counted
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import ConfigError, CvaeError, DataError, FormatError
from cvae_jax.runs import checkpoint, tables
from cvae_jax.runs.find import find
from cvae_jax.runs.record import Record

__all__ = ["calibrate", "compress", "concat", "decompress", "info", "model", "verify"]


def info(args: Namespace) -> Report:
    account = ledger.account(models.read(args.input), args.ckpt, Budget(args.max_cost))
    return Report({"file": args.input, **account.to_dict()}, [f"{args.input}: {account.text()}"])


def verify(args: Namespace) -> Report:
    results, lines, status = [], [], 0
    for name in args.inputs:
        result: dict[str, Any] = {"file": name}
        try:
            count = _verified(models.read(name), args.ckpt, Budget(args.max_cost))
        except Exception as error:
            failure = errors.failure(error)
            if failure is None:
                raise
            fault = failure.line.removeprefix(f"{name}: ")
            results.append({**result, "intact": False, "error": fault})
            lines.append(f"{name}: {fault}")
            status = max(status, failure.exit_code)
        else:
            results.append({**result, "intact": True, "images": count})
            lines.append(f"{name}: intact, {counted(count, 'image')}")
    return Report({"files": results}, lines, status)


def _verified(content: bytes, ckpt: str | None, allowed: Budget) -> int:
    """How many images a file holds whose every check matches."""
    if not bitstream.is_archive(content):
        bitstream.single.decode(content, models.named(ckpt).file_decoder)
        return 1
    reader = models.open_archive(content, allowed)
    return bitstream.verify_archive(reader, models.of_archive(reader, ckpt).file_decoder)


def concat(args: Namespace) -> Report:
    output = outputs.for_compressed(args.inputs, args.output)
    # All is read before anything is written, so that the output may be one of the inputs.
    outputs.check([output], [], force=args.force)
    joined = io.BytesIO()
    with contextlib.ExitStack() as stack:
        readers = []
        for name in args.inputs:
            opened = stack.enter_context(Path(name).open("rb"))
            with _naming(name):
                readers.append(bitstream.Reader(opened, Budget(args.max_cost)))
        writer = bitstream.Writer(joined, readers[0].header, readers[0].model())
        for name, reader in zip(args.inputs, readers, strict=True):
            with _naming(name):
                writer.copy(reader)
        writer.finish()
        count = sum(map(len, readers))
    content = joined.getvalue()
    _check_joined(bitstream.Reader(io.BytesIO(content), UNLIMITED))
    outputs.write(output, content, force=args.force)
    values = {"output": str(output), "images": count, "bytes": len(content)}
    return Report(values, [f"{output}: {count} images, {len(content)} bytes"])


@contextlib.contextmanager
def _naming(file: str) -> Any:
    try:
        yield
    except CvaeError as error:
        raise type(error)(f"{file}: {error}") from error


def _check_joined(reader: bitstream.Reader) -> None:
    """Reads an archive back; what could not be unpacked is refused."""
    reader.model()
    if reader.names:
        try:
            file_names(reader.names)
        except FormatError as error:
            raise DataError(
                f"joined, {error}; rename it, or leave names out with cvae compress --no-names"
            ) from error


def calibrate(args: Namespace) -> Report:
    found = find(args.checkpoint)
    record = Record.from_dict(checkpoint.read_config(found))
    names = (tables.TABLES, tables.DECODER, tables.ERRORS)
    has_tables, has_decoder, has_errors = (
        checkpoint.attached(found, name) is not None for name in names
    )
    if has_tables and has_decoder and has_errors and not args.force:
        raise ConfigError(
            f"{args.checkpoint} has coding tables; -f replaces them, and what was compressed with "
            "them can then no longer be decompressed"
        )
    h, w, channels = record.config.model.image_shape
    dataset = args.dataset or record.dataset.name
    full = data.load(dataset, "train", args.data_dir, image_size=(h, w), channels=channels)
    split = TrainingData.split(dataset, full, full[:0], record.config.train.validation_fraction)
    images = split.train
    stored = None if args.force else tables.read(found)
    if stored is None:
        stored = tables.make(found, images, split.validation)
    else:  # a checkpoint from before the usual errors were kept
        tables.measure_errors(found, images, split.validation)
    made = stored.tables
    values = {
        "checkpoint": args.checkpoint,
        "images": len(images),
        "components": made.components,
        "tables": made.digest[:16].hex(),
        "decoder": stored.decoder.digest[:16].hex(),
    }
    return Report(
        values,
        [
            f"{args.checkpoint}: tables {values['tables']} of {made.components} components "
            f"from {len(images)} images of {dataset}"
        ],
    )


def model(args: Namespace) -> Report:
    output = outputs.for_compressed([args.checkpoint], args.output)
    outputs.check([output], [], force=args.force)
    c = codec.load(args.checkpoint)
    content = c.model_file()
    outputs.write(output, content, force=args.force)
    values = {"output": str(output), "bytes": len(content), "model": c.identity.model.hex()}
    return Report(values, [f"{output}: a model, {len(content)} bytes"])
