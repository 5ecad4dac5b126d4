"""train.py and evaluate.py as processes: reports, files and one-line errors."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import RELEASED, ROOT, shared_dir
from PIL import Image

from cvae_jax.runs import keras_import


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
    for name in ("digit_3.png", "digit_7.jpg"):
        shutil.copy(shared_dir() / "seed" / name, folder)
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
        "train.py", "--workdir", tmp_path / "run", "--epochs", 1,
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
    images = np.load(shared_dir() / "seed" / "keras_reference_outputs.npz")["images"]
    np.save(tmp_path / "some.npy", images)
    done = python(
        "evaluate.py", "--ckpt", RELEASED, "--dataset", tmp_path / "some.npy", "--split", "all"
    )
    assert done.returncode == 0, done.stderr
    assert "64 images" in done.stdout
