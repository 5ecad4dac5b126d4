"""All the paths of a command compared, so that nothing is written over what it reads or writes."""

from __future__ import annotations

import contextlib
import functools
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from cvae_jax import files
from cvae_jax.errors import ConfigError


def check_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuses an output that is an input or another output, or inside a folder that is an input.

    Files are the same if they are there and are one file, or if their paths, links on the way
    followed, differ at most in case.

    Raises:
      ConfigError: naming the path.
    """
    taken: dict[str, Path] = {}
    for output in outputs:
        keys = _keys(output)
        if keys & taken.keys():
            raise ConfigError(f"{output} would be written twice; name another output")
        taken.update(dict.fromkeys(keys, output))
    real = functools.cache(os.path.realpath)  # inputs by the thousand share their folders
    for path in inputs:
        for key in _keys(path, real) & taken.keys():
            raise ConfigError(f"{taken[key]} is also an input; name another output")
        if path.is_dir():
            start = _start_of(path, real)
            for key in taken:
                if key.startswith(start):
                    raise ConfigError(
                        f"{taken[key]} is inside {path}, which is read; name another output"
                    )


def check_not_inside(outputs: Sequence[Path], folders: Sequence[Path]) -> None:
    """Refuses an output inside a folder that is written, or removed, as a whole.

    Raises:
      ConfigError: naming both.
    """
    for folder in folders:
        start = _start_of(folder)
        for output in outputs:
            if _folded(os.path.realpath(output)).startswith(start):
                raise ConfigError(f"{output} is inside {folder}, an output too; name another")


def is_stdout(given: str) -> bool:
    """Whether a user's name for an output means standard output."""
    return given == "-" or files.is_standard_output(Path(given))


def check_inside(folder: Path, names: Sequence[str], others: Sequence[Path]) -> None:
    """Refuses to write files of these names into a folder over a command's other paths.

    Raises:
      ConfigError: naming the path.
    """
    start = f"{_place(folder)}/"
    # Where it lies, and where it leads to if it is a link.
    inside = {_place(path).removeprefix(start): path for path in others}
    inside |= {_folded(os.path.realpath(p)).removeprefix(start): p for p in others}
    for name in names:
        if other := inside.get(_folded(name)):
            raise ConfigError(f"{other} would be overwritten; name another folder")


def _keys(path: Path, real: Callable[..., str] = os.path.realpath) -> set[str]:
    """What two paths of one file have in common: its place, or what it is once it is there."""
    keys = {_place(path, real)}
    with contextlib.suppress(OSError):
        found = path.stat()
        keys.add(f"{found.st_dev}:{found.st_ino}")
    return keys


def _start_of(folder: Path, real: Callable[..., str] = os.path.realpath) -> str:
    """What the real path of all that is inside a folder starts with."""
    return f"{_folded(real(folder))}/"


def _place(path: Path, real: Callable[[str], str] = os.path.realpath) -> str:
    """The absolute path, the same in upper and lower case."""
    if path.name in ("", ".."):
        return _folded(real(str(path)))
    return _folded(os.path.join(real(os.path.dirname(path)), path.name))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())
