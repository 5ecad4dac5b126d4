"""Refined archives and the commands that join and recover them: one context model for each."""

import dataclasses
import io

import numpy as np
import pytest
from command_samples import refuses
from context_samples import archive_of, file_model, part

from benchmarks.fuzz.samples import tiny_context
from cvae_jax import reader
from cvae_jax.bitstream import Writer
from cvae_jax.bitstream.records import BASED

MODEL = file_model()
OTHER = tiny_context(np.random.default_rng(99), MODEL.image_shape)
PARTS = [part(5), part(4, 4, 1)]
IMAGES = [p.images for p in PARTS]


def foreign(chunk, context=OTHER):
    """A chunk that says that another context model refined it."""
    return chunk._replace(refinement=chunk.refinement._replace(model=context.digest[:16]))


def lossy(model=None, more=()):
    """An archive of one image that is not refined, and what it decodes to; more: refined chunks."""
    file, chunk = io.BytesIO(), part(1, modes=(BASED,))
    writer = Writer(file, MODEL.header, model)
    writer.add(chunk.symbols, chunk.step, chunk.tables, chunk.levels)
    for refined in more:
        writer.add_refined(*refined[:-1])
    writer.finish()
    return file.getvalue(), chunk.levels


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_other = dataclasses.replace(MODEL, context=OTHER)
    plain = MODEL.pack(with_context=False)
    for name, content in {
        "refined": archive_of(PARTS[:1]),
        "embedded": archive_of(PARTS[1:], embed=True),
        "other": archive_of([foreign(PARTS[1])]),
        "lossy": lossy()[0],
        "plain": lossy(plain)[0],
        "other_model": lossy(with_other.pack())[0],
    }.items():
        (tmp_path / f"{name}.cvae").write_bytes(content)
    return tmp_path


def concat(*names):
    return ["concat", *(f"{name}.cvae" for name in names), "-o", "x.cvae", "-f"]


@pytest.mark.parametrize("names", [("refined", "other"), ("lossy", "other", "embedded")])
def test_different_context_models_are_not_joined(cvae, files, names):
    words = f"{names[-1]}.cvae: ", "different context models", OTHER.digest[:16].hex()
    refuses(cvae, 5, *words, argv=concat(*names))
    assert not (files / "x.cvae").exists()


def test_the_model_that_reads_all_is_kept(cvae, files):
    for names in (("plain", "embedded", "refined"), ("refined", "other_model", "embedded")):
        assert cvae(*concat(*names))[0] == 0
        parts = {"embedded": IMAGES[1], "refined": IMAGES[0]}
        expected = np.concatenate([parts.get(name, lossy()[1]) for name in names])
        joined = (files / "x.cvae").read_bytes()
        np.testing.assert_array_equal(reader.decompress(joined), expected)


@pytest.mark.parametrize("other", ["plain", "other_model"])
def test_a_model_that_does_not_read_all_is_not_kept(cvae, files, other):
    words = f"refined with context model {MODEL.context.digest[:16].hex()}", "cvae model"
    for names in (("refined", other), (other, "refined")):
        refuses(cvae, 5, "refined.cvae: ", *words, argv=concat(*names))
    assert not (files / "x.cvae").exists()
    for names in (("refined", "lossy"), (other, "lossy")):
        assert cvae(*concat(*names))[0] == 0


def test_another_context_model_is_the_fault_of_its_chunks(cvae, files):
    """What is refined with it is lost, and the rest is recovered."""
    (files / "m.cvae").write_bytes(archive_of([], embed=True))
    (files / "two.cvae").write_bytes(lossy(more=[foreign(PARTS[1])])[0])
    argv = ["decompress", "two.cvae", "--ckpt", "m.cvae", "-o", "x.npy"]
    refuses(cvae, 5, "two.cvae: chunk of images 1 to 4", "context model", argv=argv)
    status, out, _ = cvae(*argv, "--keep-going")
    assert status == 3
    assert f"context model {OTHER.digest[:16].hex()}" in out
    assert "lost: images 1 to 4" in out
    np.testing.assert_array_equal(np.load("x.npy"), lossy()[1])
    argv = ["decompress", "other.cvae", "--ckpt", "m.cvae", "-o", "y.npy", "--keep-going"]
    refuses(cvae, 5, "context model", argv=argv)
