"""Every error that a user can cause.

The message is one line: what was wrong, what was expected, what to do.  The commands print it
and leave with ``exit_code`` (``run``).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple


class CvaeError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = 1


class ConfigError(CvaeError):
    """A setting that is impossible, or that contradicts an earlier one."""

    exit_code = 2


class DataError(CvaeError):
    """A dataset, image or array that is missing, damaged or of the wrong kind."""


class CheckpointError(CvaeError):
    """A checkpoint that is missing, damaged or of another model."""


class FormatError(CvaeError):
    """A compressed file that is damaged, or not one of ours."""

    exit_code = 3


class VersionError(FormatError):
    """A compressed file of a newer format than this program reads."""

    exit_code = 4


class ModelMismatchError(CvaeError):
    """A compressed file of another model than the one at hand."""

    exit_code = 5


class InstallError(CvaeError, ImportError):
    """An optional package that is not installed."""


class TrainingError(CvaeError):
    """A run that cannot start or go on."""


@contextlib.contextmanager
def explained(action: str) -> Iterator[None]:
    """Turns a failure of the system into a CheckpointError, "cannot ACTION: the reason"."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise CheckpointError(f"cannot {action}: {error.strerror or error}{where}") from error


class Failure(NamedTuple):
    """An error that a user can cause, as it is reported."""

    line: str
    exit_code: int


def failure(error: BaseException) -> Failure | None:
    """How an error is reported; None for one that no user can cause."""
    if isinstance(error, CvaeError):
        return Failure(one_line(str(error)), error.exit_code)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(one_line(f"{where}{error.strerror or error}"), 1)
    if isinstance(error, MemoryError):
        return Failure(one_line(f"out of memory ({error})" if str(error) else "out of memory"), 1)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", 130)
    return None


def one_line(text: str) -> str:
    """Text, names of files among it, without what would break or disguise the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Imports of optional packages go in here: a missing one becomes an InstallError.

    extra: the extra of this package that installs it; what: what it is needed for.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InstallError(
            f"{what} needs the package {error.name}: pip install 'cvae_jax[{extra}]'"
        ) from error


def run(main: Callable[[], int | None]) -> int:
    """Calls a command's ``main`` and returns its exit status; user errors become one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error always is
    try:
        return main() or 0
    except BaseException as error:
        found = failure(error)
        if found is None:
            raise
        start = "" if isinstance(error, KeyboardInterrupt) else "error: "
        print(f"{start}{found.line}", file=sys.stderr)
        return found.exit_code
