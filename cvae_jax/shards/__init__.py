"""Sets of archives: ``name-00000-of-00512.cvae`` and its like, read as one sequence of images."""

from __future__ import annotations

from cvae_jax.shards.naming import Shards, parse, present
from cvae_jax.shards.sequence import ArchiveSet

__all__ = ["ArchiveSet", "Shards", "parse", "present"]
