"""Collections of images that need not fit into memory: in files, read where and when wanted.

Each kind is a module here; whichever way images are stored, equal images are read as equal.
"""

from __future__ import annotations

from pathlib import Path

from cvae_jax.data.sources.rows import open_array
from cvae_jax.data.sources.source import (
    FileSource,
    Source,
    Subset,
    block_size,
    blocks,
    spread,
    to_memory,
)

__all__ = [
    "FileSource",
    "Source",
    "Subset",
    "block_size",
    "blocks",
    "open_source",
    "spread",
    "to_memory",
]


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
    image files to it; grayscale: makes coloured ones grey where it has one channel.

    Raises:
      DataError: missing, damaged as far as an index or header says, or not images.
    """
    return open_array(Path(path))
