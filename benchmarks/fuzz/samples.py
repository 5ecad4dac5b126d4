"""Whole files for ``fuzz`` to change: single images and small archives, with all that they hold."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.bitstream import Header, Identity, Refinement, Writer, single
from cvae_jax.bitstream.records import ALONE, BASED, RAW, crc32c, pixel_bytes
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.maps.prior import NEIGHBOURS, Group, MapPrior
from cvae_jax.coding.quantize import quantize
from cvae_jax.coding.streams import CodingTables
from cvae_jax.coding.vectors.mixture import fit_tables
from cvae_jax.coding.vectors.tables import REACH, Tables
from cvae_jax.config import Size
from cvae_jax.errors import FormatError
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.from_params import thresholds
from cvae_jax.exact.integers import IntegerDecoder, Layer
from cvae_jax.file_model import FileModel, units_check
from cvae_jax.refinement import coder, integers, neighbours
from cvae_jax.refinement.canvas import near
from cvae_jax.refinement.integers import LEVELS, ContextModel

CHECKPOINT = Path(__file__).resolve().parents[2] / "checkpoints" / "mnist"
TINY = Architecture((12, 10, 1), 3, (3, 2))
TINY_MAP = Architecture((8, 12, 3), 0, (3, 2), 4, 1)
OTHER_SIZE = 5, 14  # of some images of a map
IMAGES = 6  # in a chunk, of which an archive has two


class Sample(NamedTuple):
    data: bytes
    header: Header  # of the model that it is coded with
    tables: CodingTables
    context: ContextModel | None = None  # of a refined one
    model: FileModel | None = None  # of a map, which has images of other sizes, too

    def of_size(self, size: Size | None) -> tuple[CodingTables, tuple[int, int, int]]:
        """Tables for images of a size, and their shape; raises FormatError."""
        if size is None:
            return self.tables, self.header.image_shape
        if self.model is None:
            raise FormatError("a model of one size")
        resized = self.model.resized(size)
        return resized.tables, resized.image_shape


def levels(n: int, shape: tuple[int, int, int], step: int) -> np.ndarray:
    """What stands for a network: images of one level, which is the step's."""
    return np.full((n, *shape), step % 256, np.uint8)


def samples() -> list[Sample]:
    """Small archives with and without names, labels, a model; and single images."""
    rng = np.random.default_rng(1)
    tables = Tables.from_bytes((CHECKPOINT / "tables.bin").read_bytes())
    identity = Identity(bytes(16), tables.digest[:16])
    tiny = tiny_model(rng)
    refining = dataclasses.replace(tiny, context=tiny_context(rng, tiny.image_shape))
    blob, own, of_own = tiny.pack(), tiny.tables, tiny.header
    header = Header((28, 28, 1), tables.latent_dim, identity)
    named = {"names": [f"folder/{i}.png" for i in range(IMAGES)], "labels": range(IMAGES)}
    out = []
    for step in (87, 600, 4096):
        symbols = _typical(rng, tables, step)
        grey = levels(1, (28, 28, 1), step)[0]
        singles = [single.encode(s, step, tables, identity, grey) for s in symbols[:4]]
        archives = [_archive(header, None, symbols, step, tables, more) for more in ({}, named)]
        out += [Sample(data, header, tables) for data in (*singles, *archives)]
        symbols = _typical(rng, own, step)
        out.append(Sample(_archive(of_own, blob, symbols, step, own, named), of_own, own))
        data = _refined(rng, refining, symbols, step)
        out += [Sample(each, of_own, own, refining.context) for each in data]
    of_map = tiny_map_model(rng)
    return out + [
        Sample(data, of_map.header, of_map.tables, model=of_map) for data in _of_map(rng, of_map)
    ]


def _of_map(rng: np.random.Generator, model: FileModel) -> list[bytes]:
    """An archive of images of the model's size and of another, and single images of both."""
    out = []
    for step in (87, 600, 4096):
        chunks, singles = [], []
        for made in (model, model.resized(OTHER_SIZE)):
            prior, grey = made.tables, levels(IMAGES, made.image_shape, step)
            z = rng.normal(size=(IMAGES, prior.latent_dim)) * prior.unit * 300
            symbols = quantize(z.astype(np.float32), prior, step)
            symbols[3, 2] = 10**6  # an escape
            chunks.append(made.chunk(symbols, step, grey))
            of_one = symbols[0], step, prior, model.identity, grey[0], made.size
            singles.append(single.encode(*of_one))
        names = [f"folder/{i}.png" for i in range(2 * IMAGES)]
        out += [*singles, model.archive(chunks, names, embed_model=True)]
    return out


