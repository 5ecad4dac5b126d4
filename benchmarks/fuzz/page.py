"""Feeds the page's codec, in Node, mutated files:  python -m benchmarks.fuzz.page [--inputs 10000]

The files of ``samples``, of real models here, changed as ``mutants`` does; then every check of
symbols and pixels is computed anew, so that what can be decoded at all is decoded.  Each must be an
error of one line, or images with the very pixels that Python makes of the symbols, and no request
may take more than SECONDS.  Anything else ends the run with the input written to a file.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from benchmarks.fuzz.changes import allowance
from benchmarks.fuzz.mutants import mutant
from benchmarks.fuzz.samples import (
    IMAGES,
    OTHER_SIZE,
    Sample,
    refined_part,
    tiny_context,
    tiny_map_model,
    tiny_model,
)
from benchmarks.page.node import Page
from cvae_jax import bitstream, reader
from cvae_jax.bitstream import FileDecoder, records, single
from cvae_jax.bitstream.budget import DEFAULT, LOOKUPS, SYMBOLS
from cvae_jax.bitstream.header import HEADER_SIZE
from cvae_jax.bitstream.records import ALONE, BASED, CRC_SIZE, RAW, Chunk
from cvae_jax.coding import streams
from cvae_jax.coding.maps.prior import MapPrior
from cvae_jax.coding.quantize import quantize
from cvae_jax.coding.vectors.tables import Tables
from cvae_jax.errors import CvaeError, FormatError
from cvae_jax.exact import by_numpy
from cvae_jax.file_model import FileModel

SECONDS = 2.0
MOST_SHOWN = 1 << 24  # images of an archive, in a page
MOST_READ = 10_000  # images of a file: a few bytes may hold half a million, rightly
MOST_IMAGES = 600  # of a chunk, that checks are computed for
MOST_DISTRIBUTIONS = 1 << 19


class _Case:
    """A sample, and what decodes it."""

    def __init__(self, sample: Sample, files: FileModel):
        self.sample = sample
        self.decoder = files.file_decoder(files.levels_by(by_numpy.decoder), trusted=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(run(args.inputs, args.seed, Path("fuzz-failure.cvae")), indent=2))
    return 0


def run(inputs: int, seed: int, failure: Path) -> dict:
    """Outcomes by kind, and the slowest.  A failing input is left in a file."""
    rng = np.random.default_rng(seed)
    cases = _cases(rng)
    counts: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with TemporaryDirectory() as folder:
        model, path = Path(folder, "model.cvae"), Path(folder, "file.cvae")
        model.write_bytes(reader.load("mnist").files.model_file())
        with Page(model) as page:
            path.write_bytes(cases[-1].sample.data)  # the tiny model, and what is compiled once
            assert page.ask("read", path=path)["ok"]
            for number in tqdm(range(inputs), unit="input", disable=not sys.stderr.isatty()):
                case = cases[rng.integers(len(cases))]
                data = _rechecked(mutant(rng, case.sample), case)
                path.write_bytes(data)
                try:
                    page.ask("forget")  # a mutant that is a model
                    answer = page.ask("read", path=path, most=MOST_READ)
                    counts[_judged(data, answer, case)] += 1
                    assert answer["slowest"] <= SECONDS, f"it took {answer['slowest']:.1f} s"
                except BaseException:
                    failure.write_bytes(data)
                    print(
                        f"input {number} of seed {seed} failed: it is in {failure}", file=sys.stderr
                    )
                    raise
                slowest = max(slowest, answer["slowest"])
    outcomes = dict(counts.most_common())
    return {
        "inputs": inputs,
        "seed": seed,
        "outcomes": outcomes,
        "slowest_seconds": round(slowest, 2),
    }


def _cases(rng: np.random.Generator) -> list[_Case]:
    """Archives and single images of the released model and of two tiny ones, which are theirs, one
    of them with a map of latents."""
    mnist = reader.load("mnist").files
    tiny, of_map = (
        dataclasses.replace(made, context=tiny_context(rng, made.image_shape))
        for made in (tiny_model(rng), tiny_map_model(rng))
    )
    cases = []
    for step in (87, 600, 4096):
        for files in (mnist, of_map, tiny):
            symbols = _typical(rng, files, step)
            symbols[3, 2] = 10**6  # an escape
            levels = files.levels_by(by_numpy.decoder)(symbols, step)
            image = single.encode(symbols[0], step, files.tables, files.identity, levels[0])
            # A page knows the one model; the others come with the file, which a single image has
            # no room for.
            embed = files is not mnist
            cases.append(_case(_archive(rng, files, symbols, step, levels, embed), files))
            if files is mnist:
                cases.append(_case(image, files))
            if embed or step == 600:  # Python takes a while for the pixels of the other
                data = _archive(rng, files, symbols, step, levels, embed, refined=True)
                cases.append(_case(data, files))
    cases.append(_case(_refined_image(rng, mnist), mnist))
    return cases


def _typical(rng: np.random.Generator, files: FileModel, step: int) -> np.ndarray:
    tables = files.tables
    if isinstance(tables, Tables):
        units = tables.means[rng.integers(tables.components, size=IMAGES)]
        return np.rint(units / step).astype(np.int32)
    z = rng.normal(size=(IMAGES, tables.latent_dim)) * tables.unit_size * 300
    return quantize(z.astype(np.float32), tables, step)


def _case(data: bytes, files: FileModel) -> _Case:
    return _Case(Sample(data, files.header, files.tables, files.context), files)


def _archive(rng, files, symbols, step, levels, embed, refined=False) -> bytes:
    parts = [slice(0, 3), slice(3, None)]
    chunks = [files.chunk(symbols[part], step, levels[part]) for part in parts]
    if refined:
        modes = rng.permutation([RAW, ALONE, ALONE, BASED, BASED, BASED]).astype(np.uint8)
        near = np.clip(levels + rng.integers(-9, 10, levels.shape), 0, 255).astype(np.uint8)
        part = refined_part(files, near, symbols, levels, step, modes, int(rng.integers(3)))
        chunks[1] = files.chunk(part.symbols, step, part.levels, part.refinement)
    elif isinstance(files.tables, MapPrior):
        sized = files.resized(OTHER_SIZE)
        some = _typical(rng, sized, step)[:2]
        chunks.append(sized.chunk(some, step, sized.levels_by(by_numpy.decoder)(some, step)))
    n = sum(chunk.count for chunk in chunks)
    names = [f"folder/{i}.png" for i in range(n)]
    return files.archive(chunks, names, range(n), embed_model=embed, refined=True)


def _refined_image(rng, files) -> bytes:
    symbols = np.rint(files.tables.means[:1] / 600).astype(np.int32)
    levels = files.levels_by(by_numpy.decoder)(symbols, 600)
    near = np.clip(levels + rng.integers(-9, 10, levels.shape), 0, 255).astype(np.uint8)
    part = refined_part(files, near, symbols, levels, 600, np.array([BASED], np.uint8), 1)
    return single.encode_refined(
        *part[:3], files.identity, part.levels, part.refinement, part.images[0]
    )


# Checks anew


def _rechecked(data: bytes, case: _Case) -> bytes:
    """A file with the checks of what its streams decode to, as far as they do at little cost."""
    if data[:2] in (single.MAGIC, single.REFINED_MAGIC):
        return _rechecked_image(data, case)
    decoder = _decoder_of(data, case)
    out, at = bytearray(data), HEADER_SIZE
    while decoder is not None and at + 12 <= len(data):
        end = at + records.section_length(data[at : at + 8])
        if data[at : at + 4] == records.CHUNK and end <= len(data):
            body = _rechecked_chunk(data[at + 8 : end - CRC_SIZE], decoder)
            out[at:end] = records.pack_section(records.CHUNK, body)
        at = end
    return bytes(out)


def _decoder_of(data: bytes, case: _Case) -> FileDecoder | None:
    """What decodes an archive: its own model or the sample's; None if it is not of that."""
    try:
        found = bitstream.salvage(data)
        for blob in found.models:
            files = FileModel.unpack(blob, found.header.identity)
            if found.header == files.header and files.decoder.architecture.memory() < 1 << 24:
                return files.file_decoder(files.levels_by(by_numpy.decoder), trusted=True)
            return None
    except CvaeError:
        return None
    return case.decoder if found.header == case.decoder.header else None


