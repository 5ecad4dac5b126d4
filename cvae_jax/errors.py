"""Every error that a user can cause.

The message is one line: what was wrong, what was expected, what to do.  The
command-line entry points print it and leave with ``exit_code``; nothing else
in the package catches these.
"""


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
    """A compressed file that is damaged, truncated or not one of ours."""

    exit_code = 3


class VersionError(FormatError):
    """A compressed file that needs a newer version of this program."""

    exit_code = 4


class ModelMismatchError(CvaeError):
    """A compressed file that was made with another checkpoint."""

    exit_code = 5


class TrainingError(CvaeError):
    """A run that cannot start or go on."""
