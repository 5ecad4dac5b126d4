"""Files are whole or not there, and stay where they belong."""

import signal
import stat
import subprocess
import sys

import pytest
from conftest import ROOT

from cvae_jax import files
from cvae_jax.errors import ConfigError, FormatError


def everything_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "out"
    with files.whole(path, force=False) as file:
        file.write(b"new")
        (temporary,) = tmp_path.iterdir()
        assert temporary != path
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"
    assert everything_below(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail():
        with files.whole(path, force=True) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert everything_below(tmp_path) == ["out"]


def test_outputs_that_are_in_the_way_are_refused(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(path)
    (tmp_path / "other").write_bytes(b"")
    for output, force, words in (
        (tmp_path / "other", False, "exists; -f"),
        (link, True, "also an input"),
        (tmp_path, True, "is a folder"),
        (tmp_path / "no" / "where", True, "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            files.check_free(output, force=force, inputs=[path])
    assert path.read_bytes() == b"old"


def test_a_link_as_output_is_replaced_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    with files.whole(tmp_path / "out", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "out").read_bytes() == b"new"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    code = (
        "import sys, time; from pathlib import Path; from cvae_jax import files\n"
        "with files.whole(Path(sys.argv[1]), force=True) as f:\n"
        "    f.write(bytes(10**6)); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_bytes() == b"old"


NAMES = ["a.png", "deep/er/b.png", "deep/ü.png"]


@pytest.mark.parametrize(
    "names",
    [
        ["/etc/passwd"],
        ["../a"],
        ["a/../../b"],
        ["a//b"],
        ["./a"],
        ["a/"],
        ["C:evil"],
        ["a\\b"],
        ["a\0b"],
        ["a\nb"],
        ["x" * 300],
        ["a", "a"],
        ["a", "A"],
        ["a", "a/b"],
        ["trailing."],
        ["", "b"],
    ],
)
def test_dangerous_names_are_refused_before_anything_is_written(tmp_path, names):
    with pytest.raises(FormatError, match="refused"):
        files.extract(tmp_path / "out", ["fine", *names], lambda i: b"", force=True)
    assert everything_below(tmp_path) == []


def test_extracting(tmp_path):
    out = tmp_path / "out"
    files.extract(out, NAMES, lambda i: b"%d" % i, force=False)
    assert [(out / name).read_bytes() for name in NAMES] == [b"0", b"1", b"2"]
    assert everything_below(out) == ["a.png", "deep", "deep/er", "deep/er/b.png", "deep/ü.png"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(ConfigError, match="not empty"):
        files.extract(out, NAMES, lambda i: b"", force=False)
    (out / "mine").write_bytes(b"kept")
    files.extract(out, NAMES[:2], lambda i: b"again", force=True)
    assert (out / "deep/er/b.png").read_bytes() == b"again"
    assert (out / "mine").read_bytes() == b"kept"
    assert everything_below(tmp_path)[0] == "out"


def test_a_failing_image_leaves_no_folder(tmp_path):
    def content(i):
        if i == 2:
            raise OSError(28, "No space left on device")
        return b""

    with pytest.raises(OSError, match="No space"):
        files.extract(tmp_path / "out", NAMES, content, force=False)
    assert everything_below(tmp_path) == []


def test_links_in_the_way_are_never_followed(tmp_path):
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "victim").write_bytes(b"precious")
    (out / "deep").symlink_to(outside)
    with pytest.raises(ConfigError, match="in the way"):
        files.extract(out, ["deep/b.png"], lambda i: b"evil", force=True)
    (out / "file").symlink_to(outside / "victim")
    files.extract(out, ["file"], lambda i: b"new", force=True)
    assert (out / "file").read_bytes() == b"new"
    assert everything_below(outside) == ["victim"]
    assert (outside / "victim").read_bytes() == b"precious"
    (tmp_path / "linked").symlink_to(outside)
    with pytest.raises(ConfigError, match="no folder"):
        files.extract(tmp_path / "linked", ["x"], lambda i: b"", force=True)
