"""What a person gets by ``pip install``: a wheel that needs no clone, and no more than is used."""

import configparser
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = ("optax", "orbax", "tensorstore", "tensorflow_datasets", "requests", "matplotlib",
         "sklearn", "h5py", "tensorboardX", "imagecodecs")  # fmt: skip


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """The package as ``pip install --target`` leaves it, from a wheel that is built here."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "cvae_jax", source / "cvae_jax")
    for name in ("mnist", "mnist-hq", "photos32"):
        shutil.copytree(ROOT / "checkpoints" / name, source / "checkpoints" / name)
    shutil.copytree(ROOT / "web", source / "web")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "--target", folder / "target",
         source],
        check=True,
    )  # fmt: skip
    shutil.rmtree(source)
    return folder / "target"


def installed(target, *arguments):
    """Python with that package, in a folder of its own; its output."""
    elsewhere = target.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-P", *map(str, arguments)],
        cwd=elsewhere, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_models_by_name_from_an_installed_wheel(target):
    code = """
import pathlib, numpy as np, cvae_jax
from cvae_jax import codec, errors
print(pathlib.Path(cvae_jax.__file__).parent)
for c in (codec.load(), codec.load("mnist"), codec.load("mnist-hq"), codec.load("photos32")):
    c.decompress(c.compress(np.zeros((1, *c.image_shape), np.uint8)))
    print(c.latent_dim)
try:
    codec.load("mnits")
except errors.CheckpointError as error:
    print(error)
"""
    place, *dims, message = installed(target, "-c", code).splitlines()
    assert place == str(target / "cvae_jax")
    assert dims == ["16", "16", "160", "1536"]
    assert message.endswith("known by name: mnist, mnist-hq, photos32")


def test_the_page_from_an_installed_wheel(target):
    """Of a model file, which has no encoder that would have to be made smaller."""
    run = ["-m", "cvae_jax"]
    installed(target, *run, "model", "mnist", "-o", "m.cvae", "-f")
    installed(target, *run, "web", "page.html", "--ckpt", "m.cvae", "-f")
    page = (target.parent / "elsewhere" / "page.html").read_text()
    assert "WebAssembly.Module" in page


def test_the_command_compresses_trains_and_measures_without_a_clone(target):
    digits = ROOT / "examples" / "digits"
    run = ["-m", "cvae_jax"]
    installed(target, *run, "compress", "--ckpt", "mnist-hq", digits, "-o", "digits.cvae", "-f")
    sizes = [
        "--latent-dim",
        2,
        "--filters",
        2,
        "--dense-width",
        4,
        "--epochs",
        1,
        "--context-steps",
        2,
    ]
    out = installed(
        target, *run, "train", "--workdir", "run", "--dataset", digits, "--batch-size", 4, *sizes
    )
    assert "best checkpoint: " in out
    out = installed(
        target, *run, "evaluate", "--ckpt", "run", "--dataset", digits, "--split", "all"
    )
    assert "10 images" in out


def test_every_room_is_in_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    rooms = {
        ".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "cvae_jax").rglob("__init__.py")
    }
    assert named == {"cvae_jax", "cvae_jax.released", "cvae_jax.web", *rooms}
    data = setup["options.package_data"]["cvae_jax.released"].split()
    released = {p.parent.name for p in (ROOT / "checkpoints").glob("*/README.md")}
    assert set(data) == {f"{name}/*" for name in released}


def test_without_the_extras_it_compresses_and_says_what_else_to_install(tmp_path):
    """A fresh process in which what only the extras install cannot be imported."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))
from cvae_jax import errors
from cvae_jax.cli import parser

def run(*argv):
    return errors.run(lambda: parser.main([str(a) for a in argv]))

assert run("compress", {str(ROOT / "examples" / "digits")!r}, "-o", "digits.cvae") == 0
assert run("decompress", "digits.cvae", "-o", "back.npy") == 0
assert run("evaluate", "--ckpt", "mnist", "--dataset", "back.npy", "--split", "all") == 0
for argv in (
    ("train", "--workdir", "run", "--dataset", "digits"),
    ("release", "run", "out"),
    ("evaluate", "--ckpt", "mnist", "--dataset", "digits"),
    ("evaluate", "--ckpt", "mnist", "--dataset", "fashion_mnist"),
    ("evaluate", "--ckpt", "mnist", "--dataset", "back.npy", "--figure", "x.png"),
    ("import-keras", "back.npy", "back.npy", "out"),
    ("evaluate", "--ckpt", "mnist", "--dataset", "back.npy", "--rate-distortion"),
):
    assert run(*argv) in (1, 2), argv
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith("error: ") and "pip install '.[" in line for line in lines)
    extras = [line.split("'.[")[1].split("]'")[0] for line in lines]
    assert extras == ["train"] * 5 + ["keras", "bench"]
