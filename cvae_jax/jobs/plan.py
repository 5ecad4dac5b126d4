"""What a job is to make, kept beside its shards, so that only the same job goes on with them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvae_jax import files
from cvae_jax.errors import ConfigError
from cvae_jax.shards import Shards

SUFFIX = ".job.json"
SKIPPED = ".skipped.jsonl"
DONE = ".done.json"
LOCK = ".job.lock"
ANEW = "-f removes what is there of the set and begins anew, another -o keeps it"
_FORMAT = 1


@contextlib.contextmanager
def begun(
    shards: Shards,
    plan: dict[str, Any],
    *,
    force: bool,
    remedy: str = ANEW,
    elsewhere: str = "another -o",
) -> Iterator[str]:
    """The folder made ready for a job, which may have been begun before; in here, no other can be.
    Yields the digest of the plan.

    plan: all that the bytes of the shards depend on, as JSON holds it.  force: what is there of
    this set, whoever left it, is removed.  remedy: what to do where another job was there;
    elsewhere: what to name where one is at work.

    Raises:
      ConfigError: the folder is missing, another job's shards are there, or a job is at work.
    """
    files.check_free(shards.beside(SUFFIX), force=True)  # there is a folder
    with _alone(shards, elsewhere):
        _prepare(shards, plan, force, remedy)
        yield _digest(shards)


def check(shards: Shards, digest: str) -> None:
    """Raises ConfigError where the plan that is there is not the one of this digest."""
    with contextlib.suppress(FileNotFoundError):
        if _digest(shards) == digest:
            return
    raise ConfigError(
        f"{shards}: its plan, {shards.beside(SUFFIX).name}, is gone or another job's; nothing more "
        "is written; start again"
    )


def _prepare(shards: Shards, plan: dict[str, Any], force: bool, remedy: str) -> None:
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


def _digest(shards: Shards) -> str:
    return hashlib.sha256(shards.beside(SUFFIX).read_bytes()).hexdigest()


@contextlib.contextmanager
def _alone(shards: Shards, elsewhere: str) -> Iterator[None]:
    """Keeps other jobs from a set; the kernel lets them in when this process is gone."""
    path = shards.beside(LOCK)
    try:
        lock = _locked(path)
    except BlockingIOError:
        raise ConfigError(
            f"{shards}: another job is working on this set; wait for it, or name {elsewhere}"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held
        os.close(lock)


def _locked(path: Path) -> int:
    """A file, locked where the file system can.  Raises BlockingIOError if another process has."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                return lock
            os.close(lock)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)  # who held it has removed it


def record_path(shards: Shards, number: int) -> Path:
    """Where it is said that a shard is finished (``done.Output``)."""
    path = shards.path(number)
    return path.with_name(path.name + DONE)


def skipped_path(shards: Shards, number: int) -> Path:
    """Where the images are reported that a shard had to do without."""
    path = shards.path(number)
    return path.with_name(path.name + SKIPPED)


def reports(shards: Shards) -> str:
    """The pattern of all those reports."""
    return str(shards.folder / f"{shards.name}-*-of-{shards.count:05d}{shards.suffix}{SKIPPED}")


def _files(shards: Shards) -> list[Path]:
    return [
        path
        for number in range(shards.count)
        for path in (
            record_path(shards, number),  # without it a shard is not finished
            shards.path(number),
            skipped_path(shards, number),
        )
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
