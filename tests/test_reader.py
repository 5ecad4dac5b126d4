"""Reading files where JAX is not installed, and without it where it is: the same pixels."""

import json
import shutil
import subprocess
import sys

import lean
import numpy as np
import pytest
from conftest import RELEASED, ROOT
from PIL import Image

from cvae_jax import codec, data, reader
from cvae_jax.errors import CheckpointError, DataError, FormatError, ModelMismatchError
from cvae_jax.exact import by_jax, by_numpy, quickest

DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "test")[:12]


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    """An archive, a self-contained one, a damaged one, a single image, and what is in them."""
    folder, c = tmp_path_factory.mktemp("files"), codec.load(RELEASED)
    archive = c.compress(images, names=[f"{i}.png" for i in range(12)], labels=range(12))
    damaged = bytearray(archive)
    damaged[20] ^= 1  # in the header, of which the index has a copy
    for name, content in {
        "archive": archive,
        "own": c.compress(images, embed_model=True),
        "damaged": bytes(damaged),
        "one": c.compress(images[3]),
    }.items():
        (folder / f"{name}.cvae").write_bytes(content)
    return folder, c.decompress(archive)


@pytest.fixture(scope="module")
def light(tmp_path_factory, files):
    made = lean.Lean(tmp_path_factory.mktemp("lean"))
    for path in files[0].iterdir():
        shutil.copy(path, made.folder)
    return made


class TestWithoutJax:
    """In an environment in which it is not installed."""

    def test_there_is_none(self, light):
        for name in lean.FORBIDDEN:
            assert "ModuleNotFoundError" in light.python("-c", f"import {name}", status=1)[1]

    @pytest.mark.parametrize("name", ["archive", "own"])
    def test_archives(self, light, files, name):
        light.cvae("decompress", f"{name}.cvae", "-o", f"{name}.npy", "-f")
        assert np.array_equal(np.load(light.folder / f"{name}.npy"), files[1])
        light.cvae("decompress", f"{name}.cvae", "-o", f"{name}/", "-f")
        found = sorted((light.folder / name).iterdir(), key=lambda path: int(path.stem))
        levels = [np.asarray(Image.open(path))[..., None] for path in found]
        assert np.array_equal(levels, files[1])
        assert "intact, 12 images" in light.cvae("verify", f"{name}.cvae")[0]
        assert json.loads(light.cvae("info", "-j", f"{name}.cvae")[0])["break_even"]["PNG"]

    def test_a_single_image(self, light, files):
        light.cvae("decompress", "one.cvae", "-o", "one.png", "-f")
        found = np.asarray(Image.open(light.folder / "one.png"))[..., None]
        assert np.array_equal(found, files[1][3])
        light.cvae("verify", "one.cvae")
        assert "from" in light.cvae("info", "one.cvae")[0]

    def test_what_damage_leaves(self, light, files):
        assert "damaged" in light.cvae("decompress", "damaged.cvae", "-o", "x", status=3)[1]
        argv = ["decompress", "damaged.cvae", "--keep-going", "-o", "kept.npy", "-f"]
        assert "fault: " in light.cvae(*argv, status=3)[0]
        assert np.array_equal(np.load(light.folder / "kept.npy"), files[1])

    def test_joined_and_model_files(self, light, files):
        light.cvae("concat", "own.cvae", "own.cvae", "-o", "two.cvae", "-f")
        assert "24 images" in light.cvae("verify", "two.cvae")[0]
        light.cvae("model", "mnist", "-o", "model.cvae", "-f")
        light.cvae("decompress", "archive.cvae", "--ckpt", "model.cvae", "-o", "m.npy", "-f")
        assert np.array_equal(np.load(light.folder / "m.npy"), files[1])

    def test_from_python(self, light, files):
        code = """
import sys, numpy as np
from cvae_jax import reader
with reader.open("archive.cvae") as archive:
    assert len(archive) == 12 and archive.names()[2] == "2.png" and archive.labels()[2] == 2
    some = np.stack([archive[3], *archive[5:7], archive[-1]])
whole = reader.decompress(open("own.cvae", "rb").read())
model = reader.load("mnist")
one = reader.decompress(open("one.cvae", "rb").read(), model)
np.savez("python.npz", some=some, whole=whole, one=one)
"""
        light.python("-c", code)
        found = np.load(light.folder / "python.npz")
        assert np.array_equal(found["some"], files[1][[3, 5, 6, 11]])
        assert np.array_equal(found["whole"], files[1])
        assert np.array_equal(found["one"], files[1][3:4])

    def test_what_needs_it_says_so_in_one_line(self, light):
        for extra, *argv in (
            ["codec", "compress", "x.png"],
            ["train", "calibrate", "mnist"],
            ["train", "evaluate", "--ckpt", "mnist"],
            ["bench", "evaluate", "--ckpt", "mnist", "--rate-distortion"],
            ["train", "train", "--workdir", "x"],
            ["train", "release", "x", "y"],
            ["keras", "import-keras", "x.h5", "y.h5", "z"],
        ):
            err = light.cvae(*argv, status=1)[1]
            assert f"needs the package jax: pip install '.[{extra}]' in the clone" in err
            assert err.startswith("error: ")
            assert err.count("\n") == 1
        light.python("-c", "from cvae_jax import codec", status=1)
        code = "try: from cvae_jax import codec\nexcept ImportError as error: print(error)"
        assert "pip install '.[codec]'" in light.python("-c", code)[0]


