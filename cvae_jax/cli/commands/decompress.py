"""``cvae decompress``: read a file once, decode it, write images and labels."""

from __future__ import annotations

import contextlib
import io
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax import bitstream
from cvae_jax.bitstream import Budget
from cvae_jax.cli import jobs, models
from cvae_jax.cli.files import checkpoints, outputs
from cvae_jax.cli.files.outputs import Output, ToFile, ToFolder, ToStdout
from cvae_jax.cli.files.paths import check_inside
from cvae_jax.cli.files.unpacking import check_encodable, named, numbered
from cvae_jax.cli.reports import Report, counted, progress
from cvae_jax.errors import ConfigError, CostError, DataError, FormatError, VersionError
from cvae_jax.files import whole
from cvae_jax.jobs.decompress import begun
from cvae_jax.jobs.names import file_names
from cvae_jax.shards import ArchiveSet, Shards, parse, present


class Decoded(NamedTuple):
    blocks: Iterable[np.ndarray]  # uint8 [n, H, W, C] each, as they are decoded
    shape: tuple[int, int, int, int]  # of all of them
    names: list[str] | None  # of the files in a folder; None: the images have none
    labels: np.ndarray | None  # [N], where they are asked for
    lost: Sequence[tuple[int, int]] = ()  # ranges of images, first and last
    faults: Sequence[str] = ()


def decompress(args: Namespace) -> Report:
    if args.labels and args.keep_going:
        raise ConfigError("--labels and --keep-going do not go together")
    if args.preview and args.keep_going:
        raise ConfigError("--preview and --keep-going do not go together")
    if (shards := present(args.input)) is not None:
        if args.output is not None and (into := parse(args.output)) is not None:
            return job(args, shards, into)
        return _of_set(args, shards)
    if args.jobs is not None:
        raise ConfigError("--jobs is for a set of archives and a set of outputs, -o OUT@S.npy")
    content = models.read(args.input)
    with models.naming(args.input):
        is_archive = _is_archive(content, args.keep_going)
    output = outputs.for_images(args.input, args.output, is_archive=is_archive)
    labels_to = outputs.to_file(args.labels) if args.labels else None
    read = [] if args.input == "-" else [Path(args.input)]
    read += checkpoints.named(args.ckpt)
    written = [output, labels_to] if labels_to else [output]
    outputs.check(written, read, force=args.force)

    decode = _recovered if args.keep_going else _strict
    with models.naming(args.input):
        found = (decode if is_archive else _single)(args, content, output)
        _write(found, output, labels_to, force=args.force)
    return _report(found, output)


def _report(found: Decoded, output: Output) -> Report:
    count = found.shape[0]
    lines = [f"{output}: {counted(count, 'image')}"]
    lines += [f"fault: {fault}" for fault in found.faults]
    lines += [f"lost: images {first} to {last}" for first, last in found.lost]
    values = {
        "output": str(output),
        "images": count,
        "faults": list(found.faults),
        "lost": list(found.lost),
    }
    return Report(values, lines, status=3 if found.faults or found.lost else 0)


def job(args: Namespace, shards: Shards, into: Shards) -> Report:
    """A set of archives into a set of arrays."""
    for flag in ("labels", "preview", "keep_going"):
        if getattr(args, flag, None):
            raise ConfigError(
                f"--{flag.replace('_', '-')} does not go with a set of outputs; name one file"
            )
    with begun(shards, into, args.ckpt, args.max_cost, force=args.force) as work:
        results, peak = jobs.carried_out(
            args, work, shards.count, models.images_of(shards), "decompress"
        )
    count = sum(result["images"] for result in results)
    values = {
        "output": str(into),
        "shards": shards.count,
        "images": count,
        "made": sum(result["made"] for result in results),
        "peak_bytes": peak,
    }
    files = counted(shards.count, "file")
    lines = [f"{into}: {counted(count, 'image')} in {files}{jobs.there_already(results)}"]
    if args.verbose:
        lines.append(jobs.peak_line(peak))
    return Report(values, lines)


def _of_set(args: Namespace, shards: Shards) -> Report:
    """A set of archives as if it were one."""
    if args.keep_going:
        raise ConfigError("--keep-going is for one archive; name the shard that is damaged")
    if args.jobs is not None:
        raise ConfigError(f"--jobs needs a set of outputs, -o {shards.name}@{shards.count}.npy")
    if args.output is None:
        raise ConfigError(f"{shards} is a set; say with -o what to write")
    output = outputs.for_images(args.input, args.output, is_archive=True)
    labels_to = outputs.to_file(args.labels) if args.labels else None
    written = [output, labels_to] if labels_to else [output]
    outputs.check(written, [*shards.paths, *checkpoints.named(args.ckpt)], force=args.force)
    with models.open_set(shards, args.ckpt, Budget(args.max_cost)) as archives:
        labels = archives.labels() if args.labels else None
        if args.labels and labels is None:
            raise DataError(f"{shards}: it holds no labels, or of some images only")
        shape = (len(archives), *_image_shape(archives.shard(0), output))
        outputs.check_fit(output, shape[1:], len(archives))
        names = archives.names() if isinstance(output, ToFolder) else None
        if isinstance(output, ToFolder):
            names = file_names(names or numbered(range(len(archives))))
            check_encodable(names)
            check_inside(output.path, names, [*shards.paths, *_others(args)])
        found = Decoded(_blocks(archives, args.preview), shape, names, labels)
        _write(found, output, labels_to, force=args.force)
    return _report(found, output)


