"""Several devices and processes: the same run, whoever computes it; real ones, on loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT

from cvae_jax.config import Config
from cvae_jax.runs import checkpoint, run, saved

PATIENCE = 100  # seconds
EPOCHS = 16
CONFIG = Config().replace(
    height=12, width=12, latent_dim=2, filters=(2,), dense_width=4, epochs=EPOCHS, batch_size=64
)
FLAGS = ["--preset", "original", "--latent-dim", "2", "--filters", "2", "--dense-width", "4"]
FLAGS += ["--epochs", str(EPOCHS), "--batch-size", "64", "--validation-fraction", "0.1"]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    images = np.zeros((420, 12, 12, 1), np.uint8)
    images[:, 3:9, 3:9] = np.random.default_rng(0).integers(100, 256, (420, 1, 1, 1))
    file = tmp_path_factory.mktemp("data") / "squares.npz"
    np.savez(file, train=images[:400], test=images[400:])
    return [sys.executable, "train.py", "--dataset", str(file), *FLAGS]


def started(command, workdir, devices=1, *flags, log=None):
    with (log or workdir.with_suffix(".log")).open("w") as out:
        return subprocess.Popen(
            [*command, "--workdir", str(workdir), *flags],
            cwd=ROOT,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def two_started(command, workdir, devices=1, *flags, other=()):
    """Two processes that train together, and the files of what they say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--processes", "2"]
    logs = [workdir.with_suffix(f".{k}.log") for k in range(2)]
    extra = [flags, [*flags, *other]]
    processes = [
        started(command, workdir, devices, *meet, "--process-id", str(k), *extra[k], log=logs[k])
        for k in range(2)
    ]
    return processes, logs


def ended(processes):
    """Their exit statuses; none is left behind."""
    try:
        return [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def parameters(workdir):
    state = run.training.init_state(CONFIG, 20)
    items = {"params": state.average, "optimizer": state._replace(average={})._asdict()}
    return jax.tree.leaves(checkpoint.restore(saved.steps(workdir)[-1], items))


def assert_same(a, b):
    for ours, theirs in zip(parameters(a), parameters(b), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def wait_for_step_after(step, workdir, *processes):
    """Until a later step is saved, while all of the processes run."""
    end = time.monotonic() + PATIENCE
    while newest_step(workdir) <= step:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.05)


def newest_step(workdir):
    steps = saved.steps(workdir)
    return int(steps[-1].name) if steps else 0


@pytest.fixture(scope="module")
def one(command, tmp_path_factory):
    """The run on one device."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    assert ended([started(command, workdir)]) == [0]
    return workdir


def test_two_devices_are_one_bit_for_bit(command, one, tmp_path):
    assert ended([started(command, tmp_path / "run", 2)]) == [0]
    assert_same(one, tmp_path / "run")


def test_two_processes_are_one_bit_for_bit_and_the_first_alone_writes(command, one, tmp_path):
    processes, logs = two_started(command, tmp_path / "run")
    assert ended(processes) == [0, 0]
    assert_same(one, tmp_path / "run")
    assert "best checkpoint" in logs[0].read_text()
    assert not re.search("epoch|checkpoint|image", logs[1].read_text())


def test_a_killed_process_takes_the_run_down_and_another_layout_ends_it(command, one, tmp_path):
    processes, logs = two_started(command, tmp_path / "run")
    wait_for_step_after(5, tmp_path / "run", *processes)
    processes[1].kill()
    assert ended(processes)[0] not in (0, None)
    assert "another process" in logs[0].read_text()
    assert ended([started(command, tmp_path / "run")]) == [0]
    assert "resuming from" in (tmp_path / "run.log").read_text()
    assert_same(one, tmp_path / "run")


def test_a_signal_to_one_process_stops_all_and_nothing_is_lost(command, one, tmp_path):
    """A run of one process goes on with two, which a signal to the second stops."""
    first = started(command, tmp_path / "run")
    wait_for_step_after(0, tmp_path / "run", first)
    first.send_signal(signal.SIGTERM)
    assert ended([first]) == [128 + signal.SIGTERM]
    before = newest_step(tmp_path / "run")
    processes, logs = two_started(command, tmp_path / "run")
    wait_for_step_after(before, tmp_path / "run", *processes)
    processes[1].send_signal(signal.SIGTERM)
    assert ended(processes) == [128 + signal.SIGTERM] * 2
    assert "the same command goes on from there" in logs[0].read_text()
    assert ended([started(command, tmp_path / "run", 2)]) == [0]
    assert_same(one, tmp_path / "run")


def test_a_killed_first_process_takes_the_run_down(command, tmp_path):
    """It is the one where all meet, so JAX ends the other one in its own words, or we in ours."""
    processes, logs = two_started(command, tmp_path / "run")
    wait_for_step_after(5, tmp_path / "run", *processes)
    processes[0].kill()
    assert ended(processes)[1] not in (0, None)
    assert re.search("another (process|task)", logs[1].read_text())


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_process_whose_partner_never_comes_says_so(number, tmp_path):
    program = (
        "import sys; from cvae_jax.runs.run import processes; from cvae_jax.cli import parser;"
        "processes.START = 3; parser.run(sys.argv[1:])"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    meet = ["--coordinator", address, "--processes", "2", "--process-id", number]
    arguments = ["train", "--dataset", "digits", "--workdir", str(tmp_path / "run"), *meet]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "error: the other processes of this run did not come within 3 seconds" in done.stderr
    assert "stack trace" not in done.stderr


def test_other_settings_are_refused_by_all(command, tmp_path):
    processes, logs = two_started(command, tmp_path / "run", other=["--seed", "1"])
    assert ended(processes) == [2, 2]
    for log in logs:
        assert "process 1 has another seed than process 0" in log.read_text()
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_is_refused_before_any_work(command, tmp_path):
    assert ended([started(command, tmp_path / "run", 3)]) == [2]
    assert "use --batch-size 63 or 66" in (tmp_path / "run.log").read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator", "here:1"], "--processes and --process-id: not given"),
        (["--coordinator", "here", "--processes", "2", "--process-id", "0"], "HOST:PORT"),
        (["--coordinator", "a:1", "--processes", "2", "--process-id", "2"], "expected 0 to"),
        (["--coordinator", "a:1", "--processes", "0", "--process-id", "0"], "expected 0 to"),
    ],
)
def test_processes_that_cannot_meet_are_refused(cvae, monkeypatch, flags, message):
    for name in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"JAX_{name}", raising=False)
    status, _, err = cvae("train", "--workdir", "w", *flags)
    assert status == 2
    assert message in err


def test_what_the_environment_says_counts(cvae, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "two")
    status, _, err = cvae("train", "--workdir", "w", "--distributed")
    assert status == 2
    assert "JAX_PROCESS_ID must be a whole number, not 'two'" in err