@pytest.mark.parametrize(
    "argv",
    [
        ("decompress", "one.cvae", "-o", "light.png", "-f"),
        ("decompress", "archive.cvae", "-o", "light/", "-f"),
        ("decompress", "own.cvae", "-o", "light.npy", "-f"),
        ("info", "one.cvae"),
        ("info", "archive.cvae"),
        ("verify", "one.cvae", "archive.cvae", "own.cvae"),
        ("concat", "own.cvae", "own.cvae", "-o", "two.cvae", "-f"),
        ("model", "mnist", "-o", "model.cvae", "-f"),
    ],
)
def test_small_files_are_read_without_importing_jax(files, monkeypatch, argv):
    monkeypatch.chdir(files[0])
    loaded = {name.split(".")[0] for name in lean.modules_of(*argv)}
    assert not loaded & set(lean.FORBIDDEN)
    assert "cvae_jax" in loaded


def test_importing_the_reader_imports_no_jax():
    code = "import sys, cvae_jax.reader; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert not {name.split(".")[0] for name in done.stdout.split()} & set(lean.FORBIDDEN)


class TestWhichDecoder:
    def test_much_to_decode_is_compiled_and_gives_the_same(self, files, monkeypatch):
        content = (files[0] / "archive.cvae").read_bytes()
        made = []

        def counted(integers):
            made.append(integers)
            return quickest.compiled(integers)

        files_of = reader.load(RELEASED).files
        each = files_of.decoder.architecture.multiply_adds()
        monkeypatch.setattr(quickest, "WORTH_STARTING", 11 * each)
        model = reader.Model(files_of, compiled=counted)
        assert np.array_equal(reader.decompress(content, model), files[1])
        assert len(made) == 1  # it was known that there are twelve
        model = reader.Model(files_of, compiled=counted)
        with reader.open(files[0] / "archive.cvae", model) as archive:
            counts = []
            for i in (*range(12), 3):
                assert np.array_equal(archive[i], files[1][i])
                counts.append(len(made))
        assert counts == [1] * 11 + [2] * 2  # it turned out at the twelfth

    def test_a_codec_decodes_few_images_without_compiling(self, files, monkeypatch):
        made = []
        monkeypatch.setattr(
            by_jax, "decoder", lambda found: made.append(found) or by_numpy.decoder(found)
        )
        c = codec.load(RELEASED)
        content = (files[0] / "one.cvae").read_bytes()
        assert np.array_equal(c.decompress(content), files[1][3:4])
        assert not made
        each = c.file_model.decoder.architecture.multiply_adds()
        many = np.zeros((quickest.WORTH_COMPILING // each + 1, c.latent_dim), np.int32)
        c.decode_symbols(many, 1)
        assert len(made) == 1

    @pytest.mark.parametrize("fault", ["no JAX", "no device", "no device at the first call"])
    def test_without_a_usable_jax_numpy_does_all(self, files, monkeypatch, fault):
        def unusable(integers):
            if fault == "no JAX":
                raise ModuleNotFoundError("No module named 'jax'", name="jax")
            if fault == "no device":
                raise RuntimeError("Unknown backend")
            return lambda inputs: 1 // 0

        monkeypatch.setattr(quickest, "WORTH_STARTING", 0)
        model = reader.Model(reader.load(RELEASED).files, compiled=unusable)
        content = (files[0] / "archive.cvae").read_bytes()
        assert np.array_equal(reader.decompress(content, model), files[1])


class TestModels:
    def test_bytes_of_any_kind_and_nothing_else(self, files):
        content = (files[0] / "one.cvae").read_bytes()
        for kind in (bytearray, memoryview):
            assert np.array_equal(reader.decompress(kind(content)), files[1][3:4])
            with pytest.raises(FormatError):
                reader.decompress(kind(b""))
        for wrong in ("one.cvae", files[0] / "one.cvae", None, [1, 2]):
            with pytest.raises(DataError, match="expected the bytes of a file, not"):
                reader.decompress(wrong)

    def test_what_reading_does_not_take_may_be_missing(self, tmp_path, files):
        shutil.copytree(RELEASED, tmp_path / "mine")
        (tmp_path / "mine" / "params.safetensors").unlink()
        content = (files[0] / "archive.cvae").read_bytes()
        assert np.array_equal(reader.decompress(content, tmp_path / "mine"), files[1])

    def test_a_damaged_decoder_is_noticed(self, tmp_path):
        shutil.copytree(RELEASED, tmp_path / "mine")
        path = tmp_path / "mine" / "decoder.bin"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(CheckpointError, match=r"decoder\.bin is not what was saved"):
            reader.load(tmp_path / "mine")

    def test_another_model_and_none(self, tmp_path, files):
        content = (files[0] / "archive.cvae").read_bytes()
        with pytest.raises(ModelMismatchError):
            reader.decompress(content, "mnist-hq")
        with pytest.raises(FormatError, match="carries no model"):
            reader.load(files[0] / "archive.cvae")
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            reader.open(files[0] / "archive.cvae", tmp_path / "none")
