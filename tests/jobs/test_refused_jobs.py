"""Jobs that are refused, and why; what is another job than the one begun."""

import os
import shutil

import numpy as np
import pytest
from job_samples import (
    contents,
)

from cvae_jax.data.sources.source import ChangedError
from cvae_jax.jobs.collection import Collection, Reading

pytest_plugins = ["job_samples"]


def test_another_job_is_refused(cvae, inputs, tmp_path):
    argv = ("compress", inputs / "a.npy", "-o", "y@2.cvae")
    assert cvae(*argv)[0] == 0
    before = contents(tmp_path)
    status, _, err = cvae(*argv, "-q", 30)
    assert (status, contents(tmp_path)) == (2, before)
    assert "begun with other quality, None before, 30.0 now; -f removes" in err
    status, _, err = cvae("compress", inputs / "b.npy", "-o", "y@2.cvae")
    assert status == 2
    assert "begun with other images, 300 before, 270 now" in err
    assert cvae(*argv, "-q", 30, "-f")[0] == 0
    assert contents(tmp_path) != before


@pytest.mark.parametrize("folder", [False, True])
def test_a_replaced_input_of_the_same_size_is_another_job(cvae, inputs, tmp_path, folder):
    given = tmp_path / "given"
    if folder:
        given.mkdir()
        for name in ("00.png", "01.png"):
            shutil.copy(inputs / "c" / name, given)
        replaced = given / "01.png"
        content = replaced.read_bytes()
    else:
        given = replaced = tmp_path / "given.npy"
        np.save(given, np.load(inputs / "a.npy")[:20])
        content = given.read_bytes()[:-1] + b"\xff"
    argv = ("compress", given, "-o", "y@2.cvae")
    assert cvae(*argv)[0] == 0
    before = replaced.stat()
    replaced.write_bytes(content)
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    status, _, err = cvae(*argv)
    assert status == 2
    assert "begun with other inputs" in err
    assert cvae(*argv, "-f")[0] == 0
    assert cvae(*argv)[0] == 0


def test_force_begins_anew(cvae, inputs):
    argv = ("compress", inputs / "a.npy", "-o", "y@2.cvae")
    for more, there in [((), False), ((), True), (("-f",), False)]:
        status, out, _ = cvae(*argv, *more)
        assert status == 0
        assert ("nothing to do" in out) == there


def test_shards_are_written_or_refused(cvae, inputs, tmp_path):
    (tmp_path / "w@2.cvae").touch()
    for output, more, word in [
        ("nosuffix", 2, "NAME.cvae"),
        ("w.cvae", 2, "is a file"),
        ("w.cvae", 100_000, "1 to 99999"),
    ]:
        status, _, err = cvae("compress", inputs / "a.npy", "-o", output, "--shards", more)
        assert status == 2
        assert word in err
    assert [path.name for path in tmp_path.iterdir()] == ["w@2.cvae"]
    assert cvae("compress", inputs / "a.npy", "-o", "w.cvae", "--shards", 3)[0] == 0
    assert len([*tmp_path.glob("w-*-of-00003.cvae")]) == 3


@pytest.mark.parametrize("names", [["d1/0.png", "d2/0.png"], [b"d1/\xff.png"]])
def test_names_that_cannot_be_unpacked_are_not_packed(cvae, inputs, tmp_path, names):
    folders = {}
    for name in map(os.fsdecode, names):
        path = tmp_path / name
        path.parent.mkdir()
        try:
            shutil.copy(inputs / "c" / "00.png", path)
        except OSError:
            pytest.skip("the file system has no such names")
        folders[path.parent] = None
    argv = ("compress", *folders, "-o", "y@1.cvae")
    status, _, err = cvae(*argv)
    assert (status, err.count("\n")) == (1, 1)
    assert "--no-names" in err
    assert not [*tmp_path.glob("y*")]
    assert cvae(*argv, "--no-names")[0] == 0


def test_an_input_that_is_cut_short_is_no_damaged_image(inputs, tmp_path):
    path = tmp_path / "a.npy"
    shutil.copy(inputs / "a.npy", path)
    collection = Collection.of([str(path)], Reading((28, 28, 1)))
    parts = collection.parts(0, len(collection), 100)
    assert len(next(parts).images) == 100
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ChangedError, match="ends too early"):
        list(parts)


def test_inputs_by_two_names_are_refused(cvae, inputs, tmp_path):
    shutil.copy(inputs / "a.npy", tmp_path / "a.npy")
    os.link(tmp_path / "a.npy", tmp_path / "hard.npy")
    os.symlink(tmp_path / "a.npy", tmp_path / "soft.npy")
    os.symlink(inputs / "c", tmp_path / "d")
    for pair in [
        ("a.npy", "hard.npy"),
        ("soft.npy", "./a.npy"),
        ("a.npy", "../{tmp_path.name}/a.npy"),
        ("*.npy",),
        ("d", inputs / "c"),
    ]:
        pair = [str(each).replace("{tmp_path.name}", tmp_path.name) for each in pair]
        status, _, err = cvae("compress", *pair, "-o", "y@2.cvae")
        assert (status, err.count("\n")) == (2, 1)
        assert "which is given as well" in err
    shutil.copy(inputs / "a.npy", tmp_path / "copy.npy")  # as many images as it says
    assert cvae("compress", "a.npy", "copy.npy", "-o", "y@2.cvae")[0] == 0


@pytest.mark.parametrize("more", [(), ("-f",)])
def test_a_set_without_images_is_refused(cvae, tmp_path, more):
    (tmp_path / "c").mkdir()
    for k in range(4):
        (tmp_path / "c" / f"{k}.png").write_bytes(b"no image")
    for _ in range(2):
        status, _, err = cvae("compress", "c", "-o", "y@2.cvae", *more)
        assert (status, err.count("\n")) == (1, 1)
        assert "none of the 4 images could be decoded; see y-*-of-00002.cvae.skipped.jsonl" in err
        assert sorted(path.name for path in tmp_path.glob("y*")) == [
            "y-00000-of-00002.cvae.skipped.jsonl",
            "y-00001-of-00002.cvae.skipped.jsonl",
            "y-of-00002.cvae.job.json",
        ]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--labels", "l.npy"], "--labels"),
        (["--target-bytes", 5], "--target-bytes"),
        (["--min-psnr", 5], "--min-psnr"),
        (["--shards", 3], "--shards"),
    ],
)
def test_what_takes_all_images_is_refused(cvae, inputs, more, word):
    status, _, err = cvae("compress", inputs / "a.npy", "-o", "y@2.cvae", *more)
    assert status == 2
    assert word in err


def test_impossible_jobs_are_refused(cvae, inputs, tmp_path):
    for argv, word in [
        (["compress", inputs / "a.npy", "-o", "y@301.cvae"], "301 shards for 300 images"),
        (["compress", inputs / "a.npy", "-o", "y@2.npy"], "end in .cvae"),
        (["compress", inputs / "a.npy", inputs / "?.npy", "-o", "y@2.cvae"], "given twice"),
        (["compress", inputs / "a.npy", "-o", "y.cvae", "--jobs", 2], "--shards"),
        (["compress", "none*.npy", "-o", "y@2.cvae"], "no such file"),
        (["job", "compress", inputs / "a.npy", "-o", "y.cvae"], "NAME@8.cvae"),
    ]:
        status, _, err = cvae(*argv)
        assert status in (1, 2)
        assert word in err
    assert not [*tmp_path.iterdir()]
