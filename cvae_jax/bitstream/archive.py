"""An open archive: random access, names, labels; and what can be recovered of a damaged one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from cvae_jax.bitstream.container import Reader
from cvae_jax.bitstream.records import Chunk, Header
from cvae_jax.bitstream.salvage import lost, salvage
from cvae_jax.coding.tables import Tables
from cvae_jax.errors import FormatError

# More pixels than this are read at once only from a file that is large enough to hold them.
ALWAYS_ALLOWED = 1 << 32
EXPANSION = 2000  # pixels per byte: of the digits at the default quality it takes 150

OnProgress = Callable[[int], None]  # told, now and then, how many more images are done


def unwatched(done: int) -> None:
    """The progress that nobody watches."""


class FileDecoder(NamedTuple):
    """What reading a file takes of a model."""

    header: Header  # which every archive of the model has
    tables: Tables
    decode_symbols: Callable[[np.ndarray, int], np.ndarray]  # [N, D], step -> uint8 [N, H, W, C]

    def require(self, header: Header) -> None:
        """Raises ModelMismatchError unless an archive with this header is this model's."""
        header.identity.require(self.header.identity)
        if header != self.header:
            raise FormatError("the archive's header contradicts the model that it names")


class Archive:
    """A sequence of images in a file; reads and decodes the chunks that are asked for.

    A context manager: leaving it closes the file.
    """

    def __init__(self, file: BinaryIO, decoder: FileDecoder, reader: Reader | None = None):
        """Raises FormatError if damaged, ModelMismatchError if it is not the decoder's.

        reader: of the file, where there is one already.
        """
        self._file, self._decoder = file, decoder
        self.reader = Reader(file) if reader is None else reader
        decoder.require(self.reader.header)
        self._newest: tuple[int, Chunk, np.ndarray] | None = None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, which: int | slice) -> np.ndarray:
        """One image, uint8 ``[H, W, C]``, or those of a slice, ``[n, H, W, C]``."""
        if isinstance(which, slice):
            return self.read(range(len(self))[which])
        try:
            return self.read([range(len(self))[which]])[0]
        except IndexError as error:
            raise IndexError(f"image {which} of an archive of {len(self)}") from error

    def read(
        self, which: Sequence[int] | None = None, progress: OnProgress = unwatched
    ) -> np.ndarray:
        """The images of these numbers (default: all), uint8 ``[n, H, W, C]``."""
        if which is None:
            which = range(len(self))
            self.reader.model()  # all of the file is vouched for, whatever decodes it
        shape = (len(which), *self._decoder.header.image_shape)
        if math.prod(shape) > max(ALWAYS_ALLOWED, EXPANSION * self.reader.size):
            raise FormatError(
                f"{self.reader.size} bytes that claim to hold {len(which)} images; "
                "read them in parts"
            )
        out = np.empty(shape, np.uint8)
        # Chunk by chunk: whatever the order that is asked for, each is decoded once.
        of_chunk, row = self.reader.find(np.asarray(which, np.int64))
        for k in np.unique(of_chunk):
            wanted = np.flatnonzero(of_chunk == k)
            chunk, symbols = self._chunk(k)
            out[wanted] = self._decoder.decode_symbols(symbols[row[wanted]], chunk.step)
            progress(len(wanted))
        return out

    def names(self) -> list[str] | None:
        """All images' names, None where they were stored without."""
        found: list[str] = []
        for k in range(len(self.reader.entries)):
            names = self.reader.chunk(k).names
            if names is None:
                return None
            found += names
        return found or None

    def labels(self) -> np.ndarray | None:
        """All images' labels, uint32 ``[N]``, None where they were stored without."""
        found: list[np.ndarray] = []
        for k in range(len(self.reader.entries)):
            labels = self.reader.chunk(k).labels
            if labels is None:
                return None
            found.append(labels)
        return np.concatenate(found) if found else None

    def _chunk(self, k: int) -> tuple[Chunk, np.ndarray]:
        if self._newest is None or self._newest[0] != k:
            chunk = self.reader.chunk(k)
            self._newest = k, chunk, chunk.symbols(self._decoder.tables)
        return self._newest[1:]


class Recovered(NamedTuple):
    """What a damaged archive still holds."""

    images: np.ndarray  # uint8 [n, H, W, C]
    numbers: np.ndarray  # int64 [n], of these images in the archive
    names: list[str | None]
    lost: list[tuple[int, int]]  # ranges of images, first and last, that are gone
    faults: list[str]


def recover(data: bytes, decoder: FileDecoder) -> Recovered:
    """Decodes every intact chunk of a damaged archive.

    Raises:
      FormatError: nothing can be recovered.
      ModelMismatchError: it is another model's.
    """
    found = salvage(data)
    decoder.require(found.header)
    faults, parts = list(found.faults), []
    for chunk in found.chunks:
        try:
            parts.append((chunk, chunk.symbols(decoder.tables)))
        except FormatError as error:
            faults.append(str(error))
    shape = decoder.header.image_shape
    images = [decoder.decode_symbols(symbols, chunk.step) for chunk, symbols in parts]
    numbers = [chunk.first + np.arange(chunk.count) for chunk, _ in parts]
    names: list[str | None] = []
    for chunk, _ in parts:
        names += chunk.names or [None] * chunk.count
    return Recovered(
        np.concatenate([np.empty((0, *shape), np.uint8), *images]),
        np.concatenate([np.empty(0, np.int64), *numbers]),
        names,
        lost([(chunk.first, chunk.count) for chunk, _ in parts], found.images),
        faults,
    )
