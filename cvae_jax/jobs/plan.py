"""What a job is to make, kept beside its shards, so that only the same job goes on with them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from cvae_jax import files
from cvae_jax.errors import ConfigError
from cvae_jax.shards import Shards

SUFFIX = ".job.json"
SKIPPED = ".skipped.jsonl"
ANEW = "-f removes what is there of the set and begins anew, another -o keeps it"
_FORMAT = 1


def begin(shards: Shards, plan: dict[str, Any], *, force: bool, remedy: str = ANEW) -> None:
    """Makes the folder ready for a job, which may have been begun before.

    plan: all that the bytes of the shards depend on, as JSON holds it.  force: what is there of
    this set, whoever left it, is removed.  remedy: what to do where another job is there.

    Raises:
      ConfigError: the folder is missing, or another job's shards are there.
    """
    files.check_free(shards.beside(SUFFIX), force=True)  # there is a folder
    plan = json.loads(json.dumps({"format": _FORMAT, **plan}))
    path = shards.beside(SUFFIX)
    before = _read(shards)
    if before != plan or force:
        there = [p for p in (path, *_files(shards)) if p.exists()]
        if there and not force:
            raise ConfigError(f"{shards}: {_difference(before, plan)}; {remedy}")
        for old in there:  # the plan first: without it the rest is nobody's
            old.unlink()
        with files.whole(path, force=True) as file:
            file.write((json.dumps(plan, indent=2) + "\n").encode())
    files.remove_leftovers(shards.folder, {p.name for p in (path, *_files(shards))})


def skipped_path(shards: Shards, number: int) -> Path:
    """Where the images are reported that a shard had to do without."""
    return shards.path(number).with_suffix(SKIPPED)


def _files(shards: Shards) -> list[Path]:
    return [
        path
        for number in range(shards.count)
        for path in (shards.path(number), skipped_path(shards, number))
    ]


def _read(shards: Shards) -> dict[str, Any] | None:
    """The plan that is there; None: there is none that could be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(shards.beside(SUFFIX).read_bytes())
        return found if isinstance(found, dict) else None
    return None


def _difference(before: dict[str, Any] | None, plan: dict[str, Any]) -> str:
    """In words, what is not as it was."""
    if before is None:
        return "files of this name are there, and not what job they are of"
    for key, new in plan.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            return _difference(old, new)
        if old != new:
            told = f", {old} before, {new} now" if _is_short(old) and _is_short(new) else ""
            return f"begun with other {key}{told}"
    return "begun by another version of this program"


def _is_short(value: Any) -> bool:
    return len(str(value)) < 100
