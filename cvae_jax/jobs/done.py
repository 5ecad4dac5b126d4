"""What is finished of a job: a record beside each part, by which a restart knows it again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cvae_jax import files
from cvae_jax.jobs import plan
from cvae_jax.jobs.task import Result
from cvae_jax.shards import Shards

_BLOCK = 1 << 20  # bytes that are read at once


@dataclass(frozen=True)
class Output:
    """Where a job's parts go, and whose they are; can be pickled."""

    shards: Shards
    plan: str  # digest of the job's plan, as ``plan.begun`` gave it

    def path(self, number: int) -> Path:
        return self.shards.path(number)

    def there(self, number: int) -> Result | None:
        """What a finished part came to; None: it is not there, or not as this job made it."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            record = json.loads(plan.record_path(self.shards, number).read_bytes())
            with self.path(number).open("rb") as file:
                if record == self._record(number, file, record["result"]):
                    return record["result"] | {"made": False}
        return None

    @contextlib.contextmanager
    def making(self, number: int) -> Iterator[tuple[BinaryIO, Result]]:
        """A part to write, and what to say it came to: once all went well it has its name, and then
        its record.

        Raises:
          ConfigError: as ``check``.
        """
        result: Result = {}
        with files.whole(self.path(number), force=True) as file:
            yield file, result
            record = self._record(number, file, result)
            self.check()
        with files.whole(plan.record_path(self.shards, number), force=True) as beside:
            beside.write((json.dumps(record, indent=2) + "\n").encode())
        result["made"] = True

    def check(self) -> None:
        """Refuses to go on where the process that began this job is dead and another has begun.

        Raises:
          ConfigError: the set is another job's, or nobody's.
        """
        plan.check(self.shards, self.plan)

    def _record(self, number: int, file: BinaryIO, result: Result) -> dict[str, Any]:
        content = hashlib.sha256()
        file.seek(0)
        while block := file.read(_BLOCK):
            content.update(block)
        told = {
            "plan": self.plan,
            "part": number,
            "bytes": file.tell(),
            "sha256": content.hexdigest(),
            "result": result,
        }
        # Of all of the above: a damaged record is none.
        return told | {"check": hashlib.sha256(json.dumps(told).encode()).hexdigest()}
