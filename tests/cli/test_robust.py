"""What careless or hostile hands give to the command: one line each, and nothing written."""

import gc
import io
import os
import signal
import subprocess
import sys

import command_samples
import numpy as np
import pytest
from command_samples import refuses
from conftest import ROOT
from PIL import Image

from cvae_jax import data, errors
from cvae_jax.cli.commands import info
from cvae_jax.cli.reports import Report

images, folder = command_samples.images, command_samples.folder


INTERRUPTED = """
import signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "cvae_jax.cli.parser":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


def npy(shape, dtype="<i8", content=b""):
    """An .npy file that claims this shape."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


LABELS = {
    "a number": npy((), content=bytes(8)),
    "pairs": npy((12, 2), content=bytes(192)),
    "strings": npy((12,), "<U1", bytes(48)),
    "fractions": npy((12,), "<f8", bytes(96)),
    "truths": npy((12,), "|b1", bytes(12)),
    "negative": npy((12,), content=b"\xff" * 96),
    "too large": npy((12,), content=b"\x01" * 96),
    "too few": npy((11,), content=bytes(88)),
    "none": npy((0,)),
    "a lie": npy((10**12,), content=bytes(96)),
    "a larger lie": npy((10**30,), content=bytes(96)),
    "negative length": npy((-1,), content=bytes(96)),
    "objects": npy((12,), "|O", bytes(96)),
    "half a header": npy((12,))[:20],
    "empty": b"",
    "no array": b"hello",
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_cannot_be_stored_are_refused_before_anything_is_written(
    cvae, tmp_path, images, kind
):
    np.save("images.npy", images)
    (tmp_path / "labels.npy").write_bytes(LABELS[kind])
    (tmp_path / "x.cvae").write_bytes(b"precious")
    argv = ["compress", "images.npy", "--labels", "labels.npy", "-o", "x.cvae", "-f"]
    refuses(cvae, 1, "labels.npy: ", argv=argv)
    assert (tmp_path / "x.cvae").read_bytes() == b"precious"


@pytest.mark.parametrize("command", ["decompress", "info", "verify"])
def test_a_single_image_costs_no_more_than_it_may(cvae, tmp_path, command):
    """The limits hold for it as for an archive, and --max-cost is of both."""
    image = tmp_path / "one.cvae"
    image.write_bytes((ROOT / "tests/golden/v2_mnist_single.cvae").read_bytes())
    status, out, err = cvae(command, image, "--max-cost", "1e-5")
    assert status == 3
    assert "is the limit" in out + err
    assert cvae(command, image)[0] == 0


def test_names_that_the_locale_cannot_write_are_one_line(cvae, tmp_path, images):
    data_of = {"é.png": images[0], "a.png": images[1]}
    for name, image in data_of.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "in" / name)
    assert cvae("compress", "in", "-o", "x.cvae")[0] == 0
    ascii_only = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for more in ([], ["--keep-going"]):
        done = subprocess.run(
            [sys.executable, "-m", "cvae_jax", "decompress", "x.cvae", "-o", "out", *more],
            env={**os.environ, **ascii_only, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: no file can be called '\\xe9.png'")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["cvae_jax", "cvae_jax.cli"])
def test_an_interrupt_while_the_command_is_imported_is_no_traceback(tmp_path, module):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_of_a_running_command_is_one_line(cvae, monkeypatch):
    monkeypatch.setattr(info, "info", lambda args: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # as cli.start leaves it
    try:
        assert cvae("info", "x.cvae") == (130, "", "interrupted\n")
    finally:
        signal.signal(signal.SIGINT, before)


def test_garbage_is_collected_while_a_command_works(cvae, monkeypatch):
    seen = []
    monkeypatch.setattr(info, "info", lambda args: seen.append(gc.isenabled()) or Report({}, []))
    gc.disable()  # as cli.start leaves it
    try:
        assert cvae("info", "x.cvae")[0] == 0
        assert seen == [True]
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()


def test_labels_in_idx_files(cvae, tmp_path, images):
    np.save("images.npy", images)
    for shape, status in (((12,), 0), ((11,), 1), ((12, 1, 1), 1)):
        sizes = b"".join(n.to_bytes(4, "big") for n in shape)
        content = b"\0\0\x08" + bytes([len(shape)]) + sizes + bytes(range(shape[0]))
        (tmp_path / "labels.idx").write_bytes(content)
        argv = ["compress", "images.npy", "--labels", "labels.idx", "-o", "x.cvae", "-f"]
        assert cvae(*argv)[0] == status
    assert cvae("decompress", "x.cvae", "--labels", "back.npy", "-o", "x.npy")[0] == 0
    assert np.load("back.npy").tolist() == list(range(12))


def test_labels_that_are_not_there_and_those_of_damaged_files(cvae, tmp_path, images):
    np.save("images.npy", images)
    assert cvae("compress", "images.npy", "-o", "x.cvae")[0] == 0
    refuses(cvae, 1, "no labels", argv=["decompress", "x.cvae", "--labels", "l.npy"])
    argv = ["decompress", "missing.cvae", "--labels", "l.npy", "--keep-going"]
    refuses(cvae, 2, "--labels and --keep-going", argv=argv)  # before anything is read
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images.npy", "x.cvae"]


@pytest.mark.parametrize("flag", ["--quality", "--target-bytes", "--target-psnr", "--min-psnr"])
@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-1", "x", "1e999"])
def test_numbers_that_are_none_are_refused_before_anything_is_read(cvae, flag, number):
    refuses(cvae, 2, argv=["compress", "missing.png", f"{flag}={number}"])


@pytest.mark.parametrize("number", ["nan", "-1", "10", "1.5", "9" * 5000])
def test_efforts_that_are_none(cvae, folder, number):
    refuses(cvae, 2, "effort", argv=["compress", folder, f"--effort={number}"])


def test_names_that_are_no_text(cvae, tmp_path, images):
    name = os.fsdecode(b"\xff.png")
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / name).write_bytes(data.encode_image(images[0]))
    except OSError:
        pytest.skip("this file system has only names that are text")
    (tmp_path / "in" / "b.png").write_bytes(data.encode_image(images[1]))
    refuses(cvae, 1, r"\udcff.png", argv=["compress", "in"])
    assert not (tmp_path / "in.cvae").exists()
    assert cvae("compress", "in", "--no-names")[0] == 0
    for argv in (
        ["compress", f"in/{name}", "-o", "x.cvae"],
        ["compress", "in", "-o", name],
        ["compress", "in", "-o", "x.cvae", "--labels", name],
        ["verify", "in.cvae", name],
        ["info", name, "-j"],
    ):
        status, out, err = cvae(*argv)
        assert status == 2
        assert r"\udcff" in err
        out.encode()
        err.encode()


def test_names_that_are_no_text_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cvae_jax", "verify", b"\xff.cvae"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert b"Traceback" not in done.stderr


def test_an_error_is_one_line_whatever_is_in_it(capsys):
    for error, line in (
        (errors.DataError("a\nb\x1b[2J\u202e\udcff"), r"error: a\nb\x1b[2J\u202e\udcff"),
        (OSError(28, "No space left on device", "x\ny"), r"error: x\ny: No space left on device"),
        (MemoryError("9 TiB"), "error: out of memory (9 TiB)"),
        (KeyboardInterrupt(), "interrupted"),
    ):

        def fail(error=error):
            raise error

        assert errors.run(fail) in (1, 130)
        assert capsys.readouterr().err == f"{line}\n"
    with pytest.raises(ZeroDivisionError):  # a fault of ours is not hidden
        errors.run(lambda: 1 // 0)


def shell(line, folder):
    """Exit status, output and errors of a command of the shell, in which ``cvae`` is ours."""
    start = f'cvae() {{ {sys.executable} -m cvae_jax "$@"; }}; '
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", start + line], cwd=folder, env=env, capture_output=True, timeout=100
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_reader_that_is_gone_ends_it_silently(folder, tmp_path):
    line = f"cvae compress {folder} -o a.cvae; cvae info a.cvae | false; echo ${{PIPESTATUS[0]}}"
    _, out, err = shell(line, tmp_path)
    assert (out.splitlines()[-1], err) == ("141", "")
    assert shell("cvae --help | false", tmp_path)[1:] == ("", "")


def test_closed_standard_streams(folder, tmp_path):
    image = folder / "digit_1.png"
    status, _, err = shell("cvae compress - <&-", tmp_path)
    assert (status, err) == (1, "error: standard input: empty\n")
    status, out, err = shell(f"cvae compress {image} -o one.cvae >&-", tmp_path)
    assert (status, out, err) == (0, "", "")
    assert 10 < (tmp_path / "one.cvae").stat().st_size < 40  # and no report in it
    for output in ("-", "/dev/stdout"):
        status, _, err = shell(f"cvae compress {image} -o {output} >&-", tmp_path)
        assert (status, err.startswith("error: standard output is closed")) == (2, True)
    assert shell("cvae info missing.cvae 2>&-", tmp_path)[0] == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["compress", ""],
        ["compress", "images.npy", "--labels", ""],
        ["compress", "images.npy", "--ckpt="],
        ["compress", "images.npy", "-o", ""],
        ["decompress", "", "--ckpt", ""],
        ["evaluate", "--ckpt", "mnist", "--json", ""],
    ],
)
def test_empty_arguments(cvae, argv, tmp_path, images):
    np.save("images.npy", images)
    refuses(cvae, 2, "nothing is given", argv=argv)
    assert [p.name for p in tmp_path.iterdir()] == ["images.npy"]


def test_labels_in_a_fifo_do_not_hang(cvae, images):
    np.save("images.npy", images)
    os.mkfifo("labels")
    refuses(cvae, 1, "no regular file", argv=["compress", "images.npy", "--labels", "labels"])
