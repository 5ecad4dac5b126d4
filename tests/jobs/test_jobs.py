"""Jobs: whoever does the work, and however often it is stopped, the files are the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from job_samples import (
    SHARDS,
    WAIT,
    command,
    contents,
    environment,
    has_processes,
    job,
    killed_and_started_again,
    run,
    until,
)

from cvae_jax import files, reader
from cvae_jax.data.sources.source import ChangedError
from cvae_jax.jobs.collection import Collection, Reading

pytest_plugins = ["job_samples"]


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_make_the_same_files(inputs, expected, tmp_path, processes):
    said = run("job", *job(inputs, tmp_path, "--jobs", processes))
    assert contents(tmp_path) == expected
    assert "2 images could not be decoded" in said


def test_the_set_is_the_collection(inputs, expected, tmp_path):
    for name, content in expected.items():
        (tmp_path / name).write_bytes(content)
    run("compress", inputs / "a.npy", "-o", tmp_path / "a.cvae")
    with reader.open(tmp_path / "x@*.cvae") as archives, reader.open(tmp_path / "a.cvae") as a:
        assert len(archives) == 598
        np.testing.assert_array_equal(archives[:300], a.read())
    run("decompress", tmp_path / f"x@{SHARDS}.cvae", "-o", tmp_path / "x.npy")
    run(
        "decompress", tmp_path / f"x@{SHARDS}.cvae", "-o", tmp_path / f"y@{SHARDS}.npy", "--jobs", 2
    )
    parts = [np.load(path) for path in sorted(tmp_path.glob("y-*.npy"))]
    np.testing.assert_array_equal(np.concatenate(parts), np.load(tmp_path / "x.npy"))
    run("concat", tmp_path / f"x@{SHARDS}.cvae", "-o", tmp_path / "joined.cvae")
    with reader.open(tmp_path / "joined.cvae") as joined:
        np.testing.assert_array_equal(joined.read(), np.load(tmp_path / "x.npy"))


def test_what_cannot_be_decoded_is_reported(expected):
    (report,) = [content for name, content in expected.items() if name.endswith(".skipped.jsonl")]
    lines = [json.loads(line) for line in report.splitlines()]
    assert [(line["image"], line["name"]) for line in lines] == [(573, "03.png"), (581, "11.png")]
    assert "truncated" in lines[1]["reason"]


def test_a_killed_worker_ends_the_job_and_the_same_command_goes_on(inputs, expected, tmp_path):
    argv = ("job", *job(inputs, tmp_path, "--jobs", 2))
    said = killed_and_started_again(argv, tmp_path, expected)
    assert "was killed by SIGKILL" in said


def test_an_interrupt_ends_every_process(inputs, expected, tmp_path):
    argv = ("job", *job(inputs, tmp_path, "--jobs", 2))
    started = subprocess.Popen(
        command(*argv), env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: [*tmp_path.glob(".x-0*tmp")])
    os.killpg(started.pid, signal.SIGINT)  # as Ctrl-C does
    said = started.communicate(timeout=WAIT)[1]
    assert (started.returncode, said) == (130, "interrupted\n")
    assert not [*tmp_path.glob(".*")]
    until(lambda: not has_processes(started.pid))
    run(*argv)
    assert contents(tmp_path) == expected


def test_finished_shards_are_kept_and_damaged_ones_made_anew(inputs, expected, tmp_path):
    run(*job(inputs, tmp_path))
    kept, damaged = (tmp_path / f"x-0000{k}-of-00005.cvae" for k in (1, 2))
    before = kept.stat().st_mtime_ns
    content = bytearray(damaged.read_bytes())
    content[200] ^= 1
    damaged.write_bytes(content)
    (tmp_path / "x-00004-of-00005.cvae").unlink()
    (tmp_path / "x-00003-of-00005.cvae").write_bytes(b"")
    run(*job(inputs, tmp_path))
    assert contents(tmp_path) == expected
    assert kept.stat().st_mtime_ns == before


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
        assert ("2 were there" in out) == there


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


def test_patterns_mean_the_same_with_and_without_shards(cvae, inputs, tmp_path):
    for name in ("d1", "d2"):
        (tmp_path / name).mkdir()
        shutil.copy(inputs / "c" / "00.png", tmp_path / name / f"{name}.png")
    (tmp_path / "e.txt").touch()
    for pattern in ("d*", "d*/*.png", "d*/**"):
        for argv in (["-o", "one.cvae", "-f"], ["-o", "set@2.cvae", "-f"]):
            status, out, _ = cvae("compress", pattern, *argv)
            assert status == 0
            assert "2 images" in out


def test_what_killed_processes_left_is_removed(cvae, inputs, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    name = "y-00001-of-00002.cvae"
    ours = tmp_path / f".{name}.{ended.pid}.{files._host()}.abcdefgh.cvae-tmp"
    theirs = tmp_path / f".{name}.{ended.pid}.00c0ffee.abcdefgh.cvae-tmp"
    new = tmp_path / f".{name}.{ended.pid}.00c0ffee.hgfedcba.cvae-tmp"
    alive = tmp_path / f".{name}.{os.getppid()}.{files._host()}.abcdefgh.cvae-tmp"
    for path in (ours, theirs, new, alive):
        path.touch()
    os.utime(theirs, (time.time() - 2 * files.ABANDONED,) * 2)
    assert cvae("compress", inputs / "a.npy", "-o", "y@2.cvae")[0] == 0
    assert set(tmp_path.glob(".y*")) == {new, alive}


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


def test_verification_names_every_faulty_shard(cvae, expected, tmp_path):
    for name, content in expected.items():
        (tmp_path / name).write_bytes(content[:-1] if "00002" in name else content)
    status, out, _ = cvae("verify", f"x@{SHARDS}.cvae")
    assert status == 3
    assert "x-00002-of-00005.cvae: " in out
    assert "damaged, 478 images in 4 shards intact" in out
