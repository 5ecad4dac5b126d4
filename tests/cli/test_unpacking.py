"""Files written by their names: never outside the folder, never half."""

import itertools
import subprocess
import sys

import pytest
from conftest import ROOT
from test_files import everything_below, run_with_little_room

from cvae_jax.cli.files import unpacking
from cvae_jax.errors import ConfigError, FormatError

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
        ["CON"],
        ["deep/nul.png"],
        ["Com1.tar.gz"],
        ["lpt9 .txt"],
        ["COM\xb9"],
        ["a\u202egnp.exe"],
        ["a\u2066b"],
        ["a\u200fb"],
        ["a\u061cb"],
        ["a\x85b"],
        ["a\u2028b"],
        ["a\udcffb"],
        ["\u00e9", "e\u0301"],
        ["\u00dc/a", "u\u0308/A"],
        ["\u00dc", "u\u0308/a"],
    ],
)
def test_dangerous_names_are_refused_before_anything_is_written(tmp_path, names):
    with pytest.raises(FormatError, match="refused"):
        unpacking.extract(tmp_path / "out", ["fine", *names], itertools.repeat(b""), force=True)
    assert everything_below(tmp_path) == []


def test_extracting(tmp_path):
    out = tmp_path / "out"
    unpacking.extract(out, NAMES, [b"%d" % i for i in range(len(NAMES))], force=False)
    assert [(out / name).read_bytes() for name in NAMES] == [b"0", b"1", b"2"]
    assert everything_below(out) == ["a.png", "deep", "deep/er", "deep/er/b.png", "deep/ü.png"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(ConfigError, match="not empty"):
        unpacking.extract(out, NAMES, [b""] * len(NAMES), force=False)
    (out / "mine").write_bytes(b"kept")
    unpacking.extract(out, NAMES[:2], [b"again"] * 2, force=True)
    assert (out / "deep/er/b.png").read_bytes() == b"again"
    assert (out / "mine").read_bytes() == b"kept"
    assert everything_below(tmp_path)[0] == "out"


def test_a_failing_image_leaves_no_folder(tmp_path):
    def contents():
        yield from [b"", b""]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        unpacking.extract(tmp_path / "out", NAMES, contents(), force=False)
    assert everything_below(tmp_path) == []


def test_links_in_the_way_are_never_followed(tmp_path):
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "victim").write_bytes(b"precious")
    (out / "deep").symlink_to(outside)
    with pytest.raises(ConfigError, match="in the way"):
        unpacking.extract(out, ["deep/b.png"], [b"evil"], force=True)
    (out / "file").symlink_to(outside / "victim")
    unpacking.extract(out, ["file"], [b"new"], force=True)
    assert (out / "file").read_bytes() == b"new"
    assert everything_below(outside) == ["victim"]
    assert (outside / "victim").read_bytes() == b"precious"
    (tmp_path / "linked").symlink_to(outside)
    with pytest.raises(ConfigError, match="no folder"):
        unpacking.extract(tmp_path / "linked", ["x"], [b""], force=True)


def test_harmless_names_are_not_refused(tmp_path):
    fine = ["COM10", "console.png", "nullify", "a\u200db", "é/e", "e\u0301x/e", "COM0x", "a.con"]
    unpacking.extract(tmp_path / "out", fine, [b""] * len(fine), force=False)
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*")) == len(fine)


def test_a_killed_writers_folder_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from cvae_jax.cli.files import unpacking\n"
        "def contents():\n    yield b'half'\n    os.kill(os.getpid(), 9)\n"
        "unpacking.extract(Path(sys.argv[1]), ['a', 'b'], contents(), force=True)\n"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.is_dir()
    unpacking.extract(out, ["a"], [b""], force=False)
    assert everything_below(tmp_path) == ["out", "out/a"]


def test_errors_of_writing_name_the_file_that_is_meant(tmp_path):
    """Not its temporary, and not nothing, as the system does where the disk is full."""
    shown = run_with_little_room(
        "from cvae_jax.cli.files import unpacking\n"
        "big = [bytes(99), bytes(10**6)]\n"
        "unpacking.extract(Path('out'), ['a', 'b/c'], big, force=False)\n",
        tmp_path,
    )
    assert shown == "error: out/b/c: File too large\n"
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("way", ["c", "deep/er"])
def test_all_destinations_are_looked_at_before_the_first_file_is_moved(tmp_path, way):
    out = tmp_path / "out"
    names = ["a", "b", "c", "deep/er/d"]
    unpacking.extract(out, ["a", "b"], [b"old"] * 2, force=False)
    if way == "c":
        (out / "c").mkdir()
    else:
        (out / "deep").mkdir()
        (out / way).write_bytes(b"old")
    before = everything_below(tmp_path)
    with pytest.raises(ConfigError, match="move it away"):
        unpacking.extract(out, names, [b"new"] * 4, force=True)
    assert everything_below(tmp_path) == before
    assert (out / "a").read_bytes() == (out / "b").read_bytes() == b"old"
