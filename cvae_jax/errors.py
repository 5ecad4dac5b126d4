"""Every error that a user can cause.

The message is one line: what was wrong, what was expected, what to do.  The commands print it
and leave with ``exit_code`` (``run``).
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class CvaeError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = 1
    file: str | None = None  # the one at fault, where the message starts with its name


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


class CostError(FormatError):
    """A compressed file that takes more memory or work than is allowed."""


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


class JobError(CvaeError):
    """A job of several processes that failed: a part of it, or the process that worked on it."""

    def __init__(self, line: str, exit_code: int = 1):
        super().__init__(line)
        self.exit_code = exit_code


@contextlib.contextmanager
def explained(action: str) -> Iterator[None]:
    """Turns a failure of the system into a CheckpointError, "cannot ACTION: the reason"."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise CheckpointError(f"cannot {action}: {error.strerror or error}{where}") from error


@contextlib.contextmanager
def naming(file: str | os.PathLike[str]) -> Iterator[None]:
    """Puts a file's name before errors of what it holds, unless they name a file already."""
    try:
        yield
    except (DataError, FormatError, ModelMismatchError) as error:
        if error.file is not None:
            raise
        named = type(error)(f"{os.fspath(file)}: {error}")
        named.file = os.fspath(file)
        raise named from error


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
            f"{what} needs the package {error.name}: pip install '.[{extra}]' in the clone"
        ) from error


def run(main: Callable[[], int | None]) -> int:
    """Calls a command's ``main`` and returns its exit status; user errors become one line.

    A reader of standard output that is gone ends it silently, as the signal of the pipe would.
    """
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error always is
    try:
        try:
            return main() or 0
        finally:
            sys.stdout.flush()  # here, where a reader that is gone is expected
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and not error.filename:
            # What is left is not to be tried again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        status = report(error)
        if status is None:
            raise
        return status


def report(error: BaseException) -> int | None:
    """Prints an error that a user can cause, and returns the exit status; None for any other."""
    found = failure(error)
    if found is None:
        return None
    start = "" if isinstance(error, KeyboardInterrupt) else "error: "
    print(f"{start}{found.line}", file=sys.stderr)
    return found.exit_code


def leave(signum: int, frame: Any) -> None:
    """A handler of signals: the process ends, and removes its temporaries on the way out."""
    raise SystemExit(128 + signum)


def _open_closed_streams() -> None:
    """Standard streams that were closed at the start (``>&-``) lead nowhere, so that no file which
    is opened later takes their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, for as long as it runs
