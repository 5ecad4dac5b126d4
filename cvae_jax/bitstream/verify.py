"""Reading a whole archive back and comparing every check: of bytes, symbols and pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.container import Reader
from cvae_jax.bitstream.decoder import Bill, FileDecoder
from cvae_jax.bitstream.names import check_names
from cvae_jax.bitstream.records import Chunk
from cvae_jax.config import Size


def verify_archive(reader: Reader, decoder: FileDecoder) -> int:
    """Reads a whole archive, within its budget: structure, checks, names, labels, symbols, pixels.

    Returns the number of its images.

    Raises:
      FormatError: it is damaged, or decodes to other pixels than when it was compressed.
      ModelMismatchError: it is another model's.
    """
    decoder.require(reader.header)
    reader.model()
    check_names([name for names in reader.names_of_chunks for name in names or ()])
    reader.labels  # noqa: B018, whatever they are
    decoder.require_affordable({}, reader.allowed, reader.paid)
    seen: Counter[Size | None] = Counter()
    bill, distributions = Bill(reader.allowed, reader.paid), reader.meter(budget.DISTRIBUTIONS)

    def refined() -> Iterator[tuple[Chunk, np.ndarray]]:
        """Checks every chunk, and passes on those that have a refinement too."""
        for k in range(len(reader.entries)):
            chunk = reader.chunk(k)
            seen[chunk.size] += chunk.count
            decoder.require_affordable(seen, reader.allowed, reader.paid)
            levels = decoder.levels_of(chunk, bill)
            if chunk.refinement is not None:
                yield chunk, levels

    for _ in decoder.refined(refined(), distributions):
        pass
    return len(reader)
