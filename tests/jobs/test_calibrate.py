"""Calibration by a job: who does the work, and how often it is started, changes nothing."""

import shutil

import numpy as np
from conftest import RELEASED
from job_samples import contents

from cvae_jax.bitstream.archive import unwatched
from cvae_jax.jobs import calibrate as calibrating
from cvae_jax.jobs import pool
from cvae_jax.jobs.task import here, results
from cvae_jax.runs.find import TABLES

pytest_plugins = ["job_samples"]


def test_calibration_goes_on_with_the_same_command_alone(cvae, inputs, tmp_path):
    shutil.copytree(RELEASED, tmp_path / "ck")
    (tmp_path / "work").mkdir()
    argv = ("job", "calibrate", "ck", inputs / "b.npy", "--work", "work", "-f", "--jobs", 1)
    assert cvae(*argv)[0] == 0
    tables = (tmp_path / "ck" / TABLES).read_bytes()
    measured = contents(tmp_path / "work")
    (part,) = (tmp_path / "work").glob("*.npz")
    part.write_bytes(part.read_bytes()[:-100])
    assert cvae(*argv)[0] == 0
    assert (tmp_path / "ck" / TABLES).read_bytes() == tables
    assert contents(tmp_path / "work") == measured
    status, _, err = cvae(*argv, "--resize")
    assert status == 2
    assert "begun with other resize" in err
    assert "--work" in err


def test_calibration_does_not_depend_on_who_works(inputs, tmp_path):
    folder, measured = tmp_path / "mnist", []
    shutil.copytree(RELEASED, folder)
    for processes in (None, 1, 2):
        work = tmp_path / f"work{processes}"
        work.mkdir()
        with calibrating.begun(
            str(folder), [str(inputs / "*")], work, resize=False, grayscale=False, size=256
        ) as task:
            assert task.output.shards.count == 3
            outcomes = (
                pool.run(task, range(3), processes, unwatched)
                if processes
                else here(task, reversed(range(3)), unwatched)
            )
            results(outcomes)
        measured.append(contents(work))
    assert measured[0] == measured[1] == measured[2]
    made, used = calibrating.finish(task)
    assert used == 598
    assert made.tables.to_bytes() == (folder / TABLES).read_bytes()
    assert made.tables.to_bytes() != (RELEASED / TABLES).read_bytes()


def test_samples_are_spread_and_of_about_the_wanted_size():
    numbers = np.arange(100_000)
    chosen = calibrating.is_chosen(numbers, 100_000, 10_000)
    assert 9_600 < chosen.sum() < 10_400
    assert 4_700 < chosen[::2].sum() < 5_300
    parts = [calibrating.is_chosen(part, 100_000, 10_000) for part in np.split(numbers, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), chosen)
    assert calibrating.is_chosen(numbers, 100_000, 100_000).all()
