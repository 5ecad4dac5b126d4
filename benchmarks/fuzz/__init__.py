"""Feeds the readers random and mutated files:  python -m benchmarks.fuzz [--inputs 100000]

Mutations get past the checks (``mutants``).  Each input must be an error of the format, or images
that compress to the same symbols again.  It has SECONDS of processor time, and MEGABYTES of memory
beyond what was in use and the images that it gives; both grow with the file.  Anything else ends
the run with the input written to a file.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.fuzz.mutants import mutant
from benchmarks.fuzz.samples import TINY, TINY_MAP, Sample, levels, samples
from benchmarks.memory import Peak
from cvae_jax import bitstream
from cvae_jax.bitstream import Archive, FileDecoder, Header, Reader, Refinement, single
from cvae_jax.bitstream.decoder import Context, OtherSizes
from cvae_jax.bitstream.names import check_names
from cvae_jax.bitstream.records import BASED, RAW
from cvae_jax.coding import streams
from cvae_jax.config import Size
from cvae_jax.errors import CvaeError, DataError
from cvae_jax.exact import by_numpy
from cvae_jax.file_model import FileModel
from cvae_jax.refinement import coder

ROOT = Path(__file__).resolve().parents[2]
SECONDS, SECONDS_PER_MEGABYTE = 2.0, 4.0
SECONDS_PER_DISTRIBUTION = 5e-6  # of those that were paid for, of a budget that limits them
MEGABYTES, MEGABYTES_PER_MEGABYTE = 64.0, 20.0


class Excess(Exception):
    """An input that cost more than it may."""


class Images:
    """Stands for a network: makes images of the right size, and counts their bytes, and the
    distributions of those that are refined."""

    def __init__(self) -> None:
        self._made = self.largest = self.distributions = 0

    def reading(self) -> Images:
        """Itself, as another reading begins."""
        self._made = 0
        return self

    def make(self, n: int, shape: tuple[int, int, int], step: int) -> np.ndarray:
        out = levels(n, shape, step)
        self._made += out.nbytes
        self.largest = max(self.largest, self._made)
        return out

    def refined_by(self, context: Context) -> Context:
        """A context model whose work is counted."""

        def refine(refinements, spend):
            def counted(cost: int) -> None:
                spend(cost)
                self.distributions += cost

            for images in context.refine(refinements, counted):
                self._made += images.nbytes
                self.largest = max(self.largest, self._made)
                yield images

        return context._replace(refine=refine)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    args = parser.parse_args()
    report = run(args.inputs, args.seed, Path("fuzz-failure.bin"))
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def run(inputs: int, seed: int, failure: Path) -> dict:
    """Outcomes by kind, and the most that an input cost.  A failing input is left in a file."""
    rng = np.random.default_rng(seed)
    whole = samples()
    for sample in whole:  # also what is imported or made once is then there
        assert _read(sample.data, sample, Images()).startswith("a valid")
    counts: collections.Counter[str] = collections.Counter()
    slowest = largest = 0.0
    for number in tqdm(range(inputs), unit="input", disable=not sys.stderr.isatty()):
        sample = whole[rng.integers(len(whole))]
        data = mutant(rng, sample)
        images, peak, started = Images(), Peak(), time.process_time()
        try:
            outcome = _outcome(data, sample, images)
            seconds, megabytes = time.process_time() - started, peak.megabytes()
            size = len(data) / 1e6
            most = SECONDS + SECONDS_PER_MEGABYTE * size
            most += SECONDS_PER_DISTRIBUTION * images.distributions
            room = MEGABYTES + MEGABYTES_PER_MEGABYTE * size + images.largest / 1e6
            if seconds > most or megabytes > room:
                raise Excess(
                    f"{len(data)} bytes took {seconds:.1f} s and {megabytes:.0f} MB; "
                    f"at most {most:.1f} s and {room:.0f} MB"
                )
        except BaseException:
            failure.write_bytes(data)
            print(f"input {number} of seed {seed} failed: it is in {failure}", file=sys.stderr)
            raise
        counts[outcome] += 1
        slowest = max(slowest, seconds)
        largest = max(largest, megabytes - images.largest / 1e6)
    return {
        "inputs": inputs,
        "seed": seed,
        "outcomes": dict(counts.most_common()),
        "slowest_seconds": round(slowest, 2),
        "largest_megabytes_beside_images": round(largest, 1),
    }


def _outcome(data: bytes, sample: Sample, images: Images) -> str:
    try:
        return _read(data, sample, images)
    except CvaeError as error:
        if not str(error).isprintable():
            raise AssertionError(f"a message of several lines: {str(error)!r}") from error
        return type(error).__name__


def _read(data: bytes, sample: Sample, images: Images) -> str:
    """Reads a file in every way, and what was read is coded again."""
    if not bitstream.is_archive(data):
        decoder = _sample_decoder(sample, images.reading())
        image = single.decode(data, decoder)
        again = _encoded(image, decoder, sample, single.size_of(data))
        assert np.array_equal(single.decode(again, decoder).symbols, image.symbols)
        return "a valid image" if image.refinement is None else "a valid refined image"
    faults: list[CvaeError] = []

    def attempt(read, *arguments):
        try:
            return read(*arguments)
        except CvaeError as error:
            faults.append(error)

    attempt(_recover, data, sample, images)
    reader = Reader(io.BytesIO(data))
    reader.ledger()
    for ask in (lambda: check_names(reader.names or []), lambda: reader.labels):
        attempt(ask)
    decoder = _decoder(reader.header, reader.model(), sample, images.reading())
    archive = Archive(io.BytesIO(data), decoder, reader)
    for number in (0, len(reader) // 2, len(reader) - 1):
        if 0 <= number < len(reader):
            attempt(archive.__getitem__, number)
    images.reading()
    try:
        archive.read()
    except DataError:  # of several sizes
        images.reading()
        for _ in archive.stream():
            pass
    for k in range(len(reader.entries)):
        chunk = reader.chunk(k)
        tables = decoder.of(chunk).tables
        symbols, by = chunk.symbols(tables)[:50], (tables, chunk.step)
        again = streams.decode(streams.encode(symbols, *by), len(symbols), *by)
        assert np.array_equal(again, symbols)
    if faults:
        raise faults[0]
    chunks = [reader.chunk(k) for k in range(len(reader.entries))]
    refined = any(chunk.refinement is not None for chunk in chunks)
    return "a valid refined archive" if refined else "a valid archive"


def _encoded(image: single.Image, decoder: FileDecoder, sample: Sample, size: Size | None) -> bytes:
    """The file of an image again: of what was read."""
    of_model = decoder.of_size(size).tables, decoder.header.identity
    if image.refinement is None:
        return single.encode(image.symbols, image.step, *of_model, image.levels, size)
    error, digest, crc, modes, _ = image.refinement
    base = levels(len(image.symbols), decoder.header.image_shape, image.step)
    images, modelled = image.levels[None], modes != RAW
    whole = base if len(base) else np.zeros_like(images)
    assert sample.context is not None
    coding = coder.coding(
        sample.context, images[modelled], whole[modelled], modes[modelled] == BASED, error
    )
    stream = coder.encode(coding, images[~modelled], error)
    refinement = Refinement(error, digest, crc, modes, stream)
    again = single.encode_refined(
        image.symbols, image.step, *of_model, base, refinement, image.levels
    )
    assert np.array_equal(single.decode(again, decoder).levels, image.levels)
    return again


def _recover(data: bytes, sample: Sample, images: Images) -> None:
    found = bitstream.salvage(data)
    model = next(iter(found.models), None)
    bitstream.recover(data, _decoder(found.header, model, sample, images.reading()))


def _decoder(header: Header, model: bytes | None, sample: Sample, images: Images) -> FileDecoder:
    """The decoder of the file's model or the sample's; no network, but images of its size."""
    if model is None:
        return _sample_decoder(sample, images)
    own = FileModel.unpack(model, header.identity)
    decode = _made(images, own.image_shape)
    # Whatever its numbers are, it decodes.
    if own.image_shape in (TINY.image_shape, TINY_MAP.image_shape):
        some = np.zeros((1, own.tables.latent_dim), np.int32)
        assert own.levels_by(by_numpy.decoder)(some, 600).shape == (1, *own.image_shape)
    decoder = own.file_decoder(decode, trusted=False)
    context = decoder.context and images.refined_by(decoder.context)
    return decoder._replace(context=context, sizes=_sizes(own, images))


def _sample_decoder(sample: Sample, images: Images) -> FileDecoder:
    context = None
    if sample.context is not None:
        context = Context(sample.context.digest[:16], coder.chunk_decoder(sample.context))
        context = images.refined_by(context)
    decode = _made(images, sample.header.image_shape)
    sizes = sample.model and _sizes(sample.model, images)
    return FileDecoder(sample.header, sample.tables, decode, context=context, sizes=sizes)


def _sizes(model: FileModel, images: Images) -> OtherSizes:
    """Of a model, without its network."""

    def resized(size: Size) -> FileDecoder:
        other = model.resized(size)
        made = _made(images, other.image_shape)
        return FileDecoder(model.header, other.tables, made, other.cost, size=size)

    real = model.file_decoder(_made(images, model.image_shape), trusted=True).sizes
    assert real is not None
    return real._replace(decoder=resized)


def _made(images: Images, shape: tuple[int, int, int]) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda symbols, step: images.make(len(symbols), shape, step)
