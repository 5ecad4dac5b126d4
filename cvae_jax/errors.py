"""Every error that a user can cause.

The message is one line: what was wrong, what was expected, what to do.  The
command-line entry points print it (``run``) and leave with ``exit_code``; nothing else
in the package catches these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class CvaeError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = 1


class ConfigError(CvaeError):
    """A setting that cannot be, or that contradicts an earlier one."""

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


class TrainingError(CvaeError):
    """A run that cannot start or go on."""


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
