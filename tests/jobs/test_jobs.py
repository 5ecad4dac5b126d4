"""Jobs: whoever does the work, and however often it is stopped, the files are the same."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import failure
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
    workers,
    workers_end_with_the_launcher,
)

from cvae_jax import files, reader
from cvae_jax.bitstream.archive import unwatched
from cvae_jax.errors import ConfigError
from cvae_jax.jobs import compress as compressing
from cvae_jax.shards import Shards

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
    # Its workers take seconds to start, so that it is under way for certain.
    until(lambda: [*tmp_path.glob("x-*.job.json")])
    os.killpg(started.pid, signal.SIGINT)  # as Ctrl-C does
    said = started.communicate(timeout=WAIT)[1]
    assert (started.returncode, said) == (130, "interrupted\n")
    assert not [*tmp_path.glob(".*")]
    until(lambda: not has_processes(started.pid))
    run(*argv)
    assert contents(tmp_path) == expected


def test_finished_shards_are_kept_and_damaged_ones_made_anew(inputs, expected, tmp_path):
    run(*job(inputs, tmp_path))
    kept, copied, damaged, emptied, gone = (tmp_path / f"x-0000{k}-of-00005.cvae" for k in range(5))
    before = kept.stat().st_mtime_ns
    for suffix in ("", ".done.json"):  # an intact archive of as many images, with its record
        shutil.copy(f"{kept}{suffix}", f"{copied}{suffix}")
    content = bytearray(damaged.read_bytes())
    content[200] ^= 1
    damaged.write_bytes(content)
    emptied.write_bytes(b"")
    gone.unlink()
    run(*job(inputs, tmp_path))
    assert contents(tmp_path) == expected
    assert kept.stat().st_mtime_ns == before


def test_a_shard_without_an_intact_record_is_made_anew(cvae, inputs, tmp_path):
    argv = ("compress", inputs / "c", "-o", "y@3.cvae")
    assert cvae(*argv)[0] == 0
    made = contents(tmp_path)
    shards = [tmp_path / f"y-0000{k}-of-00003.cvae" for k in range(3)]
    records = [tmp_path / f"{shard.name}.done.json" for shard in shards]
    (report,) = tmp_path.glob("*00000-of*.skipped.jsonl")
    for damage, anew in [
        (records[1].unlink, 1),
        (
            lambda: records[1].write_text(
                records[1].read_text().replace('"images": 9', '"images": 8')
            ),
            1,
        ),
        (lambda: records[1].write_text("[" * 100_000), 1),
        (lambda: records[1].write_text("[]"), 1),
        (lambda: records[1].write_bytes(records[2].read_bytes()), 1),
        (report.unlink, 0),
    ]:
        before = [shard.stat().st_ino for shard in shards]
        damage()
        status, out, _ = cvae(*argv)
        assert (status, contents(tmp_path)) == (0, made)
        assert "of which 2 were there" in out
        after = [shard.stat().st_ino for shard in shards]
        assert [k for k in range(3) if before[k] != after[k]] == [anew]
    _, out, _ = cvae(*argv)
    assert "nothing to do" in out


def test_shards_of_another_set_are_not_taken_for_finished(cvae, inputs, tmp_path):
    sets = {}
    for quality in (30, 50):
        folder = tmp_path / str(quality)
        folder.mkdir()
        argv = ("compress", inputs / "c", "-o", folder / "y@2.cvae", "-q", quality)
        assert cvae(*argv)[0] == 0
        sets[quality] = contents(folder)
    for path in (tmp_path / "30").glob("*00001-of*"):  # the shard, its record and its report
        shutil.copy(path, tmp_path / "50")
    assert contents(tmp_path / "50") != sets[50]
    assert cvae(*argv)[0] == 0
    assert contents(tmp_path / "50") == sets[50]


def test_decompressed_parts_are_kept_and_damaged_ones_made_anew(cvae, inputs, tmp_path):
    assert cvae("compress", inputs / "c", "-o", "y@3.cvae")[0] == 0
    argv = ("decompress", "y@3.cvae", "-o", "y@3.npy")
    assert cvae(*argv)[0] == 0
    made = contents(tmp_path)
    kept, damaged, copied = (tmp_path / f"y-0000{k}-of-00003.npy" for k in range(3))
    before = kept.stat().st_ino
    shutil.copy(kept, copied)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert cvae(*argv)[0] == 0
    assert contents(tmp_path) == made
    assert kept.stat().st_ino == before
    assert "nothing to do" in cvae(*argv)[1]
    assert "nothing to do" in cvae("compress", inputs / "c", "-o", "y@3.cvae")[1]


def test_one_job_at_a_time_works_on_a_set(cvae, inputs, expected, tmp_path):
    argv = ("job", *job(inputs, tmp_path, "--jobs", 2))
    started = subprocess.Popen(command(*argv), env=environment(), start_new_session=True)
    until(lambda: workers(tmp_path))
    for more in ((), ("-f",), ("-q", 30, "-f")):
        status, _, err = cvae(*job(inputs, tmp_path, *more))
        assert (status, err.count("\n")) == (2, 1)
        assert "another job is working on this set; wait for it, or name another -o" in err
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    until(lambda: not has_processes(started.pid))  # its workers have noticed
    assert cvae(*argv[1:])[0] == 0
    assert contents(tmp_path) == expected


def test_workers_end_with_the_launcher_in_the_midst_of_a_part(tmp_path):
    running = "from cvae_jax.jobs import pool; list(pool.run(task, range(2), 2, print))"
    workers_end_with_the_launcher(
        running, tmp_path, lambda _: len([*tmp_path.glob("begun-*")]) == 2
    )


def test_a_part_whose_plan_is_another_has_no_name(inputs, tmp_path):
    settings = compressing.Settings()
    shards = Shards(tmp_path, "y", 2, ".cvae")
    given = [str(inputs / "c")]
    with compressing.begun(
        given, shards, None, settings, resize=False, grayscale=False, force=False
    ) as task:
        pass
    task.run(0, unwatched)
    (tmp_path / "y-of-00002.cvae.job.json").unlink()
    assert "gone or another job's" in failure(ConfigError, task.run, 1, unwatched)
    other = dataclasses.replace(settings, quality=30)
    with compressing.begun(
        given, shards, None, other, resize=False, grayscale=False, force=True
    ) as another:
        for number in (0, 1):
            assert "gone or another job's" in failure(ConfigError, task.run, number, unwatched)
        assert [path.name for path in tmp_path.iterdir() if "job" not in path.name] == []
        another.run(0, unwatched)


def test_a_file_system_without_locks_will_do(cvae, inputs, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert cvae("compress", inputs / "c", "-o", "y@2.cvae")[0] == 0
    assert not [*tmp_path.glob("*.lock")]


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


def test_verification_names_every_faulty_shard(cvae, expected, tmp_path):
    for name, content in expected.items():
        (tmp_path / name).write_bytes(content[:-1] if "00002" in name else content)
    status, out, _ = cvae("verify", f"x@{SHARDS}.cvae")
    assert status == 3
    assert "x-00002-of-00005.cvae: " in out
    assert "damaged, 478 images in 4 shards intact" in out
