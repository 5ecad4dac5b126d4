"""train, evaluate, release: scripts and commands, their reports, files and one-line errors."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import RELEASED, ROOT, shared_dir
from PIL import Image

from cvae_jax import codec, data, losses
from cvae_jax.cli import parser
from cvae_jax.cli.commands import evaluate
from cvae_jax.config import TrainConfig
from cvae_jax.runs import checkpoint, keras_import


def python(*args, **options):
    return subprocess.run(
        [sys.executable, *map(str, args)], cwd=ROOT, capture_output=True, text=True, **options
    )


def assert_one_line_error(done, *words):
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line


def test_the_originals_weights_measure_as_known(tmp_path):
    """The summary of the Keras project on all of MNIST's test images."""
    seed = shared_dir() / "seed"
    keras_import.convert(
        seed / "CVAE_encoder_train.h5", seed / "CVAE_decoder_train.h5", tmp_path / "keras"
    )
    report, figure = tmp_path / "report.json", tmp_path / "figure.png"
    done = python(
        "evaluate.py", "--ckpt", tmp_path / "keras", "--data_dir", shared_dir() / "data",
        "--json", report, "--figure", figure,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(report.read_text())["summary"]
    deterministic, sampled = summary["deterministic"], summary["sampled"]
    assert deterministic["mse"] == pytest.approx(0.0218, abs=1e-4)
    assert deterministic["psnr_of_mean_mse"] == pytest.approx(16.61, abs=0.01)
    assert deterministic["ssim_uniform"] == pytest.approx(0.755, abs=1e-3)
    assert sampled["bce"] == pytest.approx(106.2, abs=0.1)
    assert sampled["kl"] == pytest.approx(19.2, abs=0.1)
    assert "106.2" in done.stdout
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_persons_own_images(tmp_path):
    folder = tmp_path / "mine" / "deeper"
    folder.mkdir(parents=True)
    for suffix, name in (("png", "digit_3"), ("jpg", "digit_7")):
        Image.open(ROOT / "examples" / "digits" / f"{name}.png").save(folder / f"{name}.{suffix}")
    arguments = ["evaluate.py", "--ckpt", RELEASED, "--dataset", tmp_path / "mine"]
    done = python(*arguments, "--split", "all")
    assert done.returncode == 0, done.stderr
    assert "2 images" in done.stdout

    Image.new("RGB", (40, 30), "red").save(folder / "digit_3.png")
    assert_one_line_error(python(*arguments, "--split", "all"), "digit_")
    done = python(*arguments, "--split", "all", "--resize")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate.py", "--ckpt", "nowhere"], ["nowhere"]),
        (["train.py", "--workdir", "{tmp}", "--dataset", "./nothing.npy"], ["nothing.npy"]),
        (["train.py", "--workdir", "{tmp}", "--dataset", "digits", "--beta", "-1"], ["beta", "-1"]),
        (["train.py", "--workdir", "{tmp}/file/x", "--dataset", "digits"], ["cannot write"]),
    ],
)  # fmt: skip
def test_errors_are_one_line(arguments, words, tmp_path):
    (tmp_path / "file").write_text("")
    done = python(*(a.format(tmp=tmp_path) for a in arguments))
    assert_one_line_error(done, *words)


def test_without_a_dataset_and_without_mnist_the_digits_are_used(tmp_path):
    """No MNIST in an empty home, and a proxy that refuses: a line says so, and the run goes on."""
    done = python(
        "train.py", "--workdir", tmp_path / "run", "--epochs", 1, "--context-steps", 5,
        "--latent_dim", 2, "--filters", 2, "--dense_width", 4,
        env={
            "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TFDS_DATA_DIR": str(tmp_path / "tfds"),
            "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("using the embedded digits instead of MNIST: ")
    config = next((tmp_path / "run" / "steps").iterdir()) / "config.json"
    assert json.loads(config.read_text())["dataset"]["name"] == "digits"
    assert "\ndigits, " in done.stdout


def test_help_is_there():
    for script in ("train.py", "evaluate.py"):
        done = python(script, "--help")
        assert done.returncode == 0
        assert "--data-dir" in done.stdout


def test_a_released_checkpoint_evaluates_on_an_array(tmp_path):
    np.save(tmp_path / "some.npy", data.load("digits", "test")[:64])
    done = python(
        "evaluate.py", "--ckpt", "mnist", "--dataset", tmp_path / "some.npy", "--split", "all"
    )
    assert done.returncode == 0, done.stderr
    assert "64 images" in done.stdout


# The same commands in this process, where seconds of imports are paid for once.

TINY = ["--preset", "original", "--latent-dim", 2, "--filters", 2, "--dense-width", 4]
TINY += ["--epochs", 1, "--batch-size", 8, "--validation-fraction", 0.1, "--context-steps", 3]


def refused(result, status, *words):
    found, _, err = result
    assert found == status, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """An .npz file of 56 small pictures, 16 of them for testing."""
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    images = np.zeros((56, 12, 12, 1), np.uint8)
    images[:, 3:9, 3:9] = np.random.default_rng(0).integers(100, 256, (56, 1, 1, 1))
    np.savez(path, train=images[:40], test=images[40:])
    return path


@pytest.fixture(scope="module")
def workdir(squares):
    """A finished run."""
    path = squares.parent / "run"
    arguments = ["train", "--workdir", path, "--dataset", squares, *TINY]
    assert parser.main([str(a) for a in arguments]) == 0
    return path


class TestRelease:
    def test_it_measures_as_the_run_does_and_says_so_in_its_card(self, cvae, workdir, tmp_path):
        status, out, err = cvae("release", workdir, "out")
        assert status == 0, err
        assert out.startswith("out: released; its model card is out/README.md")
        files = {path.name for path in (tmp_path / "out").iterdir()}
        assert files == {
            "README.md", "config.json", "manifest.json", "params.safetensors",
            "calibration.json", "reconstructions.png", "tables.bin", "decoder.bin", "context.bin",
        }  # fmt: skip
        found = codec.load("out")
        assert found.identity == codec.load(workdir).identity
        card = (tmp_path / "out" / "README.md").read_text()
        assert "12x12x1 images, 2 latent dimensions" in card
        assert "--latent-dim 2 --filters 2 --dense-width 4" in card
        assert found.tables.digest.hex()[:16] in card
        assert found.file_model.context.digest.hex()[:16] in card
        images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), np.uint8)
        assert np.array_equal(found.decompress(found.compress(images, max_error=0)), images)
        _, measured, _ = cvae("evaluate", "--ckpt", "out")
        (mse,) = [line for line in card.splitlines() if line.startswith("MSE ")]
        assert mse in measured
        assert mse in cvae("evaluate", "--ckpt", workdir)[1]

    def test_refusals(self, cvae, workdir, tmp_path):
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").write_text("")
        refused(cvae("release", workdir, "taken"), 1, "taken", "exists")
        refused(cvae("release", "nowhere", "out"), 1, "nowhere")
        refused(cvae("release", RELEASED, RELEASED), 1, "exists")
        unfinished = tmp_path / "unfinished"
        checkpoint.release(
            unfinished, codec.load(workdir).params, codec.load(workdir).made_by().to_dict(), {}
        )
        refused(cvae("release", unfinished, "out"), 1, "no coding tables")
        assert not (tmp_path / "out").exists()


