"""Feeds the readers random and mutated files:  python -m benchmarks.fuzz [--inputs 100000]

Mutations get past the checks: after bytes of an archive's sections or of a single image's payload
are changed, every check is made anew.  Each input must be an error of the format, or images that
compress to the same symbols again; anything else ends the run with the input written to a file.
"""

from __future__ import annotations

import argparse
import collections
import io
import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cvae_jax import bitstream
from cvae_jax.bitstream import Header, Identity, Reader, Writer, records, single
from cvae_jax.coding import entropy
from cvae_jax.coding.tables import TOTAL, Tables
from cvae_jax.errors import CvaeError

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "mnist"
SLOWEST = 20  # seconds that one input may take: more is a hang


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    tables = Tables.from_bytes((CHECKPOINT / "tables.bin").read_bytes())
    identity = Identity(bytes(16), tables.digest[:16])
    samples = _samples(tables, identity)
    counts: collections.Counter[str] = collections.Counter()
    idle = _peak_mb()
    slowest = 0.0
    for _ in tqdm(range(args.inputs), unit="input", disable=not sys.stderr.isatty()):
        data = _mutant(rng, samples[rng.integers(len(samples))], tables)
        started = time.monotonic()
        try:
            outcome = _read(data, tables, identity)
        except CvaeError as error:
            outcome = type(error).__name__
        except BaseException:
            Path("fuzz-failure.bin").write_bytes(data)
            print(
                f"input {sum(counts.values())} failed: it is in fuzz-failure.bin", file=sys.stderr
            )
            raise
        slowest = max(slowest, time.monotonic() - started)
        if slowest > SLOWEST:
            Path("fuzz-failure.bin").write_bytes(data)
            print(f"an input took {slowest:.0f} s: it is in fuzz-failure.bin", file=sys.stderr)
            return 1
        counts[outcome] += 1
    for outcome, count in counts.most_common():
        print(f"{count:>8}  {outcome}")
    print(f"slowest input: {slowest:.2f} s; peak memory above idle: {_peak_mb() - idle:.0f} MB")
    return 0


def _samples(tables: Tables, identity: Identity) -> list[bytes]:
    """Small archives with and without names, labels, a model; and single images."""
    rng = np.random.default_rng(1)
    k = rng.choice(tables.components, 60, p=tables.weights / TOTAL)
    units = tables.means[k] + rng.normal(size=(60, tables.latent_dim)) * tables.widths[k] / 16
    samples = []
    for step in (87, 600, 4096):
        symbols = np.rint(units / step).astype(np.int32)
        symbols[3, 2] = 10**6
        samples += [single.encode(s, step, tables, identity) for s in symbols[:8]]
        for model, names, labels in ((None, None, None), (b"model", list("abcdefghij"), range(10))):
            file = io.BytesIO()
            writer = Writer(file, Header((28, 28, 1), tables.latent_dim, identity), model)
            for start in (0, 10, 20):
                writer.add(symbols[start : start + 10], step, tables, names, labels)
            writer.finish()
            samples.append(file.getvalue())
    return samples


def _mutant(rng: np.random.Generator, data: bytes, tables: Tables) -> bytes:
    kind = rng.integers(5)
    if kind == 0:  # noise, behind a magic or not
        start = [b"", single.MAGIC + b"\1", records.MAGIC + b"\1"][rng.integers(3)]
        return start + rng.bytes(int(rng.integers(200)))
    if kind == 1:  # damage as it happens
        return _changed(rng, data)
    if data[:2] == single.MAGIC:  # the step or the payload, with the check that then belongs
        content = data[:6] + _changed(rng, data[6:-4])
        try:
            book = tables.book(*struct.unpack_from("<H", content, 6))
            symbols = entropy.decode_one(content[8:], book)
        except (CvaeError, struct.error):
            return content + data[-4:]
        return content + records.pack_crc(content + records.symbol_bytes(symbols))
    header, sections = _sections(data)
    which = int(rng.integers(len(sections)))
    tag, body = sections[which]
    if kind == 2:
        sections[which] = tag, _changed(rng, body)
    elif kind == 3:  # sections in another order, missing, or twice
        picks = rng.integers(len(sections), size=int(rng.integers(1, len(sections) + 2)))
        sections = [sections[i] for i in picks]
    else:  # a field of a chunk or of the index takes an extreme value
        body = bytearray(body)
        at = int(rng.integers(max(len(body) - 4, 1)))
        body[at : at + 4] = struct.pack("<I", [0, 1, 2**31, 2**32 - 1][rng.integers(4)])
        sections[which] = tag, bytes(body)
    out = header + b"".join(records.pack_section(*section) for section in sections[:-1])
    offset = struct.pack("<Q", len(out))
    return out + records.pack_section(*sections[-1]) + offset + records.pack_crc(offset) + b"CVAZ"


def _changed(rng: np.random.Generator, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(out) + 1))
        change = rng.integers(4)
        if change == 0 and at < len(out):
            out[at] ^= 1 << int(rng.integers(8))
        elif change == 1 and at < len(out):
            out[at] = int(rng.integers(256))
        elif change == 2:
            out[at : at + int(rng.integers(8))] = b""
        else:
            out[at:at] = rng.bytes(int(rng.integers(1, 8)))
    return bytes(out)


def _sections(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    header, rest, sections = data[: records.HEADER_SIZE], data[records.HEADER_SIZE : -16], []
    while rest:
        length = records.section_length(rest[:8])
        sections.append((rest[:4], rest[8 : length - 4]))
        rest = rest[length:]
    return header, sections


def _read(data: bytes, tables: Tables, identity: Identity) -> str:
    """Reads a file in every way, and what was read is coded again."""
    if not bitstream.is_archive(data):
        symbols, step = single.decode(data, tables, identity)
        again = single.decode(single.encode(symbols, step, tables, identity), tables, identity)
        assert np.array_equal(again[0], symbols)
        return "a valid image"
    for chunk in bitstream.salvage(data).chunks:
        try:
            chunk.symbols(tables)
        except CvaeError:
            continue
    reader = Reader(io.BytesIO(data))
    reader.header.identity.require(identity)
    reader.model()
    sum(reader.ledger().values())
    for k in range(len(reader.entries)):
        chunk = reader.chunk(k)
        symbols, book = chunk.symbols(tables), tables.book(chunk.step)
        again = entropy.decode(entropy.encode(symbols, book), len(symbols), book)
        assert np.array_equal(again, symbols)
    return "a valid archive"


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
