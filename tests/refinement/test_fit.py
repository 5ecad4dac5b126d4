"""Training a context model: deterministic, and resumed exactly, whenever it was stopped."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, synthetic_tables
from context_samples import digits

from cvae_jax.errors import DataError, TrainingError
from cvae_jax.refinement import fit, neighbours, training
from cvae_jax.refinement.canvas import Canvas
from cvae_jax.refinement.encoder import Base
from cvae_jax.refinement.network import ContextNetwork

STEPS = 300
TABLES = synthetic_tables(components=2, latent_dim=3)


def base_of(images, quality):
    """Stands for a codec: the images with levels that are as coarse as the quality is low."""
    pitch = 101 - int(quality)
    return Base(np.zeros((len(images), 3), np.int32), 300, images // pitch * pitch)


def fitted(partial, steps=STEPS, seed=0, n=60):
    images, _ = digits(n)
    return fit.fit(images, base_of, TABLES, steps, seed, partial)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(training, "HIDDEN", (8, 6))
    monkeypatch.setattr(training, "BATCH", 64)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "HIDDEN", (8, 6))
        patch.setattr(training, "BATCH", 64)
        return fitted(tmp_path_factory.mktemp("fit") / "context.partial")


def test_the_same_seed_gives_the_same_bytes(uninterrupted, tmp_path):
    assert fitted(tmp_path / "partial").packed == uninterrupted.packed


def test_what_is_measured_is_possible(uninterrupted):
    assert uninterrupted.base_quality in (None, *fit.BASE_QUALITIES)
    assert 0 < uninterrupted.usual <= 1


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import test_fit
from cvae_jax.refinement import fit, training
training.HIDDEN, training.BATCH, fit.SECONDS_BETWEEN_SAVES = (8, 6), 64, 0
test_fit.fitted(Path(sys.argv[3]))
"""


def test_a_killed_training_goes_on_to_the_same_bytes(uninterrupted, tmp_path, monkeypatch):
    partial = tmp_path / "context.partial"
    folders = (ROOT / "tests", ROOT / "tests" / "refinement")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *folders, partial],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        while not partial.exists() and child.poll() is None:
            time.sleep(0.001)
    finally:
        child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    with np.load(partial) as stored:
        at = int(stored["state/step"])
    assert 0 < at < STEPS
    first = []
    run = training.run

    def watched(network, state, known, steps, seed):
        first.append(int(state.step))
        return run(network, state, known, steps, seed)

    monkeypatch.setattr(training, "run", watched)
    assert fitted(partial).packed == uninterrupted.packed
    assert first == [at]


def test_a_state_that_is_damaged_or_of_another_training_is_not_used(tmp_path, monkeypatch):
    partial = tmp_path / "context.partial"
    monkeypatch.setattr(fit, "SECONDS_BETWEEN_SAVES", -1)
    fitted(partial, steps=3, seed=5)
    saved = partial.read_bytes()
    monkeypatch.setattr(fit, "SECONDS_BETWEEN_SAVES", 10**6)
    first = []

    def watched(network, state, known, steps, seed):
        first.append(int(state.step))
        return iter([(state, 0.0)])

    monkeypatch.setattr(training, "run", watched)
    contents = (saved, saved[:100], b"", b"PK" + bytes(50), np.zeros(3).tobytes())
    for content in contents:
        partial.write_bytes(content)
        fitted(partial)
    assert first == [0] * len(contents)


def test_no_images_and_no_finite_loss_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="0 images"):
        fitted(tmp_path / "partial", n=0)
    monkeypatch.setattr(training, "LEARNING_RATE", 1e30)
    with pytest.raises(TrainingError, match=r"loss became \S+ at step \d+"):
        fitted(tmp_path / "partial")


def test_a_state_is_all_that_is_needed_to_go_on():
    images, base = digits(30)
    network = ContextNetwork((8, 8, 1), (8, 6))
    known = training.pixels(images, base)
    whole = list(
        bits for _, bits in training.run(network, training.init_state(network, 8, 3), known, 8, 3)
    )
    runs = training.run(network, training.init_state(network, 8, 3), known, 8, 3)
    ((state, _),) = itertools.islice(runs, 4, 5)
    rest = [bits for _, bits in training.run(network, state, known, 8, 3)]
    assert rest == whole[5:]


def test_contexts_of_training_are_those_of_coding():
    """Value by value, of images as files with each largest error have them."""
    rng = np.random.default_rng(0)
    shape = (6, 5, 3)
    images, base = rng.integers(0, 256, (2, 20, *shape)).astype(np.uint8)
    known = training.pixels(images, base)
    numbers = np.arange(known.expected.size)
    given, level = training.contexts(known, numbers, np.ones(len(numbers), bool))
    found = np.asarray(given.values).reshape(*known.expected.shape, -1)
    expected, levels = (
        np.asarray(x).reshape(known.expected.shape) for x in (given.expected, level)
    )
    for error in (0, *training.MAX_ERRORS):
        which = np.flatnonzero(np.asarray(known.max_error) == error)
        assert len(which)
        coded = np.asarray(known.images)[which][..., 4:-4, 4:-4]
        canvas = Canvas(base[np.asarray(which) % len(base)])
        values = np.zeros((neighbours.values(3), 1, len(which)), np.uint8)
        for span in canvas.spans():
            at = (which, span.channel, span.row, span.column)
            canvas.values(span, values)
            np.testing.assert_array_equal(values[:, 0].T, found[at])
            np.testing.assert_array_equal(canvas.expected(span)[0], expected[at])
            pixel = coded[:, *at[1:]]
            assert np.abs(pixel.astype(int) - levels[at]).max() <= error
            canvas.levels(span)[0] = pixel
