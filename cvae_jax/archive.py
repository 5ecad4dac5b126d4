"""An open archive and the codec that decodes it: random access, names, labels, recovery."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from cvae_jax import bitstream
from cvae_jax.errors import FormatError

if TYPE_CHECKING:  # the codec opens archives: it imports this module
    from cvae_jax.codec import Codec


# More pixels than this are read at once only from a file that is large enough to hold them.
ALWAYS_ALLOWED = 1 << 32
EXPANSION = 2000  # pixels per byte: of the digits at the default quality it takes 150

Progress = Callable[[int], None]


def ignore(done: int) -> None:
    """The progress that nobody watches."""


class Archive:
    """A sequence of images in a file; reads and decodes the chunks that are asked for.

    A context manager: leaving it closes the file.
    """

    def __init__(self, codec: Codec, file: BinaryIO):
        """Raises FormatError if damaged, ModelMismatchError if ``codec`` is not its codec."""
        self._codec, self._file = codec, file
        self.reader = bitstream.Reader(file)
        require(codec, self.reader.header)
        self._newest: tuple[int, bitstream.Chunk, np.ndarray] | None = None

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

    def read(self, which: Sequence[int] | None = None, progress: Progress = ignore) -> np.ndarray:
        """The images of these numbers (default: all), uint8 ``[n, H, W, C]``."""
        if which is None:
            which = range(len(self))
            self.reader.model()  # all of the file is vouched for, whatever decodes it
        shape = (len(which), *self._codec.model.image_shape)
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
            out[wanted] = self._codec.pixels(symbols[row[wanted]], chunk.step)
            progress(len(wanted))
        return out

    def names(self) -> list[str] | None:
        """All images' names, None where they were stored without."""
        chunks = [self.reader.chunk(k).names for k in range(len(self.reader.entries))]
        if not chunks or None in chunks:
            return None
        return [name for names in chunks for name in names]

    def labels(self) -> np.ndarray | None:
        """All images' labels, uint32 ``[N]``, None where they were stored without."""
        chunks = [self.reader.chunk(k).labels for k in range(len(self.reader.entries))]
        if not chunks or any(labels is None for labels in chunks):
            return None
        return np.concatenate(chunks)

    def _chunk(self, k: int) -> tuple[bitstream.Chunk, np.ndarray]:
        if self._newest is None or self._newest[0] != k:
            chunk = self.reader.chunk(k)
            self._newest = k, chunk, chunk.symbols(self._codec.coding_tables)
        return self._newest[1:]


class Recovered(NamedTuple):
    """What a damaged archive still holds."""

    images: np.ndarray  # uint8 [n, H, W, C]
    numbers: np.ndarray  # int64 [n], of these images in the archive
    names: list[str | None]
    lost: list[tuple[int, int]]  # ranges of images, first and last, that are gone
    faults: list[str]


def recover(codec: Codec, data: bytes) -> Recovered:
    """Decodes every intact chunk of a damaged archive.

    Raises:
      FormatError: nothing can be recovered.
      ModelMismatchError: it is another codec's.
    """
    found = bitstream.salvage(data)
    require(codec, found.header)
    faults, parts = list(found.faults), []
    for chunk in found.chunks:
        try:
            parts.append((chunk, chunk.symbols(codec.coding_tables)))
        except FormatError as error:
            faults.append(str(error))
    shape = codec.model.image_shape
    images = [codec.pixels(symbols, chunk.step) for chunk, symbols in parts]
    numbers = [chunk.first + np.arange(chunk.count) for chunk, _ in parts]
    names = [chunk.names or [None] * chunk.count for chunk, _ in parts]
    return Recovered(
        np.concatenate([np.empty((0, *shape), np.uint8), *images]),
        np.concatenate([np.empty(0, np.int64), *numbers]),
        [name for part in names for name in part],
        bitstream.lost([(chunk.first, chunk.count) for chunk, _ in parts], found.images),
        faults,
    )


def require(codec: Codec, header: bitstream.Header) -> None:
    """Raises ModelMismatchError unless an archive with this header is the codec's."""
    header.identity.require(codec.identity)
    if header != codec.header:
        raise FormatError("the archive's header contradicts the model that it names")
