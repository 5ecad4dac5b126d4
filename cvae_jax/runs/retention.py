"""The steps of a run: which checkpoints a workdir holds, which is the best, which are kept.

A *workdir* holds the checkpoints of one run as ``steps/00001234/``.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvae_jax.errors import CheckpointError, explained
from cvae_jax.runs import checkpoint
from cvae_jax.runs.checkpoint import PyTree, StrPath
from cvae_jax.runs.manifest import Checkpoint

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

    present = _checkpoints(workdir)
    intact = [c for c in present if _first_intact([c], warn=lambda message: None)]
    kept = [*intact[::-1][:keep_last], *_best_first(intact)[:1]]
    keep = {folder, *(c.path for c in kept)}
    with explained(f"delete an old checkpoint in {folder.parent}"):
        for candidate in present:
            if candidate.path not in keep:
                checkpoint.discard(candidate.path)
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


def latest_valid(workdir: StrPath, warn: Warn = warnings.warn) -> Checkpoint | None:
    """The newest intact step; ``warn`` gets one line for each damaged one passed over."""
    return _first_intact(_checkpoints(workdir)[::-1], warn)


def best(workdir: StrPath, warn: Warn = warnings.warn) -> Checkpoint | None:
    """The intact step of the lowest score (the newest if there are no scores)."""
    return _first_intact(_best_first(_checkpoints(workdir)), warn)


def clear(workdir: StrPath) -> None:
    """Deletes all steps of a workdir, to start the run anew.

    Raises:
      CheckpointError: they cannot be deleted.
    """
    for step in steps(workdir):
        with explained(f"delete {step}"):
            checkpoint.discard(step)


def _checkpoints(workdir: StrPath) -> list[Checkpoint]:
    return [Checkpoint(step) for step in steps(workdir)]


def _first_intact(candidates: list[Checkpoint], warn: Warn) -> Checkpoint | None:
    for candidate in candidates:
        try:
            candidate.verify()
        except CheckpointError as error:
            warn(f"skipped: {error}")
        else:
            return candidate
    return None


def _best_first(candidates: list[Checkpoint]) -> list[Checkpoint]:
    def rank(step: Checkpoint) -> tuple[float, int]:
        score = math.inf
        with contextlib.suppress(CheckpointError):
            saved = step.read_json(checkpoint.CONFIG).get("score")
            if isinstance(saved, float) and math.isfinite(saved):
                score = saved
        return (score, -int(step.path.name))

    return sorted(candidates, key=rank)
