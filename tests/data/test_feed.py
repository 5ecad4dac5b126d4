"""Batches that are read ahead are those from memory, whoever reads them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import data_samples
import numpy as np
import pytest
from data_samples import noise, write_images, write_zip

from cvae_jax.data.feed import batches
from cvae_jax.data.sources import Subset, open_source
from cvae_jax.errors import DataError, InstallError

nothing_of_this_machine = data_samples.nothing_of_this_machine
pytest.importorskip("grain", reason="needs the extra grain")
IMAGES = noise(60, 9, 7, 1)
ORDER = np.random.default_rng(1).permutation(60).astype(np.int32).reshape(12, 5)


@pytest.fixture
def stored(tmp_path):
    """The images as an .npy file and as a zip, not in their order."""
    turned = np.random.default_rng(2).permutation(60)
    back = np.argsort(turned)
    np.save(tmp_path / "x.npy", IMAGES[turned])
    folder = write_images(tmp_path / "x", IMAGES[turned])
    sources = {
        "npy": open_source(tmp_path / "x.npy"),
        "zip": open_source(write_zip(tmp_path / "x.zip", folder)),
    }
    return {kind: Subset(source, back) for kind, source in sources.items()}


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 7, 12])
def test_same_batches_as_from_memory(stored, workers, start):
    expected = list(batches(IMAGES, ORDER, start, workers))
    assert len(expected) == 12 - start
    source = stored["zip" if workers else "npy"]
    got = list(batches(source, ORDER, start, workers))
    assert [batch.dtype for batch in got] == [np.uint8] * len(got)
    np.testing.assert_array_equal(got, expected)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_process_outlives_an_iterator_that_is_left(stored, workers):
    found = batches(stored["npy"], ORDER, 0, workers)
    next(found)
    assert bool(multiprocessing.active_children()) == bool(workers)
    found.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named(tmp_path, workers):
    folder = write_images(tmp_path / "x", IMAGES)
    (folder / "030.png").write_bytes(b"no image")
    order = np.arange(60).reshape(12, 5)
    found = batches(open_source(folder), order, 0, workers)
    for k in range(6):
        np.testing.assert_array_equal(next(found), IMAGES[order[k]])
    with pytest.raises(DataError, match=r"030\.png") as caught:
        next(found)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed(stored):
    many = np.tile(ORDER, (1000, 1))
    found = batches(stored["npy"], many, 0, 2)
    next(found)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(DataError, match="a process that reads images ended") as caught:
        list(found)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_without_grain(stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(InstallError, match=r"\[grain\]"):
        next(batches(stored["npy"], ORDER, 0, 0))
    assert len(list(batches(IMAGES, ORDER, 0, 0))) == 12  # memory needs none


SCRIPT = """
import multiprocessing, sys, time
import numpy as np
from cvae_jax import errors
from cvae_jax.data import feed, sources

def main():
    order = np.zeros((100_000, 5), np.int32)
    for batch in feed.batches(sources.open_source(sys.argv[1]), order, 0, 2):
        pids = [process.pid for process in multiprocessing.active_children()]
        if len(pids) == 2:
            print(*pids, flush=True)
            time.sleep(60)

if __name__ == "__main__":
    sys.exit(errors.run(main))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_trains(tmp_path, how):
    np.save(tmp_path / "x.npy", IMAGES)
    script = tmp_path / "feeds.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "x.npy")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,  # Ctrl-C reaches the workers too
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    # Their pipe is not waited for: a worker that lived on would keep it open.
    try:
        status = process.wait(20)
    except subprocess.TimeoutExpired:
        # Python drops an interrupt that strikes in a destructor: then one presses Ctrl-C again.
        os.killpg(process.pid, how)
        status = process.wait(60)
    assert status == (130 if how == signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + 30
    while alive := [pid for pid in workers if Path(f"/proc/{pid}").exists() and not zombie(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    if how == signal.SIGINT:
        assert process.stderr.read() == "interrupted\n"


def zombie(pid):
    """Whether a process has ended, and waits for a parent that asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
