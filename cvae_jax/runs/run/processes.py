"""Several processes that train one run together: how they meet, and which of them writes.

Only the first writes to the workdir.  The others get the state from it, compute their share of each
batch, and end with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cvae_jax import errors
from cvae_jax.errors import ConfigError, TrainingError

# Seconds: until a process that does not answer counts as dead, and that all of them have to start.
HEARTBEAT, START = 20, 120
STEPS_BETWEEN_QUESTIONS = 20  # a question takes a millisecond, a step may take less
_LOST = re.compile("gloo|nccl|peer|coordination|distributed service|UNAVAILABLE", re.IGNORECASE)


@contextlib.contextmanager
def joined(coordinator: str | None, count: int | None, number: int | None) -> Iterator[None]:
    """Joins the processes of a run, of which this one is ``number``, from 0; all end together.

    To be called before anything else of JAX.  Where the block fails, the process reports it and
    ends at once: in the usual way it would first wait for the others.

    coordinator: host and port where the first process listens; all None: as the launcher says that
    started them.

    Raises:
      ConfigError: no launcher says anything.
      TrainingError: the others do not come.
    """
    try:
        with _explained():
            _meet(coordinator, count, number)
            yield
            wait_for_all()
    except BaseException as error:
        status = errors.report(error)
        if status is None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if status is None else status)


def _meet(coordinator: str | None, count: int | None, number: int | None) -> None:
    # JAX itself would end the process with a stack trace of its own.
    patience = threading.Timer(START, _give_up)
    patience.start()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            number,
            initialization_timeout=2 * START,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except ValueError as error:
        raise ConfigError(
            f"no launcher says how the processes meet ({error}): give --coordinator, --processes "
            "and --process-id"
        ) from error
    finally:
        patience.cancel()


def _give_up() -> None:
    error = TrainingError(
        f"the other processes of this run did not come within {START} seconds: start all of them, "
        "with the same --coordinator and --processes, and each with a --process-id of its own"
    )
    os._exit(errors.report(error) or 1)


def is_first() -> bool:
    """Whether this process is the one that writes to the workdir; a single one is."""
    return jax.process_index() == 0


def check_alike(settings: Mapping[str, Any]) -> None:
    """Refuses processes with other settings than the first's, in all of them.

    Raises:
      ConfigError: naming the settings and the process.
    """
    if jax.process_count() == 1:
        return
    texts = {name: repr(value).encode()[:256].ljust(256) for name, value in settings.items()}
    mine = np.frombuffer(b"".join(texts.values()), np.uint8).reshape(len(texts), -1)
    everyones = multihost_utils.process_allgather(mine)
    for number, theirs in enumerate(everyones):
        if differ := [
            n for n, a, b in zip(texts, theirs, everyones[0], strict=True) if any(a != b)
        ]:
            raise ConfigError(
                f"process {number} has another {' and '.join(differ)} than process 0: give all "
                "processes the same settings and the same data"
            )


def from_first(tree: Any) -> Any:
    """The first process's tree of arrays, bit for bit; all give one of the same structure."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    # As bytes: a sum of numbers with zero, which is how they travel, forgets the sign of zero.
    mine = np.frombuffer(b"".join(np.asarray(leaf).tobytes() for leaf in leaves), np.uint8)
    first = np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes()
    found, at = [], 0
    for leaf in map(np.asarray, leaves):
        found.append(np.frombuffer(first, leaf.dtype, leaf.size, at).reshape(leaf.shape))
        at += leaf.nbytes
    return jax.tree.unflatten(structure, found)


def any_of(asked: bool, step: int, per_epoch: int) -> bool:
    """Whether any process asks to stop; several answer that only at some steps, all at the same:
    those where an epoch ends, and some between."""
    if jax.process_count() == 1:
        return asked
    if step % STEPS_BETWEEN_QUESTIONS and step % per_epoch:
        return False
    return bool(multihost_utils.process_allgather(np.array(asked)).any())


def wait_for_all() -> None:
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the end of the run")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What JAX raises where another process is gone becomes one line."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not _LOST.search(str(error)):
            raise
        raise TrainingError(
            "another process of this run has ended, or cannot be reached: see what it said, and "
            "start all of them again with the same commands; the run goes on from its last "
            "checkpoint"
        ) from error
