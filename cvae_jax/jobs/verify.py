"""Archives of a set verified, one part of the work for each."""

from __future__ import annotations

from dataclasses import dataclass

from cvae_jax import bitstream, errors, reader
from cvae_jax.bitstream import Budget
from cvae_jax.bitstream.archive import OnProgress
from cvae_jax.jobs.task import Result
from cvae_jax.reader import Model
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
            with path.open("rb") as file:
                archive = bitstream.Reader(file, Budget(self.max_cost))
                count = verified(archive, reader.of_archive(archive, self.ckpt))
        except Exception as error:
            return fault(str(path), error)
        advance(count)
        return {"file": str(path), "intact": True, "images": count}


def verified(archive: bitstream.Reader, model: Model) -> int:
    """How many images an archive holds whose every check matches.

    Raises:
      FormatError: it is damaged.
      OSError: it cannot be read.
    """
    return bitstream.verify_archive(archive, model.decoder(len(archive)))


def fault(name: str, error: Exception) -> Result:
    """What to report of a file that is not intact.  Raises an error that no user can cause."""
    failure = errors.failure(error)
    if failure is None:
        raise error
    line = failure.line.removeprefix(f"{name}: ")
    return {"file": name, "intact": False, "error": line, "exit_code": failure.exit_code}
