"""What a job is to those that run it: parts with numbers, which do not depend on one another."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from cvae_jax import errors
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.errors import JobError

Result = dict[str, Any]  # as JSON holds it

PATIENCE = 10  # seconds that a process has to clear away what it was doing
_WATCHED = 0.5  # seconds from one look to the next

# An engine may give a process several parts at once; each takes the memory that a worker may take.
_one_at_a_time = threading.Lock()


class Task(Protocol):
    """Can be pickled; where it runs, how often, and beside what, changes nothing."""

    def run(self, number: int, advance: OnProgress) -> Result:
        """Does a part of the work; advance: told how many images are done."""


class Outcome(NamedTuple):
    """Of a part."""

    number: int
    result: Result | None  # None: it failed, as a user can cause it
    failure: tuple[str, int] | None  # the line, and the exit status that belongs to it
    peak: int  # bytes, the most that its process has ever had in memory


def attempt(task: Task, number: int, advance: OnProgress) -> Outcome:
    """Runs a part.  Raises what no user can cause."""
    with _one_at_a_time:
        try:
            return Outcome(number, task.run(number, advance), None, _peak())
        except Exception as error:
            failure = errors.failure(error)
            if failure is None:
                raise
            return Outcome(number, None, (failure.line, failure.exit_code), _peak())


def here(task: Task, numbers: Iterable[int], advance: OnProgress) -> Iterable[Outcome]:
    """Runs parts in this process."""
    return (attempt(task, number, advance) for number in numbers)


def results(outcomes: Iterable[Outcome]) -> tuple[list[Result], int]:
    """What all parts came to, by their numbers, and the most memory that a process took, in bytes.

    Raises:
      JobError: one failed; those that are under way are then given up.
    """
    found: dict[int, Result] = {}
    peak = 0
    for outcome in outcomes:
        if outcome.failure is not None:
            raise JobError(*outcome.failure)
        assert outcome.result is not None
        found[outcome.number] = outcome.result
        peak = max(peak, outcome.peak)
    return [found[number] for number in sorted(found)], peak


def end_with(starter: int) -> None:
    """Ends this process soon after the one that started it is gone, however that one went."""

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(_WATCHED)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _peak() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
