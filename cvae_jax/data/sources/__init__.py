"""Collections of images that need not fit into memory: in files, read where and when wanted.

Each kind is a module here; whichever way images are stored, equal images are read as equal.
"""

from __future__ import annotations

from pathlib import Path

from cvae_jax.data import arrays
from cvae_jax.data.image_files import image_names
from cvae_jax.data.sources.images import Files, Images, Part, ShapeError, Stored, words
from cvae_jax.data.sources.packed import Packed, Tar, Zip
from cvae_jax.data.sources.records import MAGIC as RECORDS
from cvae_jax.data.sources.records import Records
from cvae_jax.data.sources.rows import open_array
from cvae_jax.data.sources.source import (
    FileSource,
    Source,
    Subset,
    block_size,
    blocks,
    reading,
    spread,
    spread_numbers,
    to_memory,
)
from cvae_jax.errors import DataError

__all__ = [
    "FileSource",
    "Files",
    "Images",
    "Packed",
    "Part",
    "Records",
    "ShapeError",
    "Source",
    "Stored",
    "Subset",
    "block_size",
    "blocks",
    "kind",
    "open_packed",
    "open_source",
    "spread",
    "spread_numbers",
    "to_memory",
]

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


def kind(path: Path) -> str:
    """What a file or folder is: ``folder``, ``array``, ``tar``, ``zip``, ``records`` or ``image``.

    Raises:
      DataError: there is none, it cannot be read, or it is compressed as a whole.
    """
    if path.is_dir():
        return "folder"
    if path.exists() and not path.is_file():  # reading a FIFO or a device may never end
        raise DataError(f"{path}: no regular file")
    with reading(path), path.open("rb") as file:
        start = file.read(512)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if start.startswith(_COMPRESSED) and (".tar" in suffixes or path.suffix == ".tgz"):
        raise DataError(f"{path}: a compressed tar, in which no image can be found; unpack it")
    if start.startswith((*arrays.IDX_STARTS, b"\x93NUMPY")) or path.suffix in (".npy", ".npz"):
        return "array"
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        # The first member's name is from byte 30 on, and its length is before.
        name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        return "array" if name.endswith(b".npy") else "zip"
    if start[257:262] == b"ustar" or path.suffix.lower() == ".tar":
        return "tar"
    return "records" if start.startswith(RECORDS) else "image"


def open_packed(path: Path, kind: str) -> Packed:
    """The image files in a ``tar`` or ``zip``."""
    return Tar(path) if kind == "tar" else Zip(path)


def open_source(
    path: str | Path,
    image_shape: tuple[int, int, int] | None = None,
    *,
    resize: bool = False,
    grayscale: bool = False,
) -> FileSource:
    """The images of a file or folder, by what it holds.

    An .npy, .npz or IDX file, an ArrayRecord file, a folder of images, a .tar or .zip file of
    images, or one image file.  Of an .npz file, a gzipped IDX file, and an .npy file that is stored
    column by column all images are kept in memory.

    image_shape: the shape that all images must have, by default the first one's; resize: stretches
    image files to it; grayscale: makes coloured ones grey.

    Raises:
      DataError: missing, damaged as far as an index or header says, or not images.
    """
    path = Path(path)
    stored: Stored
    match kind(path):
        case "array":
            source = open_array(path)
            if image_shape is not None and source.shape[1:] != image_shape:
                raise DataError(
                    f"{path}: an array of shape {list(source.shape)}, expected images that are "
                    f"{words(image_shape)}; convert the array"
                )
            return source
        case "folder":
            stored = Files(path, image_names(path))
        case "tar" | "zip" as packed:
            stored = open_packed(path, packed)
        case "records":
            stored = Records([path])
        case _:
            stored = Files(path.parent, [path.name])
    return Images(stored, image_shape, resize=resize, grayscale=grayscale)
