"""Errors name the file that is at fault, once, and say what to do about it."""

import command_samples
import numpy as np
import pytest
from command_samples import refuses
from conftest import RELEASED, ROOT, failure

from cvae_jax import codec, reader
from cvae_jax.errors import DataError, FormatError, ModelMismatchError, naming

images, folder = command_samples.images, command_samples.folder
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture
def files(cvae, tmp_path):
    """Files of digits, good and bad, in the fresh folder of the command."""
    cvae("compress", DIGITS, "-o", "good.cvae")
    cvae("compress", DIGITS / "digit_1.png", "-o", "one.cvae")
    cvae("model", "mnist", "-o", "model.cvae")
    for name in ("good", "model", "one"):
        content = (tmp_path / f"{name}.cvae").read_bytes()
        (tmp_path / f"{name}_cut.cvae").write_bytes(content[:-1])
    return tmp_path


def test_a_name_is_put_before_an_error_once():
    def fail():
        with naming("outer"), naming("inner"):
            raise DataError("no good")

    assert failure(DataError, fail) == "inner: no good"


@pytest.mark.parametrize("module", [codec, reader])
def test_a_damaged_model_file_is_named(files, module):
    assert failure(FormatError, module.load, "model_cut.cvae").startswith("model_cut.cvae: trunc")
    assert failure(FormatError, module.load, "good.cvae").startswith("good.cvae: ")


@pytest.mark.parametrize("open_file", [codec.load(RELEASED).open, reader.open])
def test_opening_names_the_file_and_a_single_images_file_is_called_so(files, open_file):
    assert failure(FormatError, open_file, "good_cut.cvae").startswith("good_cut.cvae: trunc")
    message = failure(FormatError, open_file, "one.cvae")
    assert message.startswith("one.cvae: it holds a single image, which decompress reads")


@pytest.mark.parametrize("command", ["decompress", "info"])
def test_the_file_at_fault_is_named_of_input_and_checkpoint(cvae, files, command):
    for name in ("good_cut.cvae", "one_cut.cvae", DIGITS / "digit_1.png"):
        refuses(cvae, 3, f"error: {name}: ", argv=[command, name])
    line = cvae(command, "good_cut.cvae")[2]
    assert line.endswith("; --keep-going recovers what is intact\n") is (command == "decompress")
    argv = [command, "good.cvae", "--ckpt", "model_cut.cvae"]
    assert "--keep-going" not in cvae(*argv)[2]
    refuses(cvae, 3, "error: model_cut.cvae: trunc", argv=argv)
    argv = [command, "good.cvae", "--ckpt", "mnist-hq"]
    refuses(cvae, 5, "error: good.cvae: compressed with another model", argv=argv)
    refuses(cvae, 1, "error: no checkpoint at", argv=[command, "good.cvae", "--ckpt", "no"])


def test_a_file_of_an_unknown_model_says_so(cvae, files, monkeypatch):
    cvae("compress", DIGITS, "-o", "fine.cvae", "--ckpt", "mnist-hq")
    argv = ["concat", "good.cvae", "fine.cvae", "-o", "x.cvae"]
    refuses(cvae, 5, "fine.cvae: archives of different models cannot be joined", argv=argv)
    one = (files / "one.cvae").read_bytes()
    monkeypatch.setattr("cvae_jax.runs.find.RELEASED", ())
    words = "no released model made it; name the checkpoint that did with --ckpt"
    for name in ("good.cvae", "one.cvae"):
        argv = ["decompress", name, "-o", "x.npy"]
        refuses(cvae, 5, f"error: {name}: {words}", argv=argv)
        assert cvae("verify", name) == (5, f"{name}: {words}\n", "")
    assert failure(ModelMismatchError, reader.decompress, one) == words
    assert not np.any([path.suffix == ".npy" for path in files.iterdir()])


def test_help_says_what_ckpt_takes(cvae):
    """A model file reads files; it makes none."""
    for command in ("decompress", "info", "verify"):
        shown = " ".join(cvae(command, "--help")[1].split())
        assert "or a model file (default: the file's own, or the released" in shown
    shown = " ".join(cvae("compress", "--help")[1].split())
    assert "or its name (default: mnist)" in shown
    assert "model file" not in shown
