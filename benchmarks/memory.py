"""Peak memory of this process, from a moment on."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


class Peak:
    """``megabytes()`` says how far memory rose above what it was when this was made.

    Exact where the system lets the mark be lowered (Linux); elsewhere only new records show.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the mark is now what is in use
        self._before = _peak()

    def megabytes(self) -> float:
        return (_peak() - self._before) / 1024


def _peak() -> int:
    """kB"""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
