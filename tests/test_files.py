"""Files are whole or not there, and stay where they belong."""

import signal
import stat
import subprocess
import sys

import pytest
from conftest import ROOT

from cvae_jax import files
from cvae_jax.errors import ConfigError


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
