"""Apache Beam makes what the other runners make."""

import subprocess

import pytest
from job_samples import (
    SHARDS,
    contents,
    job,
    killed_and_started_again,
    run,
    workers_end_with_the_launcher,
)

pytest_plugins = ["job_samples"]
pytest.importorskip("apache_beam", reason="Apache Beam is not installed (extra beam)")


def test_it_makes_the_same_files(inputs, expected, tmp_path):
    said = run("job", *job(inputs, tmp_path), "--", "--direct_num_workers=2")
    assert contents(tmp_path) == expected
    assert said.count("\n") == 1


def test_a_killed_worker_ends_the_job_and_the_same_command_goes_on(inputs, expected, tmp_path):
    argv = ("job", *job(inputs, tmp_path), "--", "--direct_num_workers=2")
    said = killed_and_started_again(argv, tmp_path, expected)
    assert "the same command goes on" in said


def test_workers_end_with_the_launcher_even_before_they_know_it(tmp_path):
    def has_begun(launcher):
        listed = subprocess.run(["ps", "-wweo", "pgid,args"], capture_output=True, text=True).stdout
        lines = [line.split(None, 1) for line in listed.splitlines()]
        return any(line[0] == str(launcher) and "sdk_worker_main" in line[1] for line in lines)

    # Later on, Beam notices by itself.
    running = "from cvae_jax.jobs import beam; beam.run(task, range(2), ['--direct_num_workers=2'])"
    workers_end_with_the_launcher(running, tmp_path, has_begun)


def test_options_that_it_does_not_know_are_refused(expected, tmp_path):
    for name, content in expected.items():
        (tmp_path / name).write_bytes(content)
    argv = ("job", "verify", tmp_path / f"x@{SHARDS}.cvae", "--")
    assert "NoSuch" in run(*argv, "--runner=NoSuch", status=2)
