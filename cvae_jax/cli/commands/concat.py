"""``cvae concat``: archives of one model joined, their chunks as they are."""

from __future__ import annotations

import contextlib
import io
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cvae_jax import bitstream
from cvae_jax import reader as reading
from cvae_jax.bitstream import UNLIMITED, Budget
from cvae_jax.bitstream.names import check_distinct
from cvae_jax.cli import models
from cvae_jax.cli.files import outputs
from cvae_jax.cli.reports import Report
from cvae_jax.errors import DataError, FormatError, ModelMismatchError
from cvae_jax.jobs.names import file_names
from cvae_jax.shards import present


def concat(args: Namespace) -> Report:
    output = outputs.to_file(args.output)
    # The output may be one of the inputs: it takes its name when all has been read.
    outputs.check([output], [], force=args.force)
    inputs = [_Input(name, Budget(args.max_cost)) for name in _expanded(args.inputs)]
    chosen = _with_model(inputs)
    joined = _Together()
    with outputs.writing(output, force=args.force) as file:
        with inputs[0].opened() as first:
            writer = bitstream.Writer(file, first.header, chosen.model)
        for given in inputs:
            with given.opened() as reader:
                writer.copy(reader)
                joined.add(given.name, reader)
        if chosen.lacks is not None:
            raise chosen.lacks
        joined.check()
        size = writer.finish()
        _check_joined(bitstream.Reader(file, UNLIMITED))
        file.seek(0, io.SEEK_END)
    values = {"output": str(output), "images": joined.count, "bytes": size}
    return Report(values, [f"{output}: {joined.count} images, {size} bytes"])


def _expanded(names: Sequence[str]) -> Iterator[str]:
    """Files, and for a set those of its shards."""
    for name in names:
        shards = present(name)
        yield from [name] if shards is None else map(str, shards.paths)


class _Input:
    """An archive, of which nothing is kept in memory between two looks at it."""

    def __init__(self, name: str, allowed: Budget):
        self.name, self._allowed = name, allowed
        # A stream can be read but once.
        self._content = None if name != "-" and Path(name).is_file() else models.read(name)

    @contextlib.contextmanager
    def opened(self) -> Iterator[bitstream.Reader]:
        """What is raised in here names the file."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(models.naming(self.name))
            if self._content is None:
                file: BinaryIO = stack.enter_context(open(self.name, "rb"))
            else:
                file = io.BytesIO(self._content)
            _check_kind(file.read(8))
            yield bitstream.Reader(file, self._allowed)


def _check_kind(content: bytes) -> None:
    if content.startswith(bitstream.single.MAGICS):
        raise DataError(
            "a single image, and those cannot be joined; compress the images into an archive"
        )


class _Chosen(NamedTuple):
    model: bytes | None  # to be embedded
    lacks: ModelMismatchError | None = None  # why it does not read all of them


def _with_model(inputs: Sequence[_Input]) -> _Chosen:
    """The first embedded model that reads all the archives, if they are of one model at all."""
    refined: dict[bytes, str] = {}  # context models, and the first file that needs each
    models: dict[bytes, bytes | None] = {}  # each once, and the context model that it carries
    for given in inputs:
        with given.opened() as reader:
            for context in reader.contexts:
                refined.setdefault(context, given.name)
            model = reader.model()
            if model is not None and model not in models:
                models[model] = _context(reader)
    for model, carried in models.items():
        if not refined or carried in refined:
            return _Chosen(model)
    if not models:
        return _Chosen(None)
    context, file = next(iter(refined.items()))
    return _Chosen(
        next(iter(models)),
        ModelMismatchError(
            f"{file}: refined with context model {context.hex()}, which no embedded model has; "
            "join the model of the checkpoint that compressed it too: cvae model CHECKPOINT"
        ),
    )


def _context(reader: bitstream.Reader) -> bytes | None:
    """The digest of the context model that an archive carries, None if it carries none."""
    context = reading.embedded(reader, reader.allowed).files.context
    return None if context is None else context.digest[:16]


class _Together:
    """What archives must have in common, or apart."""

    def __init__(self) -> None:
        self.count = 0
        self._names: list[tuple[str, list[str]]] = []
        # For names and for labels, the first file in which images have them, and have not.
        self._first: dict[str, dict[bool, str]] = {"names": {}, "labels": {}}

    def add(self, file: str, reader: bitstream.Reader) -> None:
        self.count += len(reader)
        self._names.append((file, reader.names or []))
        for what, first in self._first.items():
            for k in range(len(reader.entries)):
                has = getattr(reader.chunk(k), f"packed_{what}") is not None
                first.setdefault(has, file)

    def check(self) -> None:
        """Refuses names, or labels, of some images only: as a whole the archive would have none;
        and names that are in two archives."""
        for what, advice in (("names", "with --no-names"), ("labels", "without --labels")):
            first = self._first[what]
            if len(first) == 2:
                raise DataError(
                    f"{first[False]}: its images have no {what}, those of {first[True]} have; "
                    f"compress all with {what}, or all {advice}"
                )
        try:
            check_distinct([name for _, names in self._names for name in names])
        except FormatError:
            self._say_which_is_second()

    def _say_which_is_second(self) -> None:
        so_far: list[str] = []
        for file, names in self._names:
            so_far += names
            try:
                check_distinct(so_far)
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
