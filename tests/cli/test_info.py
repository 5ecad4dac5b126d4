"""What ``cvae info`` compares a file with, and what it counts."""

import json

import command_samples
import pytest
from command_samples import refuses
from conftest import ROOT

images, folder = command_samples.images, command_samples.folder
DIGITS = ROOT / "examples" / "digits"
SHEET = "AVIF sheet, lossy (measured)"


@pytest.fixture(scope="module", params=["mnist", "mnist-hq"])
def released(request):
    """A released checkpoint's name, and bytes per image of the sheet that it has to beat."""
    config = json.loads((ROOT / "checkpoints" / request.param / "config.json").read_text())
    return request.param, config["best_sheet"]["bytes_per_image"]


def test_the_measured_sheet_is_that_of_the_checkpoint_that_made_the_file(cvae, released):
    """Found by the digests: also with the model inside, or with a model file."""
    name, expected = released
    cvae("compress", DIGITS, "--ckpt", name, "-o", "plain.cvae")
    cvae("compress", DIGITS, "--ckpt", name, "-o", "embedded.cvae", "--embed-model")
    cvae("model", name, "-o", "model.cvae")
    for argv in (
        ["plain.cvae"],
        ["embedded.cvae"],
        ["plain.cvae", "--ckpt", name],
        ["plain.cvae", "--ckpt", "model.cvae"],
        ["embedded.cvae", "--ckpt", "model.cvae"],
    ):
        report = json.loads(cvae("info", *argv, "-j")[1])
        assert report["break_even"][SHEET]["bytes_per_image"] == expected, argv


def test_nothing_is_measured_at_another_quality_or_by_another_model(cvae, monkeypatch):
    cvae("compress", DIGITS, "-q", 51, "-o", "q.cvae")
    assert "measured" not in cvae("info", "q.cvae")[1]
    cvae("compress", DIGITS, "-o", "own.cvae", "--embed-model")
    assert "measured" in cvae("info", "own.cvae")[1]
    monkeypatch.setattr("cvae_jax.runs.find.RELEASED", ())
    status, out, _ = cvae("info", "own.cvae")
    assert (status, "measured" in out) == (0, False)


def test_the_models_size_is_what_embedding_adds(cvae, tmp_path):
    cvae("compress", DIGITS, "-o", "plain.cvae")
    cvae("compress", DIGITS, "-o", "embedded.cvae", "--embed-model")
    added = (tmp_path / "embedded.cvae").stat().st_size - (tmp_path / "plain.cvae").stat().st_size
    plain, embedded = (
        json.loads(cvae("info", f"{name}.cvae", "-j")[1]) for name in ("plain", "embedded")
    )
    assert plain["model_bytes"] == embedded["model_bytes"] == added
    assert embedded["bytes_by_use"]["model"] == added
    assert plain["break_even"] == embedded["break_even"]


def test_a_model_file_is_called_so(cvae, tmp_path):
    cvae("model", "mnist", "-o", "m.cvae")
    status, out, _ = cvae("info", "m.cvae")
    assert (status, out.splitlines()[0]) == (0, "m.cvae: model file, for images of 28x28x1")
    assert "per image" not in out
    report = json.loads(cvae("info", "m.cvae", "-j")[1])
    assert (report["kind"], report["images"], report["bytes_per_image"]) == ("model file", 0, None)
    assert cvae("verify", "m.cvae") == (0, "m.cvae: intact, a model\n", "")
    for how in ([], ["--keep-going"]):
        refuses(cvae, 1, "m.cvae: a model file", "--ckpt", argv=["decompress", "m.cvae", *how])
    assert [path.name for path in tmp_path.iterdir()] == ["m.cvae"]
