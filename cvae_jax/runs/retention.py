"""The steps of a run: which checkpoints a workdir holds, which is the best, which are kept.

A *workdir* holds the checkpoints of one run as ``steps/00001234/``.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvae_jax.errors import CheckpointError, explained
from cvae_jax.runs import checkpoint, manifest
from cvae_jax.runs.checkpoint import PyTree, StrPath

STEPS = "steps"

Warn = Callable[[str], None]


def save_step(
    workdir: StrPath,
    step: int,
    items: Mapping[str, PyTree],
    config: Mapping[str, Any],
    *,
    score: float | None = None,
    keep_last: int = 3,
) -> Path:
    """Saves a step of a run, then deletes the steps that are no longer needed.

    Kept are this step, the ``keep_last`` newest intact ones, and the intact one of the lowest
    score.  A step of the same number is replaced.

    Args:
      workdir: the run's directory, created if need be.
      step: number of the step, at least 0.
      items, config: as for `save`; the stored config also gets ``step`` and ``score``.
      score: lower is better, e.g. the validation loss; not finite counts as none.
      keep_last: how many of the newest steps to keep.

    Returns:
      The checkpoint's absolute path.

    Raises:
      CheckpointError: the workdir cannot be written, or the disk is full.
    """
    folder = checkpoint.absolute(workdir) / STEPS / f"{step:08d}"
    score = float(score) if score is not None and math.isfinite(score) else None
    with explained(f"clean up {folder.parent}"):
        for leftover in folder.parent.glob(f"{checkpoint.TEMPORARY}*"):
            shutil.rmtree(leftover)
    checkpoint.overwrite(folder, items, {**config, "step": step, "score": score})

    intact = [s for s in steps(workdir) if _first_intact([s], warn=lambda message: None)]
    keep = {folder, *intact[::-1][:keep_last], *_best_first(intact)[:1]}
    with explained(f"delete an old checkpoint in {folder.parent}"):
        for candidate in steps(workdir):
            if candidate not in keep:
                checkpoint.discard(candidate)
    return folder


def steps(workdir: StrPath) -> list[Path]:
    """The step directories of a workdir, intact or not, in the order of their numbers."""
    folder = checkpoint.absolute(workdir) / STEPS
    with explained(f"list {folder}"):
        entries = list(folder.iterdir()) if folder.is_dir() else []
    return sorted(
        (p for p in entries if p.name.isascii() and p.name.isdigit() and p.is_dir()),
        key=lambda p: int(p.name),
    )


def latest_valid(workdir: StrPath, warn: Warn = warnings.warn) -> Path | None:
    """The newest intact step; ``warn`` gets one line for each damaged one passed over."""
    return _first_intact(steps(workdir)[::-1], warn)


def best(workdir: StrPath, warn: Warn = warnings.warn) -> Path | None:
    """The intact step of the lowest score (the newest if there are no scores)."""
    return _first_intact(_best_first(steps(workdir)), warn)


def clear(workdir: StrPath) -> None:
    """Deletes all steps of a workdir, to start the run anew.

    Raises:
      CheckpointError: they cannot be deleted.
    """
    for step in steps(workdir):
        with explained(f"delete {step}"):
            checkpoint.discard(step)


def _first_intact(candidates: list[Path], warn: Warn) -> Path | None:
    for candidate in candidates:
        try:
            manifest.verify(candidate)
        except CheckpointError as error:
            warn(f"skipped: {error}")
        else:
            return candidate
    return None


def _best_first(candidates: list[Path]) -> list[Path]:
    def rank(step: Path) -> tuple[float, int]:
        try:
            score = checkpoint.read_config(step).get("score")
        except CheckpointError:
            score = None
        return (math.inf if score is None else score, -int(step.name))

    return sorted(candidates, key=rank)
