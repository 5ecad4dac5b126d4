"""The header that every archive starts with, and the identity of the model that made it."""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from cvae_jax.bitstream.records import CRC_SIZE, crc32c, pack_crc
from cvae_jax.errors import DataError, FormatError, ModelMismatchError, VersionError

MAGIC = b"\x89CVAE\r\n\x1a"
VERSION = 2

_HEADER = struct.Struct("<8sBB3HII16s16sI")
_HAS_MODEL = 1

HEADER_SIZE = _HEADER.size


class Identity(NamedTuple):
    """Whose symbols these are: both digests must be the model's."""

    model: bytes  # 16 bytes, the start of the SHA-256 of decoder.bin
    tables: bytes  # 16 bytes, of tables.bin likewise

    @property
    def short(self) -> bytes:
        """3 bytes that stand for both in a single image's file."""
        return hashlib.sha256(self.model + self.tables).digest()[:3]

    def differences(self, other: Identity) -> list[tuple[str, str, str]]:
        """What differs: its name, and both digests in hexadecimal."""
        both = zip(self._fields, self, other, strict=True)
        return [(name, ours.hex(), theirs.hex()) for name, ours, theirs in both if ours != theirs]

    def require(self, other: Identity) -> None:
        """Raises ModelMismatchError unless ``other`` is the same."""
        for name, ours, theirs in self.differences(other):
            raise ModelMismatchError(
                f"compressed with another model: its digest of the {name} is {ours}, but the "
                f"checkpoint's is {theirs}; give the checkpoint that compressed it"
            )


class Header(NamedTuple):
    image_shape: tuple[int, int, int]
    latent_dim: int
    identity: Identity


def pack_header(header: Header, has_model: bool) -> bytes:
    """Raises DataError for images that no header describes."""
    if max(header.image_shape) >= 1 << 16:
        raise DataError(f"images of {header.image_shape}; at most 65535 fit a file, each way")
    packed = _HEADER.pack(
        *(MAGIC, VERSION, _HAS_MODEL * has_model, *header.image_shape),
        *(header.latent_dim, 0, *header.identity, 0),
    )[:-CRC_SIZE]
    return packed + pack_crc(packed)


def unpack_header(data: bytes) -> tuple[Header, bool]:
    """The header, and whether a model is embedded."""
    if len(data) < HEADER_SIZE:
        raise FormatError(f"truncated: its header has {len(data)} of {HEADER_SIZE} bytes")
    magic, version, flags, h, w, c, latent_dim, reserved, model, tables, crc = _HEADER.unpack(data)
    if magic != MAGIC:
        raise FormatError(f"no cvae archive: it starts with {magic.hex()}, not {MAGIC.hex()}")
    check_version(version)
    if crc32c(data[:-CRC_SIZE]) != crc:
        raise FormatError("header: damaged (its check does not match)")
    if flags & ~_HAS_MODEL or reserved:
        raise VersionError("header: it uses features that this program does not know: update it")
    return Header((h, w, c), latent_dim, Identity(model, tables)), bool(flags & _HAS_MODEL)


def check_version(version: int) -> None:
    """Raises VersionError, or FormatError for one that only unreleased programs wrote."""
    if version > VERSION:
        raise VersionError(f"format version {version}, this program reads {VERSION}: update it")
    if version < VERSION:
        raise FormatError(
            f"format version {version}, this program reads {VERSION}: compress the images again"
        )
