"""A run of a model with a map of latents, by the commands: it ends well, without files so far."""

import json
import zipfile

import numpy as np
import pytest
from conftest import failure

from cvae_jax import codec, data, errors
from cvae_jax.cli import parser
from cvae_jax.config import PRESETS
from cvae_jax.errors import CheckpointError, ConfigError
from cvae_jax.jobs import calibrate as calibrating
from cvae_jax.runs import release, saved, tables

FLAGS = ["--preset", "photos32", "--filters", 4, 8, "--latent-channels", 4, "--no-flip"]
FLAGS += ["--epochs", 2, "--batch-size", 8]


def called(*argv):
    return errors.run(lambda: parser.main([str(a) for a in argv]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A zip of colour images in folders, as CIFAR-10 often comes."""
    path = tmp_path_factory.mktemp("photos") / "photos.zip"
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 11, 3), np.uint8)
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images):
            archive.writestr(
                f"{'cat' if i % 2 else 'dog'}/{i}.png", data.encode_image(image, ".png")
            )
    return path


@pytest.fixture(scope="module")
def workdir(dataset):
    folder = dataset.parent / "run"
    assert called("train", "--workdir", folder, "--dataset", dataset, *FLAGS) == 0
    return folder


def test_a_run_keeps_its_checkpoint_and_pictures(workdir, dataset, capsys):
    assert [step.name for step in saved.steps(workdir)] == ["00000006", "00000012"]
    for picture in ("loss_curves", "reconstructions", "samples"):
        assert (workdir / f"{picture}.png").stat().st_size > 1000
    # Started again, it has nothing left to do, and says what it says at its end.
    assert called("train", "--workdir", workdir, "--dataset", dataset, *FLAGS) == 0
    said = capsys.readouterr().out
    assert said.count(tables.NO_MAPS) == 1
    assert "best checkpoint" in said


def test_what_was_trained_encodes_decodes_and_draws(workdir):
    c = codec.load(workdir)
    expected = PRESETS["photos32"].replace(height=8, width=11, filters=(4, 8), latent_channels=4)
    assert c.model == expected.model
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 11, 3), np.uint8)
    z = c.encode(images)
    assert z.shape == (3, c.latent_dim) == (3, 24)
    assert c.decode(z).shape == images.shape
    assert np.abs(c.sample_posterior(0, images) - z).max() <= 0.5 + 1e-4
    drawn = c.sample(0, 5)
    assert drawn.shape == (5, 8, 11, 3)
    np.testing.assert_array_equal(drawn, c.sample(0, 5))
    assert not np.array_equal(drawn, c.sample(1, 5))
    assert c.sample(0, 0).shape == (0, 8, 11, 3)


def test_it_is_evaluated(workdir, tmp_path, capsys):
    written = ["--json", tmp_path / "numbers.json", "--figure", tmp_path / "some.png"]
    assert called("evaluate", "--ckpt", workdir, *written) == 0
    summary = json.loads((tmp_path / "numbers.json").read_text())["summary"]
    for section in ("deterministic", "sampled"):
        row = summary[section]
        assert row["negative_elbo"] == pytest.approx(row["bce"] + row["kl"])
    assert summary["deterministic"]["kl"] != summary["sampled"]["kl"]
    assert (tmp_path / "some.png").stat().st_size > 1000


def test_there_are_no_files_of_it_and_that_is_said(workdir, tmp_path, capsys):
    for command in ("calibrate", "release"):
        assert called(command, workdir, *[tmp_path / "out"] * (command == "release")) == 2
        assert tables.NO_MAPS in capsys.readouterr().err
    assert failure(ConfigError, tables.make, saved.best(workdir).path, []) == tables.NO_MAPS
    assert failure(ConfigError, release.release, workdir, tmp_path / "out") == tables.NO_MAPS
    arguments = str(workdir), ["nothing"], tmp_path
    message = failure(ConfigError, calibrating.prepare, *arguments, resize=False, grayscale=False)
    assert message == tables.NO_MAPS
    images = np.zeros((1, 8, 11, 3), np.uint8)
    assert "no coding tables" in failure(CheckpointError, codec.load(workdir).compress, images)
