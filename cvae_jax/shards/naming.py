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
        raise DataError(f"{shards}: {_told(shards, missing)}")
    return shards


def _told(shards: Shards, missing: list[str]) -> str:
    """What is wrong with a set of which these files are missing, and what to do."""
    if len(missing) < shards.count:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return (
            f"of its {shards.count} shards {', '.join(missing[:_SHOWN])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing; the command that began the set, "
            "`cvae job` or `cvae compress`, makes them if it is given again"
        )
    if counts := _counts(shards.folder, shards.name, shards.suffix):
        return (
            f"there is no set of {shards.count} shards, but of {' and '.join(map(str, counts))}; "
            f"name it {shards.name}@{counts[-1]}{shards.suffix}"
        )
    return (
        f"none of its {shards.count} shards is there, {missing[0]} and so on; `cvae job` with -o "
        f"{shards} makes them"
    )


def _only(path: Path, name: str, suffix: str) -> Shards:
    counts = _counts(path.parent, name, suffix)
    if not counts:
        raise DataError(f"{path}: no file {name}-00000-of-...{suffix} in {path.parent}")
    if len(counts) > 1:
        raise DataError(
            f"{path}: there are sets of {' and '.join(map(str, counts))} shards; name one as "
            f"{name}@{counts[-1]}{suffix}"
        )
    return Shards(path.parent, name, counts[0], suffix)


def _counts(folder: Path, name: str, suffix: str) -> list[int]:
    """How many shards the sets of a name have of which there is at least one."""
    shard = re.compile(rf"{re.escape(name)}-\d{{5}}-of-(\d{{5}}){re.escape(suffix)}")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted({int(found[1]) for found in map(shard.fullmatch, names) if found})
