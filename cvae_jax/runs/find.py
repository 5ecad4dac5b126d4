"""What a user means by ``--ckpt``."""

from __future__ import annotations

import warnings
from pathlib import Path

from cvae_jax.errors import CheckpointError, explained
from cvae_jax.runs import manifest, retention
from cvae_jax.runs.checkpoint import StrPath, absolute
from cvae_jax.runs.retention import STEPS, Warn


def find(path: StrPath, warn: Warn = warnings.warn) -> Path:
    """The checkpoint that a user's ``--ckpt`` means, verified.

    Args:
      path: a workdir (meaning its best step), a step inside it, or a released checkpoint.
      warn: gets one line for each damaged step that is passed over in a workdir.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    path = absolute(path)
    if (path / manifest.NAME).is_file():
        manifest.verify(path)
        return path
    if (path / STEPS).is_dir():
        found = retention.best(path, warn)
        if found is None:
            raise CheckpointError(
                f"no intact checkpoint among the {len(retention.steps(path))} steps in "
                f"{path / STEPS}; train first, or name another path"
            )
        return found
    state = "it" if path.exists() else "which does not exist; it"
    raise CheckpointError(
        f"no checkpoint at {path}, {state} should hold {manifest.NAME} (a checkpoint) "
        f"or {STEPS}/ (a workdir); {_nearby(path)}"
    )


def _nearby(path: Path) -> str:
    """What could have been meant instead of ``path``, in words."""
    base = next(p for p in (path, *path.parents) if p.is_dir())
    with explained(f"list {base}"):
        names = sorted(
            p.name for p in base.iterdir() if (p / manifest.NAME).is_file() or (p / STEPS).is_dir()
        )
    return f"{base} holds {', '.join(names[:5])}" if names else f"{base} holds none either"
