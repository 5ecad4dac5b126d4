"""Reading a whole archive back and comparing every check: of bytes, symbols and pixels."""

from __future__ import annotations

from cvae_jax.bitstream import budget
from cvae_jax.bitstream.container import Reader
from cvae_jax.bitstream.decoder import FileDecoder
from cvae_jax.bitstream.names import check_names


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
    decoder.require_affordable(0, reader.allowed, reader.paid)
    lookups = reader.meter(budget.LOOKUPS)
    for k in range(len(reader.entries)):
        chunk = reader.chunk(k)
        lookups.spend(chunk.work(decoder.tables))
        symbols = chunk.symbols(decoder.tables, reader.allowed)
        decoder.require_affordable(int(reader.starts[k + 1]), reader.allowed, reader.paid)
        chunk.check_pixels(decoder.decode_symbols(symbols, chunk.step))
    return len(reader)
