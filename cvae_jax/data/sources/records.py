"""Encoded images in ArrayRecord files, as tensorflow-datasets writes them."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cvae_jax.errors import DataError, needs

MAGIC = bytes.fromhex("83af70d10d884a3f")  # of Riegeli, in which ArrayRecord is written
# Nothing is read ahead: records are read in any order, by threads of our own.
OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
BYTES = 2  # a field's type in protocol buffers: bytes of a length that is said before them


class Records:
    """Records of one file or several, each an image's file or a ``tf.train.Example`` with one.

    feature: the name of the image in an example; by default ``image``, or else the only one that
    is bytes.
    """

    def __init__(self, paths: Sequence[Path], feature: str | None = None):
        self._paths, self._feature = list(paths), feature
        self._clear()
        counts = [self._reader(k).num_records() for k in range(len(self._paths))]
        self._ends = list(itertools.accumulate(counts))
        if not len(self):
            raise DataError(f"{self._paths[0]}: no records")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_readers", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()

    def _clear(self) -> None:
        self._readers: list[Any] = [None] * len(self._paths)
        self._lock = threading.Lock()

    def _reader(self, shard: int) -> Any:
        with needs("train", "reading ArrayRecord files"):
            from array_record.python.array_record_module import ArrayRecordReader

        path = self._paths[shard]
        with self._lock:
            if self._readers[shard] is None:
                try:
                    self._readers[shard] = ArrayRecordReader(str(path), OPTIONS)
                except Exception as error:  # its own kinds, and it names C++ source lines
                    raise DataError(f"{path}: damaged, or no ArrayRecord file") from error
            return self._readers[shard]

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, number: int) -> bytes:
        shard, first = self._place(number)
        try:
            (record,) = self._reader(shard).read([first])
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.shown(number)}: damaged") from error
        if record[:1] != b"\n":  # as an example starts, and no image
            return record
        try:
            return _image_of(record, self._feature)
        except ValueError as error:
            raise DataError(f"{self.shown(number)}: {error}") from error

    def name(self, number: int) -> str | None:
        return None

    def shown(self, number: int) -> str:
        shard, at = self._place(number)
        return f"{self._paths[shard]}, record {at}"

    def _place(self, number: int) -> tuple[int, int]:
        """The file of a record, and its number there."""
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        shard = bisect.bisect_right(self._ends, number)
        return shard, number - (self._ends[shard - 1] if shard else 0)


def _image_of(example: bytes, feature: str | None) -> bytes:
    """The bytes of a feature of a ``tf.train.Example``.  Raises ValueError: there is none."""
    found: dict[str, bytes] = {}
    for features in _fields(example, 1):
        for entry in _fields(features, 1):
            key = b"".join(_fields(entry, 1)).decode("utf-8", "replace")
            for value in itertools.chain.from_iterable(
                _fields(several, 1) for one in _fields(entry, 2) for several in _fields(one, 1)
            ):
                found.setdefault(key, value)
    wanted = feature or ("image" if "image" in found or len(found) != 1 else next(iter(found)))
    if wanted not in found:
        raise ValueError(f"an example without the feature {wanted!r} ({', '.join(sorted(found))})")
    return found[wanted]


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The values of one field of bytes in a message of protocol buffers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        if kind == BYTES:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("damaged")
        if at + length > len(message):
            raise ValueError("damaged")
        if key >> 3 == wanted and kind == BYTES:
            yield message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("damaged")
