"""The names of a set's files, and the pattern that stands for all of them.

``name@512.cvae`` means ``name-00000-of-00512.cvae`` to ``name-00511-of-00512.cvae``; where a set is
read, ``name@*.cvae`` means the one set of that name, however many shards it has.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cvae_jax.errors import ConfigError, DataError

MOST = 99_999  # shards: their numbers have five digits
_PATTERN = re.compile(r"(?P<name>.+)@(?P<count>[0-9]{1,9}|\*)(?P<suffix>\.\w+)")
_SHOWN = 3  # missing shards that an error names


@dataclass(frozen=True)
class Shards:
    """The files of a set.  Raises ConfigError for a number of shards that no set has."""

    folder: Path
    name: str
    count: int
    suffix: str  # with its dot

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise ConfigError(f"{self}: a set has 1 to {MOST} shards, not {self.count}")

    def __str__(self) -> str:
        return str(self.folder / f"{self.name}@{self.count}{self.suffix}")

    def path(self, number: int) -> Path:
        """The file of a shard; numbers start at 0."""
        return self.folder / f"{self.name}-{number:05d}-of-{self.count:05d}{self.suffix}"

    @property
    def paths(self) -> list[Path]:
        return [self.path(number) for number in range(self.count)]

    def beside(self, suffix: str) -> Path:
        """A file that belongs to the set and is none of its shards."""
        return self.folder / f"{self.name}-of-{self.count:05d}{self.suffix}{suffix}"


def parse(pattern: str | os.PathLike[str]) -> Shards | None:
    """The set that a pattern means, its files there or not; None of what is no pattern, or is a
    file of that very name.

    Raises:
      ConfigError: a number of shards that no set has.
      DataError: ``@*``, and there is no such set, or there are several.
    """
    path = Path(pattern)
    found = _PATTERN.fullmatch(path.name)
    if found is None or os.path.lexists(path):
        return None
    name, count, suffix = found.groups()
    if count == "*":
        return _only(path, name, suffix)
    return Shards(path.parent, name, int(count), suffix)


def present(pattern: str | os.PathLike[str]) -> Shards | None:
    """As ``parse``; of a set that is to be read.

    Raises:
      DataError: a shard is missing.
    """
    shards = parse(pattern)
    if shards is None:
        return None
    missing = [path.name for path in shards.paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{shards}: of its {shards.count} shards {', '.join(missing[:_SHOWN])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing; the command that made the set makes "
            "what is missing"
        )
    return shards


def _only(path: Path, name: str, suffix: str) -> Shards:
    shard = re.compile(rf"{re.escape(name)}-\d{{5}}-of-(\d{{5}}){re.escape(suffix)}")
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    counts = sorted({int(found[1]) for found in map(shard.fullmatch, names) if found})
    if not counts:
        raise DataError(f"{path}: no file {name}-00000-of-...{suffix} in {path.parent}")
    if len(counts) > 1:
        raise DataError(
            f"{path}: there are sets of {' and '.join(map(str, counts))} shards; name one as "
            f"{name}@{counts[-1]}{suffix}"
        )
    return Shards(path.parent, name, counts[0], suffix)
