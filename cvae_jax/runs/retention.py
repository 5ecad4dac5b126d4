"""Writes the steps of a run, and deletes those that need not be kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvae_jax.errors import explained
from cvae_jax.runs import checkpoint
from cvae_jax.runs.checkpoint import PyTree, StrPath
from cvae_jax.runs.saved import STEPS, best_first, checkpoints, first_intact, steps


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

    This step is kept, and so are the ``keep_last`` newest intact ones and the intact one with the
    lowest score.  A step with the same number is replaced.

    Args:
      workdir: the run's directory, created if need be.
      step: the step's number, at least 0.
      items, config: as for `save`; the stored config also gets ``step`` and ``score``.
      score: lower is better, e.g. the validation loss; a score that is not finite counts as none.
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

    present = checkpoints(workdir)
    intact = [c for c in present if first_intact([c], warn=lambda message: None)]
    kept = [*intact[::-1][:keep_last], *best_first(intact)[:1]]
    keep = {folder, *(c.path for c in kept)}
    with explained(f"delete an old checkpoint in {folder.parent}"):
        for candidate in present:
            if candidate.path not in keep:
                checkpoint.discard(candidate.path)
    return folder


def clear(workdir: StrPath) -> None:
    """Deletes all steps of a workdir, so that the run starts again.

    Raises:
      CheckpointError: they cannot be deleted.
    """
    for step in steps(workdir):
        with explained(f"delete {step}"):
            checkpoint.discard(step)
