"""A job's parts by Apache Beam: on this machine's cores, or by its options wherever Beam runs.

Workers import this package, and read and write the paths that the job names: on several machines
these are on a file system that all of them share.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shlex
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cvae_jax import errors
from cvae_jax.batching import CORES, cores
from cvae_jax.bitstream.archive import unwatched
from cvae_jax.errors import ConfigError, JobError
from cvae_jax.jobs.task import Outcome, Task, attempt

with errors.needs("beam", "a job without --jobs (with it, processes of this machine do the work)"):
    _level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam tells of packages that it does without
    import apache_beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options import pipeline_options
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    logging.disable(_level)

_WORKER = """
from apache_beam.runners.worker import sdk_worker_main
from cvae_jax.jobs.task import end_with
end_with({starter})
sdk_worker_main.main([])
"""


def run(task: Task, numbers: Iterable[int], options: Sequence[str]) -> list[Outcome]:
    """Runs parts, and waits for them.

    options: Beam's, as its command lines have them.  Without ``--runner``, as many processes of
    this machine as it has cores do the work, or ``--direct_num_workers`` of them; a worker computes
    with one core.

    Raises:
      ConfigError: Beam does not know a runner, or understand an option.
      JobError: a worker died, or Beam failed.
    """
    chosen = _options(options)
    place = chosen.view_as(pipeline_options.GoogleCloudOptions).temp_location
    with contextlib.ExitStack() as stack:
        if not place:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="cvae-job-"))
        told = FileSystems.join(place, f"outcomes-{os.urandom(8).hex()}")
        stack.enter_context(_one_core_each())
        _wait_for(_pipeline(task, list(numbers), chosen, told))
        return _outcomes(told)


def _options(options: Sequence[str]) -> Any:
    given = [f"--direct_num_workers={cores()}", *options]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # where it says what is wrong, and exits
            chosen = pipeline_options.PipelineOptions(given)
    except SystemExit as error:
        raise ConfigError(f"Beam's options: {said.getvalue().splitlines()[-1]}") from error
    return chosen


def _pipeline(task: Task, numbers: list[int], options: Any, told: str) -> Any:
    runner = options.view_as(pipeline_options.StandardOptions).runner
    if runner is None:
        # Beam's own default would first try to download another runner.
        runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(_command()))
    try:
        pipeline = apache_beam.Pipeline(runner, options)
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise ConfigError(f"Beam's options: {error}") from error
    _ = (
        pipeline
        | "Numbers" >> apache_beam.Create(numbers)
        | "Spread" >> apache_beam.Reshuffle()
        | "Work" >> apache_beam.ParDo(_Work(task))
        | "Tell" >> apache_beam.io.WriteToText(told)
    )
    return pipeline


def _command() -> str:
    """The line that starts a worker, in the place of its shell; it ends with this process, even
    while it still waits to be connected with it.

    Its word for every step it takes is not wanted; what goes wrong comes back to the pipeline.
    """
    program = _WORKER.format(starter=os.getpid())
    return f"exec {shlex.join([sys.executable, '-c', program])} 2>/dev/null"


class _Work(apache_beam.DoFn):
    """Does a part, and yields its outcome as JSON."""

    def __init__(self, task: Task):
        self._task = task

    def process(self, number: int) -> Iterator[str]:
        yield json.dumps(attempt(self._task, number, unwatched))


def _outcomes(told: str) -> list[Outcome]:
    (found,) = FileSystems.match([f"{told}*"])
    outcomes = []
    for each in found.metadata_list:
        with FileSystems.open(each.path) as file:
            outcomes += [Outcome(*json.loads(line)) for line in file.read().splitlines()]
    FileSystems.delete([each.path for each in found.metadata_list])
    return outcomes


@contextlib.contextmanager
def _one_core_each() -> Iterator[None]:
    """Processes that are started in here compute with one core each."""
    before = {name: os.environ.get(name) for name in (CORES, "PJRT_NPROC")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _wait_for(pipeline: Any) -> None:
    try:
        with _told_once():
            pipeline.run().wait_until_finish()
    except Exception as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise JobError(
            f"Beam gave up, as where a worker is killed ({last[0]}); what is finished is kept, and "
            "the same command goes on from there, without an -f that begins anew"
        ) from error


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """What fails in Beam's threads is told by the error of the pipeline alone."""
    hook, level = threading.excepthook, logging.root.manager.disable
    threading.excepthook = lambda args: None
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.disable(level)
