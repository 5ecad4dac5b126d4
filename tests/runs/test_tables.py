"""What calibration adds to a checkpoint: tables, and the usual errors."""

import json

import jax
import numpy as np
import pytest

from cvae_jax import codec, errors
from cvae_jax.cli import parser
from cvae_jax.config import Config
from cvae_jax.data.sources import open_source
from cvae_jax.errors import CheckpointError, DataError, FormatError
from cvae_jax.modules import init_params
from cvae_jax.runs import checkpoint, manifest, tables
from cvae_jax.runs.find import ERRORS, usual_errors
from cvae_jax.runs.record import Dataset, Record

CONFIG = Config().replace(height=9, width=8, latent_dim=2, filters=(2,), dense_width=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 9, 8, 1), np.uint8)


@pytest.fixture
def bare(tmp_path):
    """A checkpoint without anything that calibration adds."""
    record = Record(CONFIG, Dataset(str(tmp_path / "images.npy"), None))
    params = init_params(CONFIG.model, jax.random.key(0))
    np.save(tmp_path / "images.npy", IMAGES)
    return checkpoint.save(tmp_path / "model", {"params": params}, record.to_dict())


def without_errors(path):
    """As checkpoints were before the usual errors were kept."""
    files = dict(manifest.Checkpoint(path).files)
    del files[ERRORS]
    (path / ERRORS).unlink()
    (path / manifest.NAME).write_text(json.dumps({"format": 1, "files": files}))


def test_calibration_adds_tables_and_usual_errors(bare):
    c = codec.load(bare)
    assert c.files is c.usual_errors is None
    assert c.unusual(np.ones(3), 597).tolist() == []
    tables.make(bare, IMAGES[10:], IMAGES[:10])
    c = codec.load(bare)
    assert c.usual_errors == usual_errors(manifest.Checkpoint(bare))
    assert c.usual_errors.images == 60  # the training images join so few
    assert c.unusual([1.0, 0.0], 597).tolist() == [0]


def test_every_image_is_encoded_once(bare, monkeypatch):
    seen = []

    class Counted(tables.Batched):
        def __call__(self, rows):
            seen.append(len(rows))
            return super().__call__(rows)

    monkeypatch.setattr(tables, "Batched", Counted)
    for held_out in (None, IMAGES[:10]):
        seen.clear()
        tables.make(bare, IMAGES[10:], held_out)
        assert sum(seen) == (50 if held_out is None else 60)
        found = usual_errors(manifest.Checkpoint(bare))
        assert tables.measure_errors(bare, IMAGES[10:], held_out) == found


def test_a_large_collection_is_sampled(bare, tmp_path, monkeypatch):
    on_disk = open_source(tmp_path / "images.npy")
    np.testing.assert_array_equal(tables.sample(on_disk), IMAGES)
    assert tables.make(bare, on_disk).identity == tables.make(bare, IMAGES).identity
    monkeypatch.setattr(tables, "MOST_IMAGES", 20)
    np.testing.assert_array_equal(tables.sample(on_disk), IMAGES[::3])
    np.testing.assert_array_equal(tables.sample(IMAGES), IMAGES[::3])
    monkeypatch.setattr(tables, "MOST_BYTES", 12 * IMAGES[0].size)
    np.testing.assert_array_equal(tables.sample(on_disk), IMAGES[::5])


def test_held_out_images_are_what_is_measured(bare, monkeypatch):
    monkeypatch.setattr(tables, "FEWEST", 20)
    monkeypatch.setattr(tables, "MOST", 30)
    tables.make(bare, IMAGES)
    dark = np.zeros((25, 9, 8, 1), np.uint8)
    measured = {}
    for count in (5, 20, 25, 40):
        held_out = np.concatenate([dark, dark])[:count]
        measured[count] = tables.measure_errors(bare, IMAGES, held_out)
    assert [found.images for found in measured.values()] == [20, 20, 25, 30]
    assert measured[20].mse == measured[25].mse != measured[5].mse
    assert tables.measure_errors(bare, IMAGES).images == 30


def test_measuring_leaves_tables_as_they_are_and_needs_them(bare):
    with pytest.raises(CheckpointError, match="no coding tables; calibrate it first"):
        tables.measure_errors(bare, IMAGES)
    made = tables.make(bare, IMAGES)
    without_errors(bare)
    assert codec.load(bare).usual_errors is None
    tables.measure_errors(bare, IMAGES)
    assert codec.load(bare).tables.digest == made.tables.digest
    with pytest.raises(DataError, match="no images to measure"):
        tables.measure_errors(bare, IMAGES[:0])


def test_damaged_usual_errors_are_noticed(bare):
    tables.make(bare, IMAGES)
    checkpoint.attach(bare, {ERRORS: b"{}"})
    with pytest.raises(FormatError, match=r"calibration\.json"):
        codec.load(bare)


def test_the_command_measures_what_an_old_checkpoint_lacks(bare, capsys):
    made = tables.make(bare, IMAGES)
    without_errors(bare)
    calibrate = ["calibrate", str(bare)]
    assert errors.run(lambda: parser.main(calibrate)) == 0
    assert made.tables.digest[:16].hex() in capsys.readouterr().out
    c = codec.load(bare)
    assert c.tables.digest == made.tables.digest
    assert c.usual_errors is not None
    assert errors.run(lambda: parser.main(calibrate)) == 2
    assert "-f replaces them" in capsys.readouterr().err
