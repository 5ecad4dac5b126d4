"""What ``mutants`` are made with: changes of bytes and numbers, and of what refines images."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable

import numpy as np

from benchmarks.fuzz.samples import Sample, levels
from cvae_jax.bitstream import Chunk, Refinement, records
from cvae_jax.bitstream.budget import DEFAULT, LOOKUPS, SYMBOLS
from cvae_jax.bitstream.records import ALONE, BASED, MAX_ERROR, RAW
from cvae_jax.coding import streams
from cvae_jax.errors import CvaeError, FormatError
from cvae_jax.refinement import coder
from cvae_jax.refinement.integers import ContextModel

MOST = 1 << 17  # distributions that are computed for a check


def changed(rng: np.random.Generator, data: bytes) -> bytes:
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


def pick(rng: np.random.Generator, values: list):
    return values[rng.integers(len(values))]


def extreme(rng: np.random.Generator, values: tuple[int, ...]) -> int:
    return int(values[rng.integers(len(values))])


def put(data: bytes, at: int, form: str, value: int) -> bytes:
    size = struct.calcsize(form)
    if len(data) < at + size:
        return data
    return data[:at] + struct.pack(form, value % (1 << 8 * size)) + data[at + size :]


# Refinements


def of_refinement(rng: np.random.Generator, chunk: Chunk, sample: Sample) -> Chunk:
    """A refined chunk with another refinement, and the checks that then belong, if any do."""
    assert chunk.refinement is not None
    error, digest, _, modes, stream = chunk.refinement
    kind = rng.integers(5)
    if kind == 0:
        error = int(pick(rng, [0, 1, 4, MAX_ERROR]))
    elif kind == 1:
        digest = rng.bytes(16)
    elif kind == 2:
        modes = rng.integers(0, int(pick(rng, [1, 2, 3, 4])), len(modes)).astype(np.uint8)
        modes = modes[: int(pick(rng, [len(modes), len(modes), 1]))]
    else:
        zeros, noise = bytes(4 * int(rng.integers(50))), rng.bytes(4 * int(rng.integers(300)))
        stream = pick(rng, [b"", zeros, zeros + b"\1\0\0\0", noise, changed(rng, stream)])
    refinement = Refinement(error, digest, 0, modes, stream)
    return checked(dataclasses.replace(chunk, refinement=refinement), sample)


def flood(rng: np.random.Generator, sample: Sample) -> Chunk:
    """Very many refined images in few bytes."""
    assert sample.context is not None
    count, mode = int(rng.integers(1, 8193)), int(pick(rng, [RAW, ALONE, BASED]))
    if mode == BASED:
        count = count % 600 + 1
    step = int(pick(rng, [87, 600, 4096]))
    stream = pick(rng, [b"", rng.bytes(4 * int(rng.integers(200)))])
    modes = np.full(count, mode, np.uint8)
    error = int(pick(rng, [0, 1, 4, MAX_ERROR]))
    refinement = Refinement(error, sample.context.digest[:16], 0, modes, stream)
    return checked(Chunk(0, count, step, 0, 0, None, None, b"", refinement), sample)


def checked(chunk: Chunk, sample: Sample) -> Chunk:
    """A chunk with the checks of whatever symbols and images its streams hold, as far as they hold
    any at little cost, and of what stands for the pixels."""
    try:
        tables, shape = sample.of_size(chunk.size)
        DEFAULT.require(SYMBOLS, chunk.based * tables.latent_dim, len(chunk.stream))
        DEFAULT.require(LOOKUPS, chunk.work(tables), len(chunk.stream))
        symbols = streams.decode(chunk.stream, chunk.based, tables, chunk.step)
    except CvaeError:
        return chunk
    chunk = dataclasses.replace(chunk, symbol_crc=records.crc32c(records.symbol_bytes(symbols)))
    if chunk.count * np.prod(shape) >= 1 << 24:
        return chunk
    base = levels(chunk.based, shape, chunk.step)
    chunk = dataclasses.replace(chunk, pixel_crc=records.crc32c(records.pixel_bytes(base)))
    if chunk.refinement is None:
        return chunk
    try:
        images = _refined(chunk.refinement, base, sample.context)
    except CvaeError:
        return chunk
    crc = records.crc32c(records.pixel_bytes(images))
    return dataclasses.replace(chunk, refinement=chunk.refinement._replace(pixel_crc=crc))


def _refined(refinement: Refinement, base: np.ndarray, context: ContextModel | None) -> np.ndarray:
    if context is None or refinement.modes.max() > BASED:
        raise FormatError("nothing that could be checked")
    return coder.decode(
        refinement.stream, refinement.modes, base, refinement.max_error, context, allowance(MOST)
    )


def allowance(most: int) -> Callable[[int], None]:
    """What is told of costs, and raises FormatError once they are more than this together."""
    spent = 0

    def spend(cost: int) -> None:
        nonlocal spent
        spent += cost
        if spent > most:
            raise FormatError("too much for a check")

    return spend


def another_context(rng: np.random.Generator, context: ContextModel) -> bytes:
    """The bytes of a context model with other bytes, or other numbers."""
    if rng.random() < 0.5:
        return changed(rng, context.packed)
    name = pick(rng, ["first", "second", "output"])
    layer = getattr(context, name)
    field = pick(rng, ["weights", "bias", "shift", "bits"])
    scale = int(pick(rng, [0, -1, 3, 1 << 6, 1 << 12]))
    other = np.asarray(getattr(layer, field)).astype(np.int64) * scale
    try:
        return dataclasses.replace(context, **{name: layer._replace(**{field: other})}).packed
    except (ValueError, OverflowError, struct.error):  # no bytes hold it
        return context.packed


def named(body: bytes, context: bytes, sample: Sample) -> bytes:
    """A chunk that names this context model, and whose images are checked by it."""
    try:
        chunk, model = records.unpack_chunk(body), ContextModel.from_bytes(context)
    except CvaeError:
        return body
    if chunk.refinement is None or model.image_shape != sample.header.image_shape:
        return body
    refinement = chunk.refinement._replace(model=model.digest[:16])
    chunk = dataclasses.replace(chunk, refinement=refinement)
    return records.pack_chunk(checked(chunk, sample._replace(context=model)))


_SINGLE = struct.Struct("<2sB3sH3sBBH")


def of_refined_image(rng: np.random.Generator, sample: Sample) -> bytes:
    """A single image with another field, payload or stream, and the check that then belongs."""
    head, rest = sample.data[: _SINGLE.size], sample.data[_SINGLE.size : -4]
    kind = rng.integers(4)
    if kind == 0:  # step, model, largest error, mode, size
        at, form = pick(rng, [(6, "<H"), (8, "<H"), (11, "<B"), (12, "<B"), (13, "<H")])
        head = put(head, at, form, extreme(rng, (0, 1, 2, 3, 4, 63, 64, 600, 65535)))
    elif kind == 1:
        size = _SINGLE.unpack(head)[-1]
        stream = pick(rng, [b"", bytes(40), rng.bytes(4 * int(rng.integers(60)))])
        rest = rest[:size] + stream
    else:
        rest = changed(rng, rest)
        if rng.random() < 0.5:  # its length is that of what is before the stream
            head = put(head, 13, "<H", _SINGLE.unpack(head)[-1] + len(rest) % 4)
    content = head + rest
    *_, step, _, error, mode, size = _SINGLE.unpack(head)
    try:
        modes = np.array([mode], np.uint8)
        symbols = np.empty((0, sample.tables.latent_dim), np.int32)
        if mode == BASED:
            symbols = streams.decode_one(rest[:size], sample.tables, step)[None]
        base = levels(len(symbols), sample.header.image_shape, step)
        refinement = Refinement(min(error, MAX_ERROR), b"", 0, modes, rest[size:])
        images = _refined(refinement, base, sample.context)
    except (CvaeError, ValueError, ZeroDivisionError):
        return content + sample.data[-4:]
    checked_bytes = content + records.symbol_bytes(symbols) + records.pixel_bytes(base)
    return content + records.pack_crc(checked_bytes + records.pixel_bytes(images))
