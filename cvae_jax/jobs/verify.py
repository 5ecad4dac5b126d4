"""Archives of a set verified, one part of the work for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cvae_jax import bitstream, errors, reader
from cvae_jax.bitstream import Budget
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.jobs.task import Result
from cvae_jax.shards import Shards


@dataclass(frozen=True)
class Verification:
    """The task."""

    shards: Shards
    ckpt: str | None
    max_cost: float = 1.0

    def run(self, number: int, advance: OnProgress) -> Result:
        """Decodes a shard and compares every check; a fault is a result."""
        path = self.shards.path(number)
        try:
            count = verified(path, self.ckpt, Budget(self.max_cost))
        except Exception as error:
            failure = errors.failure(error)
            if failure is None:
                raise
            fault = failure.line.removeprefix(f"{path}: ")
            return {
                "file": str(path),
                "intact": False,
                "error": fault,
                "exit_code": failure.exit_code,
            }
        advance(count)
        return {"file": str(path), "intact": True, "images": count}


def verified(path: Path, ckpt: str | None, allowed: Budget) -> int:
    """How many images an archive holds whose every check matches.

    Raises:
      FormatError: it is damaged.
      ModelMismatchError, CheckpointError: its model is not at hand.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        archive = bitstream.Reader(file, allowed)
        decoder = reader.of_archive(archive, ckpt).decoder(len(archive))
        return bitstream.verify_archive(archive, decoder)
