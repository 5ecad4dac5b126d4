"""Reading a whole file back and comparing every check: of bytes, symbols and pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from cvae_jax.bitstream import budget, single
from cvae_jax.bitstream.budget import UNLIMITED
from cvae_jax.bitstream.container import Reader
from cvae_jax.bitstream.decoder import FileDecoder
from cvae_jax.bitstream.names import check_names
from cvae_jax.bitstream.records import Chunk


def verify(file: BinaryIO, decoder: FileDecoder) -> int:
    """Reads a whole file: structure, checks, names, labels, symbols, pixels; returns its images'
    number.

    file: of an archive or a single image, seekable, its position left anywhere.

    Raises:
      FormatError: it is damaged, or decodes to other pixels than when it was compressed.
      ModelMismatchError: it is another model's.
    """
    file.seek(0)
    if file.read(len(single.MAGIC)) in (single.MAGIC, single.REFINED_MAGIC):
        file.seek(0)
        single.decode(file.read(), decoder)
        return 1
    return verify_archive(Reader(file, UNLIMITED), decoder)


def verify_archive(reader: Reader, decoder: FileDecoder) -> int:
    """``verify`` of an open archive, within its budget."""
    decoder.require(reader.header)
    reader.model()
    check_names([name for names in reader.names_of_chunks for name in names or ()])
    reader.labels  # noqa: B018, whatever they are
    decoder.require_affordable(0, reader.allowed, reader.paid)
    lookups, distributions = (reader.meter(x) for x in (budget.LOOKUPS, budget.DISTRIBUTIONS))

    def refined() -> Iterator[tuple[Chunk, np.ndarray]]:
        """Checks every chunk, and passes on those that have a refinement too."""
        for k in range(len(reader.entries)):
            chunk = reader.chunk(k)
            lookups.spend(chunk.work(decoder.tables))
            symbols = chunk.symbols(decoder.tables, reader.allowed)
            decoder.require_affordable(int(reader.starts[k + 1]), reader.allowed, reader.paid)
            levels = decoder.decode_symbols(symbols, chunk.step)
            chunk.check_pixels(levels)
            if chunk.refinement is not None:
                yield chunk, levels

    for _ in decoder.refined(refined(), distributions):
        pass
    return len(reader)
