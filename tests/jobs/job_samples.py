"""A job of a few hundred images, and how the tests start it, watch it and kill its workers."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from cvae_jax import data

SHARDS = 5
WAIT = 60  # seconds until a test gives up


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two arrays and a folder of images, two of which are damaged."""
    folder = tmp_path_factory.mktemp("inputs")
    images = data.load("digits", "train")[:600]
    np.save(folder / "a.npy", images[:300])
    np.save(folder / "b.npy", images[300:570])
    (folder / "c").mkdir()
    for k, image in enumerate(images[570:]):
        Image.fromarray(image[..., 0]).save(folder / "c" / f"{k:02d}.png")
    (folder / "c" / "03.png").write_bytes(b"no image")
    path = folder / "c" / "11.png"
    path.write_bytes(path.read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory):
    """The files of the job, made in this process, by name."""
    folder = tmp_path_factory.mktemp("expected")
    run("compress", inputs / "[ab].npy", inputs / "c", "-o", folder / f"x@{SHARDS}.cvae")
    return contents(folder)


def command(*argv):
    return [sys.executable, "-m", "cvae_jax", *map(str, argv)]


def environment():
    folders = (ROOT, ROOT / "tests", ROOT / "tests" / "jobs")
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}


def run(*argv, status=0):
    """The command in a process of its own; what it says on standard error."""
    done = subprocess.run(
        command(*argv), env=environment(), capture_output=True, text=True, timeout=2 * WAIT
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


def job(inputs, folder, *more):
    output = folder / f"x@{SHARDS}.cvae"
    return ("compress", inputs / "[ab].npy", inputs / "c", "-o", output, *more)


def has_processes(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def workers(folder):
    """The processes that are writing shards."""
    return [int(path.name.split(".")[-4]) for path in folder.glob(".x-0*tmp")]


def killed_and_started_again(argv, folder, expected):
    """A worker of a job is killed: the command ends in a line of its own, which is returned, and
    the same command makes what is missing."""
    started = subprocess.Popen(command(*argv), env=environment(), stderr=subprocess.PIPE, text=True)
    (victim, *_) = until(lambda: workers(folder))
    os.kill(victim, signal.SIGKILL)
    said = started.communicate(timeout=WAIT)[1]
    assert started.returncode == 1
    assert "Traceback" not in said
    run(*argv)
    assert contents(folder) == expected
    return said


@dataclasses.dataclass(frozen=True)
class Endless:
    """A task whose parts say that they have begun, and nothing more."""

    folder: Path

    def run(self, number, advance):
        (self.folder / f"begun-{number}").touch()
        time.sleep(10 * WAIT)


def workers_end_with_the_launcher(running, folder, has_begun):
    """``running``: code that runs the parts of ``task``, in a process that is killed as soon as it
    has begun, which its number is asked for."""
    program = f"import job_samples; task = job_samples.Endless(job_samples.Path({str(folder)!r}))\n"
    started = subprocess.Popen(
        [sys.executable, "-c", program + running], env=environment(), start_new_session=True
    )
    try:
        until(lambda: has_begun(started.pid))
        started.kill()
        started.wait()
        until(lambda: not has_processes(started.pid))
    finally:
        if has_processes(started.pid):
            os.killpg(started.pid, signal.SIGKILL)


def until(happens):
    """Waits for what is true, and returns it."""
    end = time.monotonic() + WAIT
    while not (found := happens()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found