def _refined(
    rng: np.random.Generator, model: FileModel, symbols: np.ndarray, step: int
) -> list[bytes]:
    """An archive with and without its model, and two single images, of all modes."""
    grey = levels(IMAGES, model.image_shape, step)
    images = np.clip(grey + rng.integers(-9, 10, grey.shape), 0, 255).astype(np.uint8)
    parts = [
        refined_part(model, images, some, grey, step, rng.permutation([0, 1, 1, 2, 2, 2]), error)
        for some, error in ((symbols[:IMAGES], 0), (symbols[IMAGES:], 4))
    ]
    out = []
    for blob in (model.pack(), None):
        file = io.BytesIO()
        writer = Writer(file, model.header, blob)
        for part in parts:
            writer.add_refined(*part[:-1])
        writer.finish()
        out.append(file.getvalue())
    for error, mode in ((0, BASED), (4, ALONE)):
        modes = np.array([mode], np.uint8)
        part = refined_part(model, images[:1], symbols[:1], grey[:1], step, modes, error)
        out.append(
            single.encode_refined(
                *part[:3], model.identity, part.levels, part.refinement, part.images[0]
            )
        )
    return out


def _typical(rng: np.random.Generator, tables: Tables, step: int) -> np.ndarray:
    k = rng.choice(tables.components, 2 * IMAGES, p=tables.weights / TOTAL)
    units = tables.means[k] + rng.normal(size=(len(k), tables.latent_dim)) * tables.widths[k] / 16
    symbols = np.rint(units / step).astype(np.int32)
    symbols[3, 2] = 10**6
    return symbols


def tiny_model(rng: np.random.Generator, architecture: Architecture = TINY) -> FileModel:
    """A small model of random numbers."""
    d = architecture.latents
    sigma = np.full(d, 0.2)
    tables = fit_tables(rng.normal(size=(300, d)).astype(np.float32), sigma)
    decoder = tiny_decoder(rng, architecture, units_check(tables.unit))
    return FileModel(tables, IntegerDecoder.from_bytes(decoder.to_bytes()))


def tiny_map_model(rng: np.random.Generator, architecture: Architecture = TINY_MAP) -> FileModel:
    """The same with a map of latents."""
    grid = (*architecture.places, architecture.at_a_place)
    prior = random_prior(grid, seed=int(rng.integers(1 << 30)))
    decoder = tiny_decoder(rng, architecture, units_check(prior.unit))
    return FileModel(prior, IntegerDecoder.from_bytes(decoder.to_bytes()))


def random_prior(
    grid: tuple[int, int, int] = (3, 2, 4),
    groups: int = 2,
    hidden: tuple[int, int, int] = (6, 5, 4),
    seed: int = 0,
) -> MapPrior:
    """A valid prior whose means and widths depend on everything around."""
    rng = np.random.default_rng(seed)
    width = grid[2] // groups

    def layer(inputs: int, outputs: int, bits: int, spread: int, shift: int) -> integers.Layer:
        weights = rng.integers(-spread, spread + 1, (outputs, inputs)).astype(np.int32)
        bias = rng.integers(-300, 300, outputs).astype(np.int32)
        return integers.Layer(weights, bias, np.full(outputs, shift, np.uint8), bits)

    def output(inputs: int) -> integers.Layer:
        made = layer(inputs, 2 * width, 0, 1, 4)
        made.bias[width:] += 16 * 72  # wide enough for typical latents
        return made

    h0, h1, h2 = hidden
    return MapPrior(
        grid=grid,
        unit_size=float(np.float32(0.001)),
        slope=1.0,
        curve=_bell(),
        input_shift=6,
        limits=rng.integers(30, 60, grid[2]).astype(np.uint16),
        context=layer(len(NEIGHBOURS) * grid[2] + 1, h0, 7, 9, 3),
        groups=tuple(
            Group(layer(h0 + k * width, h1, 7, 9, 3), layer(h1, h2, 7, 9, 3), output(h2))
            for k in range(groups)
        ),
    )


