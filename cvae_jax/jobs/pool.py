"""A job's parts in processes of this machine.

Processes are started anew, never forked: JAX's threads do not live on in a fork.  Each has its
share of the cores.  One that dies ends the job with an error instead of making it wait, and an
interrupt ends them all, as does the death of the process that started them; each clears its
temporaries away as it goes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from cvae_jax import errors
from cvae_jax.batching import CORES, cores
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.errors import JobError
from cvae_jax.jobs.task import PATIENCE, Outcome, Task, attempt, end_with


def run(
    task: Task, numbers: Iterable[int], processes: int, advance: OnProgress
) -> Iterator[Outcome]:
    """Runs parts, as they come to an end, in so many processes.

    Raises:
      JobError: a worker died.
      RuntimeError: a worker met a fault of this program.
    """
    left = iter(numbers)
    share = max(1, cores() // processes)
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, _Worker] = {}
    try:
        for number in left:
            worker = _Worker(context, task, share, number)
            workers[worker.connection] = worker
            if len(workers) == processes:
                break
        while workers:
            # One that has died closes its end, so no wait is in vain.
            for connection in wait(list(workers)):
                worker = workers[connection]  # type: ignore[index]
                told = worker.hear()
                if isinstance(told, int):
                    advance(told)
                    continue
                yield told
                following = next(left, None)
                if following is None:
                    worker.dismiss()
                    del workers[worker.connection]
                else:
                    worker.give(following)
    finally:
        _end(list(workers.values()))


class _Worker:
    """A process, and this end of what leads to it."""

    def __init__(self, context: Any, task: Task, threads: int, number: int):
        self.connection, other = context.Pipe()
        self._number = number
        self.process = context.Process(
            target=_work, args=(other, task, threads, os.getpid()), daemon=True
        )
        with _interrupts_blocked():
            self.process.start()
        other.close()
        self.give(number)

    def give(self, number: int) -> None:
        self._number = number
        with contextlib.suppress(BrokenPipeError):  # its death is noticed where it is heard
            self.connection.send(number)

    def hear(self) -> Outcome | int:
        """An outcome, or how many images were done meanwhile."""
        try:
            told = self.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self.process.join(PATIENCE)
            raise JobError(self._death()) from error
        if isinstance(told, str):
            raise RuntimeError(f"part {self._number} met a fault of this program:\n{told}")
        return told

    def _death(self) -> str:
        code = self.process.exitcode
        how = f"ended with status {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += " (out of memory?)" if -code == signal.SIGKILL else ""
        return (
            f"a worker {how} while it worked on part {self._number}; what is finished is kept, and "
            "the same command goes on from there, without an -f that begins anew"
        )

    def dismiss(self) -> None:
        self.connection.close()
        self.process.join(PATIENCE)


def _end(workers: Sequence[_Worker]) -> None:
    """Ends processes that nobody waits for any more; those that do not listen are killed."""
    for worker in workers:
        worker.process.terminate()
    patience = time.monotonic() + PATIENCE
    for worker in workers:
        worker.process.join(max(0, patience - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.connection.close()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A process that is started in here never sees Ctrl-C: who started it ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, task: Task, threads: int, starter: int) -> None:
    """What a worker does: parts, until there are no more, or nobody who asks."""
    signal.signal(signal.SIGTERM, errors.leave)
    end_with(starter)  # the pipe tells of it only where something is sent
    # A library's thread may not block what this one does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[CORES] = str(threads)
    os.environ["PJRT_NPROC"] = str(threads)  # JAX's, which it reads when it starts

    def advance(done: int) -> None:
        connection.send(done)

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            number = connection.recv()
            try:
                outcome = attempt(task, number, advance)
            except Exception:
                connection.send(traceback.format_exc())
                return
            connection.send(outcome)
