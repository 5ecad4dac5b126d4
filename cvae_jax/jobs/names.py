"""The names of images as those of the files that they are unpacked into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvae_jax.bitstream.names import check_names
from cvae_jax.data.image_files import SUFFIXES
from cvae_jax.errors import DataError, FormatError

LONGEST = 255  # bytes of a part of a path, as file systems have it


def file_names(names: Sequence[str]) -> list[str]:
    """The names of images as those of PNG files: another image suffix goes, if none collide.

    Raises:
      FormatError: as for ``check_names``, or because they collide however they are written.
    """
    check_names(names)
    short = [
        str(Path(name).with_suffix("")) if Path(name).suffix.lower() in SUFFIXES else name
        for name in names
    ]
    try:
        return _as_png(short)
    except FormatError:
        return _as_png(names)


def check_unpackable(names: Sequence[str]) -> None:
    """What could not be unpacked is not packed.  Raises DataError."""
    try:
        file_names(names)
    except FormatError as error:
        raise DataError(f"{error}; rename it, or leave names out with --no-names") from error


def _as_png(names: Sequence[str]) -> list[str]:
    chosen = [f"{name}.png" for name in names]
    check_names(chosen, longest=LONGEST)
    return chosen