def _rechecked_chunk(body: bytes, decoder: FileDecoder) -> bytes:
    try:
        chunk = records.unpack_chunk(body)
        if chunk.based > MOST_IMAGES:
            return body
        symbols, base = _decoded(chunk, decoder)
        spot = base[: records.SPOT] if chunk.spot else base
        chunk = dataclasses.replace(
            chunk,
            symbol_crc=records.crc32c(records.symbol_bytes(symbols)),
            pixel_crc=records.crc32c(records.pixel_bytes(spot)),
        )
        if chunk.refinement is not None:
            crc = records.crc32c(records.pixel_bytes(_refined(chunk, base, decoder)))
            chunk = dataclasses.replace(chunk, refinement=chunk.refinement._replace(pixel_crc=crc))
        return records.pack_chunk(chunk)
    except CvaeError:
        return body


def _decoded(chunk: Chunk, decoder: FileDecoder) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of a chunk and what they decode to; raises FormatError where that is too much."""
    decoder.require_affordable({chunk.size: chunk.based}, DEFAULT, len(chunk.stream))
    decoder = decoder.of(chunk)
    DEFAULT.require(SYMBOLS, chunk.based * decoder.tables.latent_dim, len(chunk.stream))
    DEFAULT.require(LOOKUPS, chunk.work(decoder.tables), len(chunk.stream))
    symbols = streams.decode(chunk.stream, chunk.based, decoder.tables, chunk.step)
    return symbols, decoder.decode_symbols(symbols, chunk.step)


def _refined(chunk: Chunk, base: np.ndarray, decoder: FileDecoder) -> np.ndarray:
    assert chunk.refinement is not None
    if decoder.context is None or chunk.refinement.model != decoder.context.digest:
        raise FormatError("another context model's")
    (images,) = decoder.context.refine([(chunk.refinement, base)], allowance(MOST_DISTRIBUTIONS))
    return images


def _rechecked_image(data: bytes, case: _Case) -> bytes:
    """A single image's file with the check of what it decodes to, if it does: `single.decode`
    compares nothing else last, so that any check is found by what it says of another."""
    found: list[bytes] = []

    def note(check, content, symbols, *levels):
        found.append(single._check(content, symbols, *levels))

    compare = single._compare
    single._compare = note
    try:
        single.decode(data, case.decoder)
    except CvaeError:
        return data
    finally:
        single._compare = compare
    return data[:-CRC_SIZE] + found[0]


# Judging


def _judged(data: bytes, answer: dict, case: _Case) -> str:
    """What came of an input; raises AssertionError if it must not."""
    if not answer["ok"]:
        error = answer["error"]
        assert error.isprintable(), error
        assert "could not be done" not in error, error  # a fault of the program, not of the file
        assert not _is_whole(data, case) or "is the limit here" in error, error
        return "an error"
    numbers = [n for first, count in answer["runs"] for n in range(first, first + count)]
    expected, intact = _expected(data, case)
    assert set(numbers) <= expected.keys(), "images that Python does not find"
    digest = hashlib.sha256(b"".join(_shown(expected[n], answer["shape"]) for n in numbers))
    assert answer["sha256"] == digest.hexdigest(), "other pixels"
    limited = any("is the limit here" in fault for fault in answer["faults"])
    assert limited or set(numbers) >= intact, f"{len(numbers)} images, {len(intact)} are intact"
    whole = len(numbers) == min(answer["count"], MOST_READ)
    return f"{'all' if whole else 'some' if numbers else 'none'} of the images"


def _shown(image: np.ndarray, shape: list[int]) -> bytes:
    """An image as the page gives it, in the upper left of what all of a file have room in."""
    out = np.zeros(shape, np.uint8)
    out[: image.shape[0], : image.shape[1]] = image
    return out.tobytes()


def _is_whole(data: bytes, case: _Case) -> bool:
    """Whether Python reads a file without a fault."""
    try:
        if data[:2] in (single.MAGIC, single.REFINED_MAGIC):
            single.decode(data, case.decoder)
            return True
        decoder = _decoder_of(data, case)
        return decoder is not None and not bitstream.recover(data, decoder).faults
    except CvaeError:
        return False


def _expected(data: bytes, case: _Case) -> tuple[dict[int, np.ndarray], set[int]]:
    """Every image that is left of a file, by its number, and the numbers of those whose pixels are
    also what the file says: a reader that decodes a part of a chunk cannot compare that."""
    if data[:2] in (single.MAGIC, single.REFINED_MAGIC):
        return {0: single.decode(data, case.decoder).levels}, {0}
    decoder = _decoder_of(data, case)
    out: dict[int, np.ndarray] = {}
    intact: set[int] = set()
    for chunk in bitstream.salvage(data).chunks if decoder is not None else ():
        numbers = range(chunk.first, chunk.first + chunk.count)
        try:
            symbols, images = _decoded(chunk, decoder)
            if records.crc32c(records.symbol_bytes(symbols)) != chunk.symbol_crc:
                continue
            if chunk.refinement is None:
                out |= zip(numbers, images, strict=True)
            chunk.check_pixels(images)
            if chunk.refinement is not None:
                images = _refined(chunk, images, decoder)
                chunk.check_refined(images)
                out |= zip(numbers, images, strict=True)
        except CvaeError:
            continue
        if numbers.stop <= MOST_SHOWN:
            intact |= {number for number in numbers if number < MOST_READ}
    return out, intact


if __name__ == "__main__":
    raise SystemExit(main())
