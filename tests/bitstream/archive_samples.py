"""A small archive for the tests, and ways to write others."""

import io

import numpy as np
from conftest import synthetic_tables, typical_symbols

from cvae_jax.bitstream import Header, Identity, Reader, Writer

TABLES = synthetic_tables(components=5, latent_dim=4)
IDENTITY = Identity(b"the model's name", b"the tables' name")
HEADER = Header((28, 28, 1), 4, IDENTITY)
STEP = 300


def archive_of(parts, model=None, header=HEADER):
    """An archive of a chunk for each of ``parts``: keyword arguments of ``Writer.add``."""
    file = io.BytesIO()
    writer = Writer(file, header, model)
    for part in parts:
        writer.add(tables=TABLES, **part)
    writer.finish()
    return file.getvalue()


def part(n, seed=0, step=STEP, **more):
    return {"symbols": typical_symbols(TABLES, step, n, seed), "step": step, **more}


def read_all(data):
    """Every image's symbols, as a strict reader gets them."""
    reader = Reader(io.BytesIO(data))
    reader.model()
    chunks = [reader.chunk(k) for k in range(len(reader.entries))]
    return np.concatenate([np.zeros((0, 4), np.int32), *(c.symbols(TABLES) for c in chunks)])


PARTS = [
    part(40, 1, names=[f"a/{i}.png" for i in range(40)], labels=range(40)),
    part(25, 2, step=77),
    part(35, 3, labels=[7] * 35),
]
SYMBOLS = np.concatenate([p["symbols"] for p in PARTS])
DATA = archive_of(PARTS, model=b"opaque")
