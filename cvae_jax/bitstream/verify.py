"""Reading back what was just written, without the network that its images come from."""

from __future__ import annotations

from typing import BinaryIO

from cvae_jax.bitstream import records, single
from cvae_jax.bitstream.budget import UNLIMITED
from cvae_jax.bitstream.container import Reader
from cvae_jax.bitstream.names import check_names
from cvae_jax.bitstream.records import Identity
from cvae_jax.coding.tables import Tables


def verify(file: BinaryIO, tables: Tables, identity: Identity) -> int:
    """Reads a whole file: structure, checks, names, labels, symbols; returns its images' number.

    file: of an archive or a single image, seekable, its position left anywhere.

    Raises:
      FormatError: it is damaged.
      ModelMismatchError: it is another model's.
    """
    file.seek(0)
    if file.read(len(single.MAGIC)) == single.MAGIC:
        file.seek(0)
        single.decode(file.read(), tables, identity)
        return 1
    return verify_archive(Reader(file, UNLIMITED), tables, identity)


def verify_archive(reader: Reader, tables: Tables, identity: Identity) -> int:
    """``verify`` of an open archive, within its budget."""
    reader.header.identity.require(identity)
    reader.model()
    check_names([name for names in reader.names_of_chunks() for name in names or ()])
    for k in range(len(reader.entries)):
        chunk = reader.chunk(k)
        if chunk.packed_labels is not None:
            records.unpack_labels(chunk.packed_labels, chunk.count)
        chunk.symbols(tables, reader.allowed)
    return len(reader)
