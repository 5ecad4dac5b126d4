"""Names of images: data in a file, and paths only once they are known to be harmless."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from cvae_jax.errors import FormatError

MAX_COMPONENT = 200  # bytes of a file's or a folder's name; leaves room for a suffix


def check_names(names: Sequence[str]) -> None:
    """Refuses names that could leave the folder they are meant for, or overwrite each other.

    Raises:
      FormatError: naming the first that is absolute, has ``..``, backslashes, control
        characters or a drive letter, is too long, or is there twice or also a folder.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.split("/")
        fault = None
        if any(ord(c) < 32 or ord(c) == 127 or c in '\\:*?"<>|' for c in name):
            fault = "a character that not every system allows"
        elif any(part in ("", ".", "..") for part in parts):
            fault = "an absolute path, or one with empty, . or .. parts"
        elif any(len(part.encode()) > MAX_COMPONENT for part in parts):
            fault = f"a part of more than {MAX_COMPONENT} bytes"
        elif any(part.endswith((" ", ".")) for part in parts):
            fault = "a part that ends in a space or a dot"
        key = name.casefold()
        if key in files:
            fault = "it is there twice"
        if fault:
            raise FormatError(f"the name {name[:80]!r} is refused: {fault}")
        files.add(key)
        folders.update(str(parent) for parent in PurePosixPath(key).parents)
    if both := files & folders:
        raise FormatError(f"the name {min(both)[:80]!r} is refused: it is also a folder")
