"""``cvae concat``: archives of one model joined, their chunks as they are."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Sequence

from cvae_jax import bitstream
from cvae_jax.bitstream import UNLIMITED, Budget
from cvae_jax.bitstream.names import check_distinct
from cvae_jax.cli import models
from cvae_jax.cli.files import outputs
from cvae_jax.cli.files.unpacking import file_names
from cvae_jax.cli.reports import Report
from cvae_jax.errors import DataError, FormatError, naming


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
    with_model = next((reader for reader in readers if reader.has_model), readers[0])
    with naming(args.inputs[readers.index(with_model)]):
        model = with_model.model()
    writer = bitstream.Writer(joined, readers[0].header, model)
    for name, reader in zip(args.inputs, readers, strict=True):
        with naming(name):
            writer.copy(reader)
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
