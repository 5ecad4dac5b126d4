"""Files are whole or not there, and stay where they belong."""

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from cvae_jax import files
from cvae_jax.errors import ConfigError


def everything_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def run_with_little_room(code, folder):
    """What is said on standard error by code that may write files of 64 kB at most."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
    code = textwrap.indent(code, "    ")
    done = subprocess.run(
        [sys.executable, "-c",
         f"from pathlib import Path\nfrom cvae_jax import errors, files\n{limit}"
         f"def main():\n{code}\nerrors.run(main)\n"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


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
    assert len(everything_below(tmp_path)) == 2
    with files.whole(path, force=True) as file:
        file.write(b"new")
    assert everything_below(tmp_path) == ["out"]


def test_only_temporaries_of_our_dead_processes_are_removed(tmp_path, monkeypatch):
    with files.temporary(tmp_path / "out") as made:
        kept = made.name
    pid = str(os.getpid())
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1).stdout
    other = kept.replace(f".{files._host()}.", ".00000000.")
    names = [
        kept,  # of a living process
        other.replace(pid, dead.decode().strip()),  # of another machine that shares the folder
        kept.replace(".out.", ".out2."),
        "out.cvae-tmp",
        ".out.1.cvae-tmp",
        f"..{kept}",
    ]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / kept.replace(pid, dead.decode().strip())).touch()
    with files.whole(tmp_path / "out", force=True):
        pass
    assert everything_below(tmp_path) == sorted([*names, "out"])


@pytest.mark.parametrize("place", ["open", "FileIO", "chmod", "fsync", "replace"])
def test_an_interrupt_at_any_time_leaves_nothing(tmp_path, monkeypatch, place):
    """Before the temporary is made, right after, and on the way to its name."""
    path = tmp_path / "out"
    path.write_bytes(b"old")
    if place == "FileIO":
        init = files._Raw.__init__

        def stop(self, *args):
            init(self, *args)
            raise KeyboardInterrupt

        monkeypatch.setattr(files._Raw, "__init__", stop)
    else:

        def stop(*args):
            raise KeyboardInterrupt

        owner = Path if place == "chmod" else os
        monkeypatch.setattr(owner, place, stop)
    with pytest.raises(KeyboardInterrupt), files.whole(path, force=True) as file:
        file.write(b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert everything_below(tmp_path) == ["out"]


def test_a_full_disk_names_the_file(tmp_path):
    for size in (10**6, 1 << 16 | 1):  # noticed when it is written, and when it is flushed
        shown = run_with_little_room(
            f"with files.whole(Path('out'), force=True) as file:\n    file.write(bytes({size}))",
            tmp_path,
        )
        assert shown == "error: out: File too large\n"
        assert everything_below(tmp_path) == []


def test_a_name_of_any_length_has_a_temporary(tmp_path):
    for name in ("x" * 255, "\u00fc" * 127, "\U0001f600" * 63):
        with files.whole(tmp_path / name, force=False) as file:
            file.write(b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_a_fifo_is_written_into_and_can_be_no_input(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()), daemon=True)
    reader.start()
    with files.whole(fifo, force=False) as file:
        assert not file.readable()
        file.write(b"through")
    reader.join(10)
    assert got == [b"through"]
    assert fifo.is_fifo()
    with pytest.raises(ConfigError, match="also an input"):
        files.check_free(fifo, force=True, inputs=[fifo])


def test_block_devices_and_sockets_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
    with pytest.raises(ConfigError, match="a block device or a socket"):
        files.check_free(tmp_path / "socket", force=True)
    try:
        os.mknod(tmp_path / "block", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except PermissionError:
        return
    with pytest.raises(ConfigError, match="a block device or a socket"):
        files.check_free(tmp_path / "block", force=True)


def test_an_open_file_of_this_process_is_never_replaced(tmp_path):
    """As /dev/stdout: a link to a link of /proc, whatever stands behind it."""
    out = tmp_path / "out"
    with out.open("wb") as opened:
        link = tmp_path / "stdout"
        link.symlink_to(f"/proc/self/fd/{opened.fileno()}")
        if not link.exists():
            pytest.skip("no /proc")
        with files.whole(link, force=True) as file:
            file.write(b"into")
    assert link.is_symlink()
    assert out.read_bytes() == b"into"
    assert everything_below(tmp_path) == ["out", "stdout"]
