"""Image files inside a .tar or .zip file, found once and read where they are."""

from __future__ import annotations

import abc
import io
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data.arrays import MAX_EXPANSION
from cvae_jax.data.sources.names import (
    MOST_BYTES,
    MOST_MEMBERS,
    Names,
    is_image,
    member_name,
    ordered,
)
from cvae_jax.data.sources.source import File, reading
from cvae_jax.errors import DataError

STORED, DEFLATED = 0, 8  # methods of compression


class _Member(NamedTuple):
    offset: int  # of a tar's data, of a zip's own header
    stored: int  # bytes in the file
    size: int  # bytes unpacked
    check: int  # CRC-32 of those
    method: int


class Packed(abc.ABC):
    """Members of a tar or zip, by the order of their names."""

    def __init__(self, path: Path, members: list[tuple[str, _Member]]):
        names = [name for name, _ in members]
        order = ordered(names, path)
        self._file = File(path)
        self._names = Names([names[i] for i in order])
        self._members = np.array([members[i][1] for i in order], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    @abc.abstractmethod
    def read(self, number: int) -> bytes:
        """The content of a file.  Raises DataError."""

    def name(self, number: int) -> str:
        return self._names[number]

    def key(self, number: int) -> bytes:
        return self._names.key(number)

    def shown(self, number: int) -> str:
        return f"{self._file.path}: {self._names[number]}"


class Tar(Packed):
    """Of an uncompressed .tar file."""

    def __init__(self, path: Path):
        super().__init__(path, _tar_members(path))

    def read(self, number: int) -> bytes:
        member = _Member(*self._members[number].tolist())
        return self._file.read(member.offset, member.size)


class Zip(Packed):
    """Of a .zip file."""

    def __init__(self, path: Path):
        super().__init__(path, _zip_members(path))

    def read(self, number: int) -> bytes:
        member = _Member(*self._members[number].tolist())
        header = self._file.read(member.offset, _LOCAL.size)
        magic, *_, name, extra = _LOCAL.unpack(header)
        if magic != b"PK\3\4":
            raise DataError(f"{self.shown(number)}: damaged zip file; fetch it again")
        data = self._file.read(member.offset + _LOCAL.size + name + extra, member.stored)
        if member.method == DEFLATED:
            try:
                data = zlib.decompressobj(-15).decompress(data, member.size + 1)
            except zlib.error as error:
                raise DataError(f"{self.shown(number)}: damaged ({error})") from error
        if len(data) != member.size or zlib.crc32(data) != member.check:
            raise DataError(f"{self.shown(number)}: damaged, its check differs; fetch it again")
        return data


class _Headers(io.FileIO):
    """A tar of which headers are read: none takes more memory than a path may need."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= 1 << 16:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size) or b""


def _tar_members(path: Path) -> list[tuple[str, _Member]]:
    found: list[tuple[str, _Member]] = []
    with reading(path), _Headers(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive:
                end = -1
                for member in archive:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                    if archive.offset <= end:  # a member of a size below 0 leads back
                        raise tarfile.ReadError("it leads back")
                    end = archive.offset
                    if member.isdir() or not is_image(member.name):
                        continue
                    name = member_name(member.name, path)
                    if not member.isreg() or member.sparse is not None:
                        raise DataError(
                            f"{path}: {name} is a link, sparse or no file; pack what it leads to "
                            "(tar --dereference --hard-dereference)"
                        )
                    _check_size(path, name, member.size, member.size)
                    _check_count(path, len(found))
                    size = member.size
                    found.append((name, _Member(member.offset_data, size, size, 0, STORED)))
                end = archive.offset
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"{path}: damaged tar file ({error}); fetch it again") from error
        # Where a header is damaged, tarfile takes it for the end.
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE) or b"?"):
            raise DataError(f"{path}: a tar file that is damaged or cut short; fetch it again")
    return found


_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


def _zip_members(path: Path) -> list[tuple[str, _Member]]:
    found: list[tuple[str, _Member]] = []
    stored = 0
    with reading(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            count, start = _zip_directory(file, size)
            _check_count(path, count)
            file.seek(start)
            for _ in range(count):
                raw, member, attributes, flags = _zip_entry(file)
                name = raw.decode("utf-8" if flags & 1 << 11 else "cp437")
                if name.endswith("/") or not is_image(name):
                    continue
                name = member_name(name, path)
                if stat.S_ISLNK(attributes >> 16):
                    raise DataError(f"{path}: {name} is a link; pack what it leads to")
                if flags & 1 or member.method not in (STORED, DEFLATED):
                    raise DataError(
                        f"{path}: {name} is encrypted, or compressed in an unusual way; pack it "
                        "anew, with zip"
                    )
                _check_size(path, name, member.size, member.stored)
                stored += member.stored
                found.append((name, member))
        except (struct.error, ValueError) as error:
            raise DataError(f"{path}: damaged zip file ({error}); fetch it again") from error
    if stored > size:
        raise DataError(f"{path}: its members overlap; pack it anew")
    return found


def _zip_directory(file: io.BufferedReader, size: int) -> tuple[int, int]:
    """How many entries the directory has, and where it starts."""
    tail_start = max(size - _END.size - 0xFFFF, 0)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise ValueError("cut short")
    _, disk, _, _, count, _, start, comment = _END.unpack_from(tail, at)
    end = tail_start + at
    if disk not in (0, 0xFFFF) or end + _END.size + comment != size:
        raise ValueError("several parts, or bytes after its end")
    if count == 0xFFFF or start == 0xFFFFFFFF:
        file.seek(max(end - _LOCATOR_64.size, 0))
        magic, _, end_64, _ = _LOCATOR_64.unpack(file.read(_LOCATOR_64.size))
        if magic == b"PK\6\7":
            file.seek(min(end_64, size))
            *_, count, _, start = _END_64.unpack(file.read(_END_64.size))
    if count * _CENTRAL.size > size or start > size:
        raise ValueError("a directory larger than the file")
    return count, start


def _zip_entry(file: io.BufferedReader) -> tuple[bytes, _Member, int, int]:
    """The next entry of the directory: its name, what it is of, its attributes and flags."""
    fields = _CENTRAL.unpack(file.read(_CENTRAL.size))
    magic, _, _, flags, method, _, _, check, stored, size, *lengths, _, _, attributes, offset = (
        fields
    )
    if magic != b"PK\1\2":
        raise ValueError("no entry where its directory has one")
    name, extra, _ = (file.read(length) for length in lengths)
    large = _large_fields(extra)
    # Numbers of 64 bits stand in the extra field, those of them that are needed.
    size, stored, offset = (
        next(large) if number == 0xFFFFFFFF else number for number in (size, stored, offset)
    )
    return name, _Member(offset, stored, size, check, method), attributes, flags


def _large_fields(extra: bytes) -> Iterator[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            for (number,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8]):
                if number >= 1 << 62:
                    raise ValueError("a number of 64 bits that is too large")
                yield number
        at += 4 + length
    raise ValueError("a number of 64 bits is missing")


def _check_size(path: Path, name: str, size: int, stored: int) -> None:
    if max(size, stored) > MOST_BYTES or size > stored * MAX_EXPANSION + 1024:
        raise DataError(f"{path}: {name} is too large for an image ({size} bytes)")


def _check_count(path: Path, count: int) -> None:
    if count > MOST_MEMBERS:
        raise DataError(f"{path}: more than {MOST_MEMBERS} members; split it")
