"""Writing archives, chunk by chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import numpy as np

from cvae_jax.bitstream import records
from cvae_jax.bitstream.container import COUNT, ENTRY, Entry, Reader
from cvae_jax.bitstream.header import Header, pack_header
from cvae_jax.bitstream.names import check_names
from cvae_jax.bitstream.records import BASED, MAX_CHUNK, MAX_ERROR, SPOT, Chunk, Refinement
from cvae_jax.coding import streams
from cvae_jax.coding.streams import CodingTables
from cvae_jax.config import Size
from cvae_jax.errors import DataError, FormatError, ModelMismatchError

CHUNK_IMAGES = 4096  # where an archive is written here

Labels = Sequence[int] | np.ndarray  # one for each image, 0 to 2**32 - 1


class Writer:
    """Writes an archive to a file object, chunk by chunk; ``finish`` makes it complete.

    Whatever a reader would refuse is refused before it is written.
    """

    def __init__(self, file: BinaryIO, header: Header, model: bytes | None = None):
        """model: what decodes the archive, kept with it; opaque here."""
        self._file, self._header = file, header
        self._packed = pack_header(header, model is not None)
        self._entries: list[Entry] = []
        self._batches: list[list[str]] = []  # names, as they came
        self._images = 0
        self._at = 0
        self._context: bytes | None = None  # of its refined chunks
        self._write(self._packed)
        if model is not None:
            self._section(records.MODEL, model)

    def add(
        self,
        symbols: np.ndarray,
        step: int,
        tables: CodingTables,
        levels: np.ndarray,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
    ) -> None:
        """Appends images: int32 ``[N, D]`` symbols, and N names and labels where given.

        levels: what the symbols decode to, uint8 ``[N, H, W, C]``; the file vouches for it.

        Raises:
          DataError: symbols of another shape, or a name or a label that cannot be stored.
        """
        n = len(symbols)
        _check(self._header, symbols, tables, levels, n)
        numbers = self._checked_extras(n, names, labels)
        for start in range(0, n, CHUNK_IMAGES):
            part = slice(start, start + CHUNK_IMAGES)
            chunk = chunk_of(self._header, symbols[part], step, tables, levels[part])
            self._append(chunk, part, names, numbers)

    def add_refined(
        self,
        symbols: np.ndarray,
        step: int,
        tables: CodingTables,
        levels: np.ndarray,
        refinement: Refinement,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
    ) -> None:
        """Appends one chunk of refined images, at most MAX_CHUNK.

        symbols, levels: of the images whose mode is BASED, as in ``add``.

        Raises:
          DataError: as ``add``, or a refinement that cannot be read back.
          ModelMismatchError: the chunks before are refined with another context model.
        """
        chunk = chunk_of(self._header, symbols, step, tables, levels, refinement)
        self.append(chunk, names, labels)

    def append(
        self, chunk: Chunk, names: Sequence[str] | None = None, labels: Labels | None = None
    ) -> None:
        """Appends a chunk that ``chunk_of`` made, and its images' names and labels where given.

        Raises:
          DataError: a name or a label that cannot be stored.
          ModelMismatchError: the chunks before are refined with another context model.
        """
        if chunk.refinement is not None:
            self._require_context([chunk.refinement.model])
        numbers = self._checked_extras(chunk.count, names, labels)
        self._append(chunk, slice(0, chunk.count), names, numbers)

    def append_all(
        self,
        chunks: Iterable[Chunk],
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        progress: Callable[[int], None] = lambda images: None,
    ) -> None:
        """Appends chunks; names, labels: of all their images; progress: told the images of each.

        Raises:
          DataError, ModelMismatchError: as ``append``, or not a name or a label for each image.
        """
        at, numbers = 0, None if labels is None else checked_labels(labels)
        for chunk in chunks:
            part = slice(at, at := at + chunk.count)
            check_enough(names, numbers, at)
            of_part = None if numbers is None else numbers[part]
            self.append(chunk, None if names is None else names[part], of_part)
            progress(chunk.count)
        check_enough(names, numbers, at, exactly=True)

    def _append(
        self,
        chunk: Chunk,
        part: slice,
        names: Sequence[str] | None,
        labels: np.ndarray | None,
    ) -> None:
        """With those of names and labels that belong to its images."""
        self._chunk(
            dataclasses.replace(
                chunk,
                first=self._images,
                packed_names=None if names is None else records.pack_names(names[part]),
                packed_labels=None if labels is None else records.pack_labels(labels[part]),
            )
        )

    def _checked_extras(
        self, n: int, names: Sequence[str] | None, labels: Labels | None
    ) -> np.ndarray | None:
        """Checks names and labels; returns labels as uint32 ``[n]``."""
        numbers = None if labels is None else checked_labels(labels, n)
        if names is not None:
            if len(names) != n:
                raise DataError(f"{len(names)} names for {n} images")
            self._take_names(names)
        return numbers

    def copy(self, archive: Reader) -> None:
        """Appends all images of another archive of the same model, as they are.

        Raises:
          ModelMismatchError: it is of another model, or refined with another context model.
          DataError: it has names that cannot be unpacked.
          FormatError: it is damaged.
        """
        for name, other, ours in archive.header.identity.differences(self._header.identity):
            raise ModelMismatchError(
                "archives of different models cannot be joined: "
                f"this one is of {name} {other}, the first of {ours}"
            )
        self._require_context(archive.contexts)
        self._take_names([name for names in archive.names_of_chunks for name in names or ()])
        for k in range(len(archive.entries)):
            self._chunk(dataclasses.replace(archive.chunk(k), first=self._images))

    def _require_context(self, contexts: Sequence[bytes]) -> None:
        """Raises ModelMismatchError unless one context model reads these and what is there."""
        first = contexts[0] if self._context is None and contexts else self._context
        for other in contexts:
            if first is not None and other != first:
                raise ModelMismatchError(
                    "images refined with different context models cannot be in one archive: "
                    f"these are refined with {other.hex()}, the first with {first.hex()}"
                )

    def _take_names(self, names: Sequence[str]) -> None:
        records.join_names(names)  # says which cannot be stored at all
        _check_names(names)
        self._batches.append(list(names))

    def finish(self) -> int:
        """Writes the index, which makes the archive complete; returns its bytes.

        Raises:
          DataError: names that came one by one cannot be together.
        """
        if len(self._batches) > 1:
            _check_names([name for names in self._batches for name in names])
        offset = self._at
        entries = b"".join(ENTRY.pack(e.offset, e.length, e.count) for e in self._entries)
        self._section(records.INDEX, self._packed + COUNT.pack(self._images) + entries)
        self._write(records.pack_footer(offset))
        return self._at

    def _chunk(self, chunk: Chunk) -> None:
        offset = self._at
        self._section(records.CHUNK, records.pack_chunk(chunk))
        self._entries.append(Entry(offset, self._at - offset, chunk.count))
        if chunk.refinement is not None:
            self._context = chunk.refinement.model
        self._images += chunk.count

    def _section(self, tag: bytes, body: bytes) -> None:
        self._write(records.pack_section(tag, body))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._at += len(data)


def chunk_of(
    header: Header,
    symbols: np.ndarray,
    step: int,
    tables: CodingTables,
    levels: np.ndarray,
    refinement: Refinement | None = None,
    size: Size | None = None,
) -> Chunk:
    """A chunk of at most MAX_CHUNK images, without names or labels, for an archive's `append`.

    levels: what the symbols decode to, as in ``Writer.add``; of the first SPOT images alone where
    nobody decodes them all, so that the file vouches for no more.
    refinement: then symbols and levels are of the images whose mode is BASED.
    size: of the images where it is not the header's; the tables are then made for it.

    Raises:
      DataError: symbols of another shape, or a refinement that cannot be read back.
    """
    n, spot = len(symbols), len(levels) < len(symbols)
    _check(header, symbols, tables, levels, min(n, SPOT) if spot else n, size)
    if refinement is not None:
        _check_refinement(refinement, n)
        if size is not None:
            raise DataError("refined images of another size than the archive's own")
    return Chunk(
        first=0,
        count=n if refinement is None else len(refinement.modes),
        step=step,
        symbol_crc=records.crc32c(records.symbol_bytes(symbols)),
        pixel_crc=records.crc32c(records.pixel_bytes(levels)),
        packed_names=None,
        packed_labels=None,
        stream=streams.encode(symbols, tables, step),
        refinement=refinement,
        spot=spot,
        size=size,
    )


def _check(
    header: Header,
    symbols: np.ndarray,
    tables: CodingTables,
    levels: np.ndarray,
    decoded: int,
    size: Size | None = None,
) -> None:
    n, d = len(symbols), header.latent_dim if size is None else tables.latent_dim
    if symbols.shape != (n, d) or tables.latent_dim != d:
        raise DataError(f"symbols of shape {symbols.shape} for a model of {d} latents")
    h, w, channels = header.image_shape
    if levels.shape != (decoded, *(size or (h, w)), channels):
        raise DataError(f"{n} images that decode to shape {levels.shape}")


def check_enough(
    names: Sequence[str] | None, labels: Labels | None, images: int, exactly: bool = False
) -> None:
    """Raises DataError unless there is a name, and a label, for each image where any are given.

    exactly: there are no more images than that.
    """
    labels = None if labels is None else checked_labels(labels)
    for what, given in (("names", names), ("labels", labels)):
        if given is not None and (len(given) < images or (exactly and len(given) > images)):
            wanted = images if exactly else f"{images} or more"
            raise DataError(f"{len(given)} {what} for {wanted} images")


def _check_refinement(refinement: Refinement, based: int) -> None:
    """Raises DataError for what readers refuse; based: how many images have symbols."""
    modes, max_error = refinement.modes, refinement.max_error
    if modes.ndim != 1 or not 1 <= len(modes) <= MAX_CHUNK:
        raise DataError(
            f"a refined chunk with modes of shape {modes.shape}; expected 1 to {MAX_CHUNK} of them"
        )
    if not 0 <= max_error <= MAX_ERROR:
        raise DataError(f"a largest error of {max_error}; expected 0 to {MAX_ERROR}")
    if modes.dtype != np.uint8 or modes.max() > BASED:
        raise DataError(f"modes of images must be uint8 from 0 to {BASED}")
    if (modes == BASED).sum() != based:
        raise DataError(f"symbols of {based} images, but {(modes == BASED).sum()} have a base")


def _check_names(names: Sequence[str]) -> None:
    """``check_names`` of what is given to be written: no damaged file, but data at fault."""
    try:
        check_names(names)
    except FormatError as error:
        raise DataError(str(error)) from error


def checked_labels(labels: Labels, n: int | None = None) -> np.ndarray:
    """Labels as uint32 ``[n]``, a copy; raises DataError for what a file cannot hold.

    n: how many there are to be, if that is known.
    """
    try:
        numbers = np.asarray(labels)
    except ValueError as error:
        raise DataError(f"labels must be one whole number for each image ({error})") from error
    if numbers.ndim != 1:
        raise DataError(f"labels of shape {numbers.shape}; expected one for each image")
    if n is not None and len(numbers) != n:
        raise DataError(f"{len(numbers)} labels for {n} images")
    some, whole = len(numbers) > 0, numbers.dtype.kind in "iu"
    low, high = (numbers.min(), numbers.max()) if whole and some else (0, 0)
    if (some and not whole) or not 0 <= low <= high < 1 << 32:
        raise DataError("labels must be whole numbers from 0 to 4294967295")
    return numbers.astype(np.uint32)
