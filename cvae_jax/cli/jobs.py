"""A job's parts carried out as a command's words say: in this process, in several, or by Beam."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from cvae_jax.cli.reports import progress
from cvae_jax.jobs import pool, task
from cvae_jax.jobs.task import Outcome, Result, Task


def carried_out(
    args: Namespace, work: Task, parts: int, images: int, what: str
) -> tuple[list[Result], int]:
    """What the parts came to, and the most memory that a process took, in bytes.

    images: of all parts, for the bar that shows how far it is.

    Raises:
      InstallError: Beam is asked for, and is not installed.
      JobError: a part failed, or a worker died.
    """
    outcomes: Iterable[Outcome]
    if args.command == "job" and args.jobs is None:
        from cvae_jax.jobs import beam

        return task.results(beam.run(work, range(parts), args.beam))
    with progress(images, what) as advance:
        if args.command != "job" and args.jobs in (None, 1):
            outcomes = task.here(work, range(parts), advance)
        else:
            outcomes = pool.run(work, range(parts), args.jobs, advance)
        return task.results(outcomes)


def there_already(results: list[Result]) -> str:
    """Of how many parts a job found that they were finished."""
    there = sum(not result["made"] for result in results)
    if there == len(results):
        return " (nothing to do: all were there)"
    return f", of which {there} were there" if there else ""


def peak_line(peak: int) -> str:
    return f"at most {peak >> 20} MB in a process"
