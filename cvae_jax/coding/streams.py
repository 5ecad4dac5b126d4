"""A model's coding tables, whichever kind its latents are of, and what they do: the only place,
with ``quantize``, that knows both kinds.

Symbols are int32 ``[N, D]``, steps in units of the tables.  What is raised is that of the kinds'
own modules.
"""

from __future__ import annotations

import numpy as np

from cvae_jax.coding.integers import packing
from cvae_jax.coding.maps import coder
from cvae_jax.coding.maps.prior import MAGIC, MapPrior
from cvae_jax.coding.vectors import entropy
from cvae_jax.coding.vectors.tables import Tables

CodingTables = Tables | MapPrior


def read_tables(data: bytes, spend: packing.Spend = packing.unlimited) -> CodingTables:
    """The inverse of ``to_bytes``; raises FormatError as the kinds' ``from_bytes``."""
    kind = MapPrior if data.startswith(MAGIC) else Tables
    return kind.from_bytes(data, spend)


def encode(symbols: np.ndarray, tables: CodingTables, step: int) -> bytes:
    """One stream of all images, a multiple of 4 bytes."""
    if isinstance(tables, MapPrior):
        return coder.encode(tables, symbols, step)
    return entropy.encode(symbols, tables.book(step))


def decode(stream: bytes, n: int, tables: CodingTables, step: int) -> np.ndarray:
    """The inverse of ``encode``, for n images; raises FormatError."""
    if isinstance(tables, MapPrior):
        return coder.decode(tables, stream, n, step)
    return entropy.decode(stream, n, tables.book(step))


def encode_one(symbols: np.ndarray, tables: CodingTables, step: int) -> bytes:
    """The shortest encoding of a single image's symbols, ``[D]``."""
    if isinstance(tables, MapPrior):
        return coder.encode_one(tables, symbols, step)
    return entropy.encode_one(symbols, tables.book(step))


def decode_one(data: bytes, tables: CodingTables, step: int) -> np.ndarray:
    """The inverse of ``encode_one``: ``[D]``; raises FormatError."""
    if isinstance(tables, MapPrior):
        return coder.decode_one(tables, data, step)
    return entropy.decode_one(data, tables.book(step))


def work(images: int, tables: CodingTables, step: int) -> int:
    """About the most that decoding this many images takes, in lookups of symbols."""
    if isinstance(tables, MapPrior):
        return coder.work(tables, images, step)
    return tables.book(step).work(images)


def turns(tables: CodingTables) -> int:
    """How many times decoding waits for the prior of a map, however many images there are."""
    return coder.turns(tables) if isinstance(tables, MapPrior) else 0


def room(tables: CodingTables) -> int:
    """What decoding holds in memory of an image, in symbols."""
    return coder.room(tables) if isinstance(tables, MapPrior) else tables.latent_dim


def prices(symbols: np.ndarray, tables: CodingTables, step: int) -> np.ndarray:
    """Bits of each symbol, ``[N, D]``, without what follows an escape or says which component."""
    book = tables.book(step)
    if isinstance(tables, MapPrior):
        rows = coder.rows(tables, symbols, step)
        return book.prices(rows, book.indices(rows, symbols))
    return book.prices(*book.index(symbols, tables.assign(symbols, step)))


def bits(symbols: np.ndarray, tables: CodingTables, step: int) -> np.ndarray:
    """Bits that a perfect coder spends on each image, ``[N]``."""
    if isinstance(tables, MapPrior):
        return coder.bits(tables, symbols, step)
    return tables.book(step).bits(symbols)
