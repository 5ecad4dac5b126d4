"""Files written by their names: never outside the folder, never half."""

import pytest
from test_files import everything_below

from cvae_jax.cli import folders
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
    ],
)
def test_dangerous_names_are_refused_before_anything_is_written(tmp_path, names):
    with pytest.raises(FormatError, match="refused"):
        folders.extract(tmp_path / "out", ["fine", *names], lambda i: b"", force=True)
    assert everything_below(tmp_path) == []


def test_extracting(tmp_path):
    out = tmp_path / "out"
    folders.extract(out, NAMES, lambda i: b"%d" % i, force=False)
    assert [(out / name).read_bytes() for name in NAMES] == [b"0", b"1", b"2"]
    assert everything_below(out) == ["a.png", "deep", "deep/er", "deep/er/b.png", "deep/ü.png"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(ConfigError, match="not empty"):
        folders.extract(out, NAMES, lambda i: b"", force=False)
    (out / "mine").write_bytes(b"kept")
    folders.extract(out, NAMES[:2], lambda i: b"again", force=True)
    assert (out / "deep/er/b.png").read_bytes() == b"again"
    assert (out / "mine").read_bytes() == b"kept"
    assert everything_below(tmp_path)[0] == "out"


def test_a_failing_image_leaves_no_folder(tmp_path):
    def content(i):
        if i == 2:
            raise OSError(28, "No space left on device")
        return b""

    with pytest.raises(OSError, match="No space"):
        folders.extract(tmp_path / "out", NAMES, content, force=False)
    assert everything_below(tmp_path) == []


def test_links_in_the_way_are_never_followed(tmp_path):
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "victim").write_bytes(b"precious")
    (out / "deep").symlink_to(outside)
    with pytest.raises(ConfigError, match="in the way"):
        folders.extract(out, ["deep/b.png"], lambda i: b"evil", force=True)
    (out / "file").symlink_to(outside / "victim")
    folders.extract(out, ["file"], lambda i: b"new", force=True)
    assert (out / "file").read_bytes() == b"new"
    assert everything_below(outside) == ["victim"]
    assert (outside / "victim").read_bytes() == b"precious"
    (tmp_path / "linked").symlink_to(outside)
    with pytest.raises(ConfigError, match="no folder"):
        folders.extract(tmp_path / "linked", ["x"], lambda i: b"", force=True)
