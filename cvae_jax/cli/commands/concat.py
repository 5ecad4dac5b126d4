"""``cvae concat``: archives of one model joined, their chunks as they are."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

from cvae_jax import bitstream
from cvae_jax import reader as reading
from cvae_jax.bitstream import UNLIMITED, Budget
from cvae_jax.bitstream.names import check_distinct
from cvae_jax.cli import models
from cvae_jax.cli.files import outputs
from cvae_jax.cli.files.unpacking import file_names
from cvae_jax.cli.reports import Report
from cvae_jax.errors import DataError, FormatError, ModelMismatchError, naming


def concat(args: Namespace) -> Report:
    output = outputs.to_file(args.output)
    # All is read before anything is written, so that the output may be one of the inputs.
    outputs.check([output], [], force=args.force)
    joined = io.BytesIO()
    readers = []
    for name in args.inputs:
        read = models.read(name)
        with naming(name):
            _check_kind(read)
            readers.append(models.open_archive(read, Budget(args.max_cost)))
    chosen = _with_model(args.inputs, readers)
    writer = bitstream.Writer(joined, readers[0].header, chosen.model)
    for name, reader in zip(args.inputs, readers, strict=True):
        with naming(name):
            writer.copy(reader)
    if chosen.lacks is not None:
        raise chosen.lacks
    _check_alike(args.inputs, readers)
    _check_together(args.inputs, readers)
    writer.finish()
    count = sum(map(len, readers))
    content = joined.getvalue()
    _check_joined(bitstream.Reader(io.BytesIO(content), UNLIMITED))
    outputs.write(output, content, force=args.force)
    values = {"output": str(output), "images": count, "bytes": len(content)}
    return Report(values, [f"{output}: {count} images, {len(content)} bytes"])


def _check_kind(content: bytes) -> None:
    if content.startswith((bitstream.single.MAGIC, bitstream.single.REFINED_MAGIC)):
        raise DataError(
            "a single image, and those cannot be joined; compress the images into an archive"
        )


class _Chosen(NamedTuple):
    model: bytes | None  # to be embedded
    lacks: ModelMismatchError | None = None  # why it does not read all of them


def _with_model(inputs: Sequence[str], readers: Sequence[bitstream.Reader]) -> _Chosen:
    """The first embedded model that reads all the archives, if they are of one model at all."""
    refined: dict[bytes, str] = {}  # context models, and the first file that needs each
    models: list[bytes] = []
    for file, reader in zip(inputs, readers, strict=True):
        with naming(file):
            for context in reader.contexts:
                refined.setdefault(context, file)
    for file, reader in zip(inputs, readers, strict=True):
        with naming(file):
            model = reader.model()
            if model is None:
                continue
            if not refined or _context(reader) in refined:
                return _Chosen(model)
            models.append(model)
    if not models:
        return _Chosen(None)
    context, file = next(iter(refined.items()))
    return _Chosen(
        models[0],
        ModelMismatchError(
            f"{file}: refined with context model {context.hex()}, which no embedded model has; "
            "join the model of the checkpoint that compressed it too: cvae model CHECKPOINT"
        ),
    )


def _context(reader: bitstream.Reader) -> bytes | None:
    """The digest of the context model that an archive carries, None if it carries none."""
    context = reading.embedded(reader, reader.allowed).files.context
    return None if context is None else context.digest[:16]


def _check_alike(inputs: Sequence[str], readers: Sequence[bitstream.Reader]) -> None:
    """Refuses names, or labels, of some images only: as a whole the archive would have none."""
    for what, advice in (("names", "with --no-names"), ("labels", "without --labels")):
        first: dict[bool, str] = {}  # the first file in which images have them, and have not
        for file, reader in zip(inputs, readers, strict=True):
            for k in range(len(reader.entries)):
                has = getattr(reader.chunk(k), f"packed_{what}") is not None
                first.setdefault(has, file)
        if len(first) == 2:
            raise DataError(
                f"{first[False]}: its images have no {what}, those of {first[True]} have; "
                f"compress all with {what}, or all {advice}"
            )


def _check_together(inputs: Sequence[str], readers: Sequence[bitstream.Reader]) -> None:
    """Refuses names that are in two archives, and says which is the second."""
    names: list[str] = []
    try:
        check_distinct([name for reader in readers for name in reader.names or ()])
    except FormatError:
        for file, reader in zip(inputs, readers, strict=True):
            names += reader.names or ()
            try:
                check_distinct(names)
            except FormatError as error:
                raise DataError(
                    f"{file}: joined, {error}; leave names out with cvae compress --no-names"
                ) from error


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
