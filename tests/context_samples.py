"""Small context models, images to code with them, and the integers they stand for."""

import dataclasses
import functools
import io

import jax
import numpy as np

from benchmarks.fuzz.samples import refined_part, tiny_context, tiny_model
from cvae_jax import data
from cvae_jax.bitstream import Writer, single
from cvae_jax.bitstream.records import ALONE, BASED, RAW
from cvae_jax.exact import by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.refinement import training
from cvae_jax.refinement.from_params import quantize_context
from cvae_jax.refinement.network import ContextNetwork

KINDS = ("noise", "black", "white", "checkerboard", "smooth")


@functools.cache
def random_model(shape, seed=0):
    return tiny_context(np.random.default_rng(seed), shape)


def images(kind, n, shape, seed=0):
    """uint8 ``[n, *shape]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape[:2])
    one = {
        "black": 0 * rows,
        "white": 0 * rows + 255,
        "checkerboard": (rows + columns) % 2 * 255,
        "smooth": 10 * rows + 7 * columns,
    }
    if kind == "noise":
        return rng.integers(0, 256, (n, *shape)).astype(np.uint8)
    return np.broadcast_to(one[kind][..., None], (n, *shape)).astype(np.uint8)


def mixed(shape, seed=0):
    """Two images of each kind, a base that is near them, and modes of all sorts."""
    made = np.concatenate([images(kind, 2, shape, seed) for kind in KINDS])
    noise = np.random.default_rng(seed).integers(-9, 10, made.shape)
    base = np.clip(made + noise, 0, 255).astype(np.uint8)
    modes = np.resize(np.array([BASED, RAW, ALONE], np.uint8), len(made))
    return made, base, modes


def digits(n):
    """Scikit-learn's digits, uint8 ``[n, 8, 8, 1]``, and a base for them: themselves, blurred."""
    levels = data.load("digits", "train")[:n, 2:26:3, 2:26:3]
    near = levels.astype(int) + np.roll(levels, 1, 1) + np.roll(levels, 1, 2)
    return levels, (near // 3).astype(np.uint8)


@functools.cache
def file_model(shape=(12, 10, 1)):
    """A whole model of random numbers."""
    rng = np.random.default_rng(3)
    made = tiny_model(rng, Architecture(shape, 3, (3, 2)))
    return dataclasses.replace(made, context=tiny_context(rng, made.image_shape))


def decoder_of(model, trusted=True):
    return model.file_decoder(model.levels_by(by_numpy.decoder), trusted=trusted)


@functools.cache
def part(n, max_error=0, seed=0, modes=(BASED, ALONE, RAW), shape=(12, 10, 1)):
    """A refined chunk in these modes, repeated."""
    model, rng, step = file_model(shape), np.random.default_rng(seed), 600
    symbols = rng.integers(-9, 10, (n, model.tables.latent_dim)).astype(np.int32)
    levels = decoder_of(model).decode_symbols(symbols, step)
    noise = rng.integers(-20, 21, levels.shape)
    some = np.clip(levels + noise, 0, 255).astype(np.uint8)
    which = np.resize(np.array(modes, np.uint8), n)
    return refined_part(model, some, symbols, levels, step, which, max_error)


def archive_of(parts, extras=None, embed=False, shape=(12, 10, 1)):
    """An archive of refined chunks; extras: names and labels of each."""
    model, file = file_model(shape), io.BytesIO()
    writer = Writer(file, model.header, model.pack() if embed else None)
    for chunk, more in zip(parts, extras or [{}] * len(parts), strict=True):
        writer.add_refined(*chunk[:-1], **more)
    writer.finish()
    return file.getvalue()


def single_of(chunk):
    """The file of a chunk of one image."""
    (image,) = chunk.images
    identity = file_model(image.shape).identity
    return single.encode_refined(*chunk[:3], identity, chunk.levels, chunk.refinement, image)


@functools.cache
def trained():
    """A context model of the digits that has learnt a little: the network, its parameters, the
    pixels that it learnt from, and its integers."""
    levels, base = digits(500)
    network, steps = ContextNetwork(levels.shape[1:], (24, 16)), 150
    known = training.pixels(levels, base)
    for state, _ in training.run(network, training.init_state(network, steps, 0), known, steps, 0):
        params = jax.device_get(state.average) if state.step == steps else None
    rng = np.random.default_rng(0)
    number = rng.choice(np.asarray(known.telling), 4096, replace=False)
    sample, _ = training.contexts(known, jax.numpy.asarray(number), np.ones(4096, bool))
    model = quantize_context(params, levels.shape[1:], jax.device_get(sample))
    return network, params, known, model
