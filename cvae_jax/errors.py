"""Every error that a user can cause.

The message is one line: what was wrong, what was expected, what to do.  The commands print it
and leave with ``exit_code`` (``run``).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


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


class InstallError(CvaeError):
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
    try:
        return main() or 0
    except CvaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
