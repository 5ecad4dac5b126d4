"""Small models with a map of latents, of random numbers, and what their files hold."""

import numpy as np
from coding.maps.prior_samples import random_prior, typical_latents

from benchmarks.fuzz.samples import tiny_context, tiny_decoder
from cvae_jax.coding import quantize
from cvae_jax.exact import by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.integers import IntegerDecoder, units_check
from cvae_jax.file_model import FileModel


def map_model(shape=(11, 14, 3), blocks=2, groups=2, seed=0):
    """Of random numbers: two stages, and four channels of latents."""
    rng = np.random.default_rng(seed)
    architecture = Architecture(shape, 0, (5, 7), 4, blocks)
    prior = random_prior((*architecture.places, 4), groups, seed=seed)
    decoder = tiny_decoder(rng, architecture, units_check(prior.unit))
    decoder = IntegerDecoder.from_bytes(decoder.to_bytes())
    return FileModel(prior, decoder, tiny_context(rng, shape))


def symbols_of(model, n, step, seed=0):
    """Typical symbols, some beyond their rows."""
    symbols = quantize.quantize(typical_latents(model.tables, n, seed), model.tables, step)
    rng = np.random.default_rng(seed)
    for far in (1, 1000, 2**31 - 1):
        symbols[rng.integers(n, size=2), rng.integers(symbols.shape[1], size=2)] = (far, -far)
    return symbols


def levels_of(model, symbols, step):
    return model.levels_by(by_numpy.decoder)(symbols, step)