def _bell() -> np.ndarray:
    points = np.arange(-REACH, REACH + 1) / 8
    rising = np.rint((1 << 20) / (1 + np.exp(-points))).astype(np.int64)
    return (rising + np.arange(len(points))).astype(np.uint32)


def tiny_decoder(
    rng: np.random.Generator, architecture: Architecture, units_check: int = 0
) -> IntegerDecoder:
    """A decoder of random numbers."""
    layers = []
    for shape in architecture.layers:
        weights = rng.integers(-40, 41, shape.weights).astype(np.int32)
        bias = 8 * rng.integers(-50, 50, shape.outputs)
        skip = rng.integers(-64, 65, shape.channels) if shape.skips else None
        shift = np.full(shape.channels, 6, np.uint8)
        layers.append(Layer(weights, bias, shift, 8, skip))
    layers[-1] = layers[-1]._replace(bits=0)
    d = architecture.at_a_place
    return IntegerDecoder(
        *(architecture, np.arange(d, dtype=np.uint32), np.full(d, 500, np.uint16), 3),
        *(tuple(layers), thresholds(), units_check),
    )


def tiny_context(
    rng: np.random.Generator, shape: tuple[int, int, int], hidden: tuple[int, int] = (8, 6)
) -> ContextModel:
    """A small context model of random numbers, which expects images to be smooth."""
    widths = (neighbours.inputs(shape[2]), *hidden, 1 + 2 * LEVELS)
    layers = []
    for inputs, outputs, bits in zip(widths[:-1], widths[1:], (8, 8, 0), strict=True):
        weights = rng.integers(-9, 10, (outputs, inputs)).astype(np.int32)
        bias = rng.integers(-2000, 2000, outputs).astype(np.int32)
        layers.append(integers.Layer(weights, bias, np.full(outputs, 5, np.uint8), bits))
    first, second, output = layers
    d = np.arange(LEVELS)
    output.bias[1 + LEVELS :] -= 100 * np.minimum(d, LEVELS - d)
    row, column, channel = (
        rng.integers(-999, 1000, (n, hidden[0])).astype(np.int32) for n in shape
    )
    model = ContextModel(
        shape, first, (row, column, channel), second, output, base_quality=50, usual=0.5
    )
    return ContextModel.from_bytes(model.packed)


class RefinedPart(NamedTuple):
    """A chunk of refined images: what ``Writer.add_refined`` takes, and what it decodes to."""

    symbols: np.ndarray  # int32 [based, D]
    step: int
    tables: CodingTables
    levels: np.ndarray  # uint8 [based, H, W, C]
    refinement: Refinement
    images: np.ndarray  # uint8 [n, H, W, C]


def refined_part(
    model: FileModel,
    images: np.ndarray,
    symbols: np.ndarray,
    levels: np.ndarray,
    step: int,
    modes: np.ndarray,
    max_error: int,
) -> RefinedPart:
    """Images coded in given modes; symbols, levels: of all of them."""
    assert model.context is not None
    modelled, based = modes != RAW, modes == BASED
    base = np.where(based[:, None, None, None], levels, 0)[modelled]
    made = near(images, max_error)
    coding = coder.coding(model.context, made[modelled], base, based[modelled], max_error)
    made[~modelled] = coder.evenly(images[~modelled], max_error)
    refinement = Refinement(
        max_error,
        model.context.digest[:16],
        crc32c(pixel_bytes(made)),
        modes.astype(np.uint8),
        coder.encode(coding, images[~modelled], max_error),
    )
    return RefinedPart(symbols[based], step, model.tables, levels[based], refinement, made)


def _archive(header, model, symbols, step, tables, extras) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, header, model)
    for start in range(0, len(symbols), IMAGES):
        more = dict(extras)
        if "names" in more:
            more["names"] = [f"{start}/{name}" for name in more["names"]]
        part = symbols[start : start + IMAGES]
        writer.add(part, step, tables, levels(len(part), header.image_shape, step), **more)
    writer.finish()
    return file.getvalue()