def _write(
    found: Decoded, output: Output, labels_to: ToStdout | ToFile | None, *, force: bool
) -> None:
    with contextlib.ExitStack() as stack:
        labels = None if found.labels is None else outputs.array_file(found.labels)
        if labels and isinstance(labels_to, ToFile):
            # Made first and named last: both are there at the end, or neither.
            stack.enter_context(whole(labels_to.path, force=force)).write(labels)
        outputs.write_images(output, found.blocks, found.shape, found.names, force=force)
        if labels and isinstance(labels_to, ToStdout):
            outputs.write(labels_to, labels, force=force)


def _is_archive(content: bytes, keep_going: bool) -> bool:
    try:
        return bitstream.is_archive(content)
    except FormatError:
        if not keep_going:
            raise
        return True  # its first bytes may be what is damaged


def _single(args: Namespace, content: bytes, output: Output) -> Decoded:
    if args.labels:
        raise DataError("it holds a single image, and no labels")
    allowed = Budget(args.max_cost)
    model = models.of_single(content, args.ckpt, allowed)
    outputs.check_fit(output, model.files.image_shape, 1)
    image = bitstream.single.decode(content, model.decoder(1), allowed, preview=args.preview)
    return Decoded([image.levels[None]], (1, *image.levels.shape), None, None)


def _strict(args: Namespace, content: bytes, output: Output) -> Decoded:
    with _advising():
        return _intact(args, content, output)


@contextlib.contextmanager
def _advising() -> Iterator[None]:
    """Tells of ``--keep-going`` where an archive is damaged."""
    try:
        yield
    except (VersionError, CostError):
        raise
    except FormatError as error:
        if error.file is not None:  # of --ckpt
            raise
        raise FormatError(f"{error}; --keep-going recovers what is intact") from error


def _intact(args: Namespace, content: bytes, output: Output) -> Decoded:
    opened = models.open_archive(content, Budget(args.max_cost))
    _check_images(opened)
    decoder = models.of_archive(opened, args.ckpt).decoder(len(opened))
    archive = bitstream.Archive(io.BytesIO(content), decoder, opened)
    labels = archive.labels() if args.labels else None
    if args.labels and labels is None:
        some = any(found is not None for found in opened.labels_of_chunks)
        raise DataError(f"it holds {'labels of some images only' if some else 'no labels'}")
    outputs.check_fit(output, opened.header.image_shape, len(archive))
    names = names_of(opened)
    if isinstance(output, ToFolder):
        names = file_names(names or numbered(range(len(archive))))
        check_encodable(names)  # before the work
        check_inside(output.path, names, _others(args))
    shape = (len(archive), *_image_shape(archive, output))
    return Decoded(_blocks(archive, args.preview), shape, names, labels)


def _image_shape(archive: bitstream.Archive, output: Output) -> tuple[int, int, int]:
    """Of all images; a folder takes them of any sizes.  Raises DataError: they are of several."""
    into_folder = isinstance(output, ToFolder)
    return archive.reader.header.image_shape if into_folder else archive.image_shape


def _blocks(archive: bitstream.Archive | ArchiveSet, preview: bool) -> Iterator[np.ndarray]:
    with _advising(), progress(len(archive), "decompress") as advance:
        for images in archive.stream(preview=preview):
            yield images
            advance(len(images))


def _check_images(archive: bitstream.Reader) -> None:
    if archive.is_model_file:
        raise DataError("a model file, and no images to decompress; --ckpt takes it")


def names_of(archive: bitstream.Reader) -> list[str] | None:
    """The names of an archive's images, numbers for those without; None if none has a name."""
    found: list[str | None] = []
    for names, entry in zip(archive.names_of_chunks, archive.entries, strict=True):
        found += names or [None] * entry.count
    return named(found, range(len(found))) if any(found) else None


def _recovered(args: Namespace, content: bytes, output: Output) -> Decoded:
    allowed = Budget(args.max_cost)
    with contextlib.suppress(FormatError):  # damage is reported below
        _check_images(models.open_archive(content, allowed))
    model, faults = models.of_damaged(content, args.ckpt, allowed)
    found = bitstream.recover(content, model.decoder(), allowed)
    count, shapes = len(found.numbers), {images.shape[1:] for images in found.images}
    if len(shapes) > 1 and not isinstance(output, ToFolder):
        raise ConfigError(f"{output}: the images are of {len(shapes)} sizes; name a folder")
    outputs.check_fit(output, model.files.image_shape, count)
    faults = list(dict.fromkeys([*faults, *found.faults]))
    numbers = numbered(found.numbers)
    names = named(found.names, found.numbers)
    if isinstance(output, ToFolder):
        try:
            names = file_names(names)
        except FormatError as error:
            faults.append(f"{error}; numbers instead of names")
            names = file_names(numbers)
        check_encodable(names)  # before the work
        check_inside(output.path, names, _others(args))
    shape = (count, *(shapes.pop() if shapes else model.files.image_shape))
    return Decoded(found.images, shape, names, None, found.lost, faults)


def _others(args: Namespace) -> list[Path]:
    """What an image must not be written over."""
    return [Path(name) for name in (args.input, args.labels, args.ckpt) if name and name != "-"]
