"""Where the tests find data that is not part of the repository."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "checkpoints" / "mnist"


def shared_dir() -> Path:
    """The folder with MNIST and the original's weights; skips the test without it."""
    path = Path(os.environ.get("CVAE_JAX_DATA") or ROOT.parent / "shared")
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set CVAE_JAX_DATA)")
    return path


def seed_dir() -> Path:
    return shared_dir() / "seed"