class TestEvaluate:
    def test_a_model_from_an_archive_is_refused_in_one_line(self, cvae, workdir, tmp_path):
        c = codec.load(workdir)
        images = np.zeros((3, 12, 12, 1), np.uint8)
        (tmp_path / "a.cvae").write_bytes(c.compress(images, embed_model=True))
        (tmp_path / "b.cvae").write_bytes(c.compress(images))
        for more in ([], ["--dataset", "digits"], ["--rate-distortion"]):
            refused(cvae("evaluate", "--ckpt", "a.cvae", *more), 1, "a.cvae", "only decodes")
        refused(cvae("evaluate", "--ckpt", "b.cvae"), 3, "carries no model")

    def test_arguments_that_do_not_go_together(self, cvae):
        for arguments, word in (
            (["--ckpt", "mnist", "mnist-hq"], "several --ckpt"),
            (["--ckpt", "mnist", "--seed", "-1"], "--seed"),
            (["--ckpt", "mnist", "--figure", "x.txt"], ".png"),
            (["--ckpt", "mnist", "--json", "no/x.json"], "there is no folder no"),
            (["--ckpt", "mnist", "./mnist", "--rate-distortion"], "named twice"),
        ):
            refused(cvae("evaluate", *arguments), 2, word)

    def test_names_in_the_study_are_distinct(self):
        for paths, names in (
            (["mnist", "mnist-hq"], ["mnist", "mnist-hq"]),
            (["a/run", "b/run"], ["a-run", "b-run"]),
            (["a/x/steps/1", "b/x/steps/1", "c"], ["a-x-steps-1", "b-x-steps-1", None]),
        ):
            found = evaluate.distinct_names(paths)
            assert len(set(found)) == len(paths)
            assert [f for f, n in zip(found, names, strict=True) if n] == [n for n in names if n]

    def test_the_study_of_two_checkpoints_of_the_same_name(
        self, cvae, workdir, tmp_path, monkeypatch
    ):
        pytest.importorskip("imagecodecs")
        pytest.importorskip("bjontegaard")
        monkeypatch.setattr("cvae_jax.study.sweep.QUALITIES", (0, 50, 100))
        monkeypatch.setattr("cvae_jax.study.sweep.SEARCHED", (50,))
        for parent in ("a", "b"):
            shutil.copytree(workdir, tmp_path / parent / "run")
        status, out, err = cvae("evaluate", "--ckpt", "a/run", "b/run", "--rate-distortion")
        assert status == 0, err
        assert "- **a-run**, default quality" in out
        report = json.loads((tmp_path / "study" / "squares.json").read_text())
        assert report["comparisons"].keys() == {"a-run", "b-run"}
        assert report["command"] == "cvae evaluate --ckpt a/run b/run --rate-distortion"
        for name in ("a-run", "b-run"):
            assert (tmp_path / "study" / "squares" / f"{name}_samples.png").stat().st_size > 1000
        for line in out.splitlines():
            if line.startswith("study/"):
                assert (tmp_path / line).is_file()


def test_another_loss_as_the_readme_says(cvae, squares, tmp_path, monkeypatch):
    """A term joins RECONSTRUCTIONS and the choices; nothing else has to know its name."""

    def absolute(logits, images):
        return jnp.abs(jax.nn.sigmoid(logits) - images).sum((1, 2, 3))

    monkeypatch.setitem(losses.RECONSTRUCTIONS, "l1", absolute)
    field = next(f for f in dataclasses.fields(TrainConfig) if f.name == "reconstruction")
    choices = {**field.metadata, "choices": (*field.metadata["choices"], "l1")}
    monkeypatch.setattr(field, "metadata", choices)
    arguments = ["--workdir", "run", "--dataset", squares, *TINY, "--reconstruction", "l1"]
    status, _, err = cvae("train", *arguments)
    assert status == 0, err
    (row,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(row)["l1"] > 0
    assert (tmp_path / "run" / "loss_curves.png").stat().st_size > 1000
