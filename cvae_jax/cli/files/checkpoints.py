"""What a command reads of checkpoints, so that nothing is written over it."""

from __future__ import annotations

from pathlib import Path

from cvae_jax.runs import find, manifest
from cvae_jax.runs.saved import STEPS


def named(*ckpts: str | None) -> list[Path]:
    """The model files and the checkpoints' folders that ``--ckpt`` may mean, released ones too.

    Of a workdir these are its steps: reports and pictures may go beside them.
    """
    paths = [Path(ckpt) for ckpt in ckpts if ckpt is not None]
    return [*find.released().values(), *map(_checkpoint, paths)]


def _checkpoint(path: Path) -> Path:
    is_workdir = not (path / manifest.NAME).is_file() and (path / STEPS).is_dir()
    return path / STEPS if is_workdir else path
