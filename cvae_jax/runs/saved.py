"""The steps of a run: which checkpoints a workdir holds, and which of them is best.

A *workdir* holds the checkpoints of one run as ``steps/00001234/``.  ``retention`` writes them;
nothing here needs more of a checkpoint than `manifest` provides.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from pathlib import Path

from cvae_jax.errors import CheckpointError, explained
from cvae_jax.runs.manifest import CONFIG, Checkpoint, StrPath, absolute

STEPS = "steps"

Warn = Callable[[str], None]


def steps(workdir: StrPath) -> list[Path]:
    """The step directories of a workdir, intact or not, in order of number."""
    folder = absolute(workdir) / STEPS
    with explained(f"list {folder}"):
        entries = list(folder.iterdir()) if folder.is_dir() else []
    return sorted(
        (p for p in entries if p.name.isascii() and p.name.isdigit() and p.is_dir()),
        key=lambda p: int(p.name),
    )


def latest_valid(workdir: StrPath, warn: Warn = warnings.warn) -> Checkpoint | None:
    """The newest intact step; ``warn`` gets one line for each damaged step skipped."""
    return first_intact(checkpoints(workdir)[::-1], warn)


def best(workdir: StrPath, warn: Warn = warnings.warn) -> Checkpoint | None:
    """The intact step with the lowest score (the newest if none has a score)."""
    return first_intact(best_first(checkpoints(workdir)), warn)


def checkpoints(workdir: StrPath) -> list[Checkpoint]:
    """The steps as checkpoints, not yet looked at."""
    return [Checkpoint(step) for step in steps(workdir)]


def first_intact(candidates: list[Checkpoint], warn: Warn) -> Checkpoint | None:
    """The first that is intact; ``warn`` as for ``latest_valid``."""
    for candidate in candidates:
        try:
            candidate.verify()
        except CheckpointError as error:
            warn(f"skipped: {error}")
        else:
            return candidate
    return None


def best_first(candidates: list[Checkpoint]) -> list[Checkpoint]:
    """Sorted by score, lowest first; those without a score last, the newest of them first."""

    def rank(step: Checkpoint) -> tuple[float, int]:
        score = math.inf
        with contextlib.suppress(CheckpointError):
            saved = step.read_json(CONFIG).get("score")
            if isinstance(saved, float) and math.isfinite(saved):
                score = saved
        return (score, -int(step.path.name))

    return sorted(candidates, key=rank)
