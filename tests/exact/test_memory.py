"""What decoding takes in memory is what a file's budget counts, whatever decodes."""

import math
import threading
import tracemalloc

import jax
import numpy as np
import pytest
from conftest import ROOT, decoder_of_zeros

from cvae_jax import backend
from cvae_jax.bitstream import budget
from cvae_jax.exact import by_jax, by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.integers import IntegerDecoder

PYTHON = 1 << 15  # bytes of objects that are no arrays


def random_architecture(seed):
    rng = np.random.default_rng(seed)
    h, w, c = (int(n) for n in rng.integers(1, (60, 60, 5)))
    filters = rng.integers(1, 40, rng.integers(1, 5)).tolist()
    latents = int(rng.integers(1, 200))
    if seed % 2:  # of a map
        return Architecture((h, w, c), 0, tuple(filters), latents, int(rng.integers(0, 4)))
    return Architecture((h, w, c), latents, tuple(filters))


def released(name):
    return IntegerDecoder.from_bytes((ROOT / "checkpoints" / name / "decoder.bin").read_bytes())


DECODERS = {
    **{name: released(name) for name in ("mnist", "mnist-hq")},
    **{
        str(a): decoder_of_zeros(a, a.at_a_place)
        for a in (
            Architecture((1, 1, 1), 1, (16,) * 8),
            Architecture((32, 32, 3), 0, (32, 96), 24, 1),
            Architecture((40, 32, 1), 0, (2,), 600),  # mostly latents
            *map(random_architecture, range(8)),
        )
    },
}


def numbers(decoder):
    """That an image is decoded from."""
    return len(decoder.inputs) * math.prod(decoder.architecture.places)


def peak_of(levels, inputs):
    """Bytes that a call takes at most, besides the images that it returns."""
    images = levels(inputs).nbytes  # and whatever is made once
    tracemalloc.start()
    levels(inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - images


@pytest.mark.parametrize("name", DECODERS)
def test_numpy_takes_what_is_counted(name):
    decoder = DECODERS[name]
    n = by_numpy.MICROBATCH
    inputs = np.zeros((n, numbers(decoder)), np.int32)
    counted = n * decoder.architecture.memory()
    taken = peak_of(by_numpy.decoder(decoder), inputs)
    twice = n * 4 * decoder.architecture.latents  # of a map by compiled code, and by it only
    spare = twice if decoder.architecture.latent_channels else 0
    assert 0.9 * (counted - spare) - PYTHON < taken < counted + PYTHON


@pytest.mark.parametrize("name", DECODERS)
def test_compiled_code_takes_no_more_than_is_counted(name):
    decoder = DECODERS[name]
    inputs = jax.ShapeDtypeStruct((budget.MICROBATCH, numbers(decoder)), np.int32)
    levels = jax.jit(lambda inputs: by_jax.levels(decoder, inputs))
    taken = levels.lower(inputs).compile().memory_analysis().temp_size_in_bytes
    assert taken < budget.MICROBATCH * decoder.architecture.memory() + PYTHON


def test_no_more_images_at_once_than_are_counted(monkeypatch):
    """Of many images, a number that leaves a rest; with more cores than are used, and a device
    for which everything else takes thousands."""
    decoder, seen = DECODERS["mnist"], []
    make, levels = by_numpy._scratch_for, by_jax.levels
    inputs = np.zeros((10 * budget.MICROBATCH + 5, len(decoder.inputs)), np.int32)
    monkeypatch.setattr(backend, "microbatch_size", lambda: 4096)
    monkeypatch.setattr(by_jax, "levels", lambda d, x: seen.append(len(x)) or levels(d, x))
    by_jax.decoder(decoder)(inputs)
    assert max(seen) <= budget.MICROBATCH
    seen.clear()
    monkeypatch.setattr(by_numpy, "cores", lambda: 64)
    lock = threading.Lock()

    def counted(architecture, n):
        with lock:
            seen.append((threading.get_ident(), n))
        return make(architecture, n)

    monkeypatch.setattr(by_numpy, "_scratch_for", counted)
    most = budget.MICROBATCH * decoder.architecture.memory() + PYTHON
    assert peak_of(by_numpy.decoder(decoder), inputs) < most
    seen.clear()  # each call has threads of its own
    by_numpy.decoder(decoder)(inputs)
    assert len({thread for thread, _ in seen}) <= budget.MICROBATCH // by_numpy.MICROBATCH


def test_compiled_code_is_called_on_no_more_cores_than_have_room(monkeypatch):
    """A model that takes all that a file may always cost gets one block at a time, a small one
    all cores."""
    asked = []
    monkeypatch.setattr(by_jax, "stream", lambda f, inputs, at_once: asked.append(at_once))
    monkeypatch.setattr(by_jax, "cores", lambda: 3)
    for of_an_image in (1, budget.ACTIVATIONS.always // budget.MICROBATCH // 2, 1 << 40):
        monkeypatch.setattr(Architecture, "memory", lambda self, m=of_an_image: m)
        by_jax.decoder(DECODERS["mnist"])(None)
    assert asked == [None, 2, 1]
