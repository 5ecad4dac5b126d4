"""What a command is given to compress: image files, folders, globs, arrays, archives of images,
stdin."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cvae_jax import data
from cvae_jax.config import Size
from cvae_jax.data.sources import (
    Files,
    FileSource,
    Images,
    Part,
    ShapeError,
    blocks,
    kind,
    open_source,
)
from cvae_jax.errors import DataError
from cvae_jax.jobs.collection import expand as expand_pattern


class Source(NamedTuple):
    """A file to read."""

    name: str | None  # relative path of an image file; None: standard input
    path: Path | None  # None: standard input


class Inputs(NamedTuple):
    """Images, read when they are wanted: there may be more of them than memory has room for."""

    total: int
    names: list[str] | None  # relative paths of image files; None where some had no name
    single: bool  # one image file
    first: str  # file, as the user knows it
    # The images in order, uint8 [n, H, W, C], at most so many at once, from the start at each call.
    # Raises DataError where a file turns out to be damaged, or not of the model's shape.
    blocks: Callable[[int], Iterator[np.ndarray]]

    def all(self) -> np.ndarray:
        """All images in memory, uint8 ``[N, H, W, C]``."""
        parts = list(self.blocks(self.total))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def expand(arguments: Sequence[str]) -> list[Source]:
    """The files that arguments mean, in their order.

    Raises:
      DataError: there is none for an argument.
    """
    return [source for argument in arguments for source in _expand(argument)]


@contextlib.contextmanager
def opened(
    sources: Sequence[Source],
    image_shape: tuple[int, int, int],
    *,
    resize: bool,
    grayscale: bool,
    stdin: BinaryIO,
) -> Iterator[Inputs]:
    """The images of all sources, in the order given.

    image_shape: what the model wants.  Other images are refused, with both sizes in the message;
    ``resize`` stretches image files to its size, ``grayscale`` makes coloured ones grey.

    Raises:
      DataError: something is missing, or of an array's header damaged or not of the model's shape.
    """

    with contextlib.ExitStack() as stack:
        located = [_locate(stack, source, stdin) for source in sources]
        yield _inputs(located, image_shape, resize, grayscale)


@contextlib.contextmanager
def opened_by_size(
    sources: Sequence[Source], channels: int, *, grayscale: bool, stdin: BinaryIO
) -> Iterator[dict[Size, Inputs]]:
    """The images of all sources by their height and width, in the order in which sizes first come.
    Raises as ``opened``.
    """
    with contextlib.ExitStack() as stack:
        by_size: dict[Size, list[_Located]] = {}
        for source in sources:
            for size, located in _by_size(_locate(stack, source, stdin)):
                by_size.setdefault(size, []).append(located)
        yield {
            size: _inputs(located, (*size, channels), False, grayscale)
            for size, located in by_size.items()
        }


class _Located(NamedTuple):
    name: str | None
    path: Path
    shown: str  # what the user knows it as
    kind: str
    part: Part | None = None  # of a file of several images, those that are meant


def _by_size(file: _Located) -> Iterator[tuple[Size, _Located]]:
    """The images of a file, those of each height and width together."""
    with _shown(file.path, file.shown):
        if file.kind == "image":
            yield data.size_of(file.path, str(file.path)), file
            return
        source = open_source(file.path)
        if not isinstance(source, Images):
            h, w, _ = source.shape[1:]
            yield (h, w), file
            return
        stored, by_size = source.stored, dict[Size, list[int]]()
        for number in range(len(stored)):
            size = data.size_of(io.BytesIO(stored.read(number)), stored.shown(number))
            by_size.setdefault(size, []).append(number)
        for size, numbers in by_size.items():
            yield size, file._replace(part=Part(stored, numbers))


def _inputs(
    located: Sequence[_Located],
    image_shape: tuple[int, int, int],
    resize: bool,
    grayscale: bool,
) -> Inputs:
    def open_images(paths: Sequence[Path]) -> Images:
        files = Files(Path(), [str(path) for path in paths])
        return Images(files, image_shape, resize=resize, grayscale=grayscale)

    names: list[str | None] = []
    parts: list[Callable[[int], Iterator[np.ndarray]]] = []
    for is_image, run in itertools.groupby(located, lambda found: found.kind == "image"):
        files = list(run)
        if is_image:
            names += [file.name for file in files]
            read = functools.partial(blocks, open_images([file.path for file in files]))
            parts.append(_shown_blocks(read, files[0].path, files[0].shown))
            continue
        for file in files:
            with _shown(file.path, file.shown):
                source: FileSource = (
                    Images(file.part, image_shape, grayscale=grayscale)
                    if file.part
                    else open_source(file.path, image_shape, resize=resize, grayscale=grayscale)
                )
            names += map(source.name, range(len(source)))
            read = functools.partial(blocks, source)
            parts.append(_shown_blocks(read, file.path, file.shown))
    if not names:
        raise DataError(f"{located[-1].shown}: no images")
    known = None if None in names else [str(name) for name in names]
    return Inputs(
        len(names),
        known,
        len(located) == 1 and located[0].kind == "image",
        located[0].shown,
        lambda size: itertools.chain.from_iterable(part(size) for part in parts),
    )


def _locate(stack: contextlib.ExitStack, source: Source, stdin: BinaryIO) -> _Located:
    name, path = source
    shown = "standard input" if path is None else str(path)
    path = stack.enter_context(_spooled(stdin)) if path is None else path
    if path.exists() and not path.is_file():
        raise DataError(f"{shown}: no regular file; give it as standard input, with -")
    with _shown(path, shown):
        return _Located(name, path, shown, kind(path))


def _shown_blocks(
    read: Callable[[int], Iterator[np.ndarray]], path: Path, shown: str
) -> Callable[[int], Iterator[np.ndarray]]:
    def blocks(size: int) -> Iterator[np.ndarray]:
        with _shown(path, shown):
            yield from read(size)

    return blocks


@contextlib.contextmanager
def _shown(path: Path, shown: str) -> Iterator[None]:
    """Errors name a file as the user knows it: standard input has become a temporary one."""
    try:
        yield
    except DataError as error:
        told = str(error).replace(str(path), shown)
        if isinstance(error, ShapeError):
            told += ", or --ckpt names another model (photos32: of photographs)"
        raise DataError(told) from error


def _expand(argument: str) -> Iterator[Source]:
    if argument == "-":
        yield Source(None, None)
        return
    for path in expand_pattern(argument):
        if path.is_dir():
            yield from (Source(p.relative_to(path).as_posix(), p) for p in data.list_images(path))
        else:
            yield Source(path.name, path)


@contextlib.contextmanager
def _spooled(stdin: BinaryIO) -> Iterator[Path]:
    """Standard input as a file, in which what is wanted can be found."""
    start = stdin.read(512)
    if not start:
        raise DataError("standard input: empty")
    suffix = ".npz" if start.startswith(b"PK") and b".npy" in start else ""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(start)
        shutil.copyfileobj(stdin, file)
        file.flush()
        yield Path(file.name)
