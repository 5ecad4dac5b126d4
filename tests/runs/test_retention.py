"""The steps of a run: which stay, which count, and that a kill at any moment spoils none."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import checkpoint_samples
import pytest
from checkpoint_samples import (
    CONFIG,
    assert_identical,
    failure,
    files_below,
    flip_a_bit,
    items_of,
    params_of,
    truncate_a_file,
)

from cvae_jax.runs import checkpoint, manifest, retention, saved
from cvae_jax.runs.find import find

originals = checkpoint_samples.originals
workdir = checkpoint_samples.workdir


class TestRetention:
    def names(self, workdir):
        return [int(p.name) for p in saved.steps(workdir)]

    def test_the_last_few_and_the_best_stay(self, tmp_path):
        scores = [5, 1, 4, float("nan"), None, 3, 2]
        for step, score in enumerate(scores):
            path = retention.save_step(
                tmp_path, step, {"params": params_of(step)}, CONFIG, score=score, keep_last=2
            )
            assert path == saved.latest_valid(tmp_path).path
        assert self.names(tmp_path) == [1, 5, 6]
        assert checkpoint.read_config(path) == {**CONFIG, "step": 6, "score": 2.0}
        assert sorted(os.listdir(tmp_path)) == ["steps"]
        assert len(os.listdir(tmp_path / "steps")) == 3

    def test_damaged_steps_neither_count_nor_stay(self, workdir):
        flip_a_bit(saved.steps(workdir)[2])
        retention.save_step(workdir, 4, items_of(4), CONFIG, score=9.0, keep_last=2)
        assert self.names(workdir) == [2, 4]

    def test_going_back_and_saving_a_step_again_replaces_it(self, workdir):
        path = retention.save_step(workdir, 2, {"params": params_of(9)}, {}, keep_last=1)
        assert_identical(checkpoint.restore(path, {"params": params_of(0)})["params"], params_of(9))
        assert self.names(workdir) == [2, 3]

    def test_other_names_are_no_steps(self, workdir):
        (workdir / "steps" / "notes").mkdir()
        (workdir / "steps" / "00000003 copy").mkdir()
        (workdir / "steps" / "12").write_text("")
        assert self.names(workdir) == [1, 2, 3]

    def test_clear(self, workdir):
        retention.clear(workdir)
        assert saved.steps(workdir) == []
        assert list((workdir / "steps").iterdir()) == []
        retention.clear(workdir / "none")


def delete_a_file(step):
    files_below(step / "optimizer")[-1].unlink()


def delete_an_item(step):
    shutil.rmtree(step / "optimizer")


def delete_the_manifest(step):
    (step / manifest.NAME).unlink()


def half_copy(step):
    files = files_below(step)
    for file in files[len(files) // 2 :]:
        file.unlink()


def empty_it(step):
    shutil.rmtree(step)
    step.mkdir()


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            delete_a_file,
            truncate_a_file,
            flip_a_bit,
            delete_an_item,
            delete_the_manifest,
            half_copy,
            empty_it,
        ],
    )
    def test_a_damaged_newest_step_is_passed_over_with_one_warning(self, workdir, damage):
        steps = saved.steps(workdir)
        damage(steps[-1])
        warnings = []
        assert saved.latest_valid(workdir, warnings.append).path == steps[-2]
        assert len(warnings) == 1
        assert str(steps[-1]) in warnings[0]
        assert "\n" not in warnings[0]
        assert str(steps[-1]) in failure(find, steps[-1])

    def test_a_damaged_best_step_is_passed_over(self, workdir):
        _, best, next_best = saved.steps(workdir)
        assert saved.best(workdir).path == best
        truncate_a_file(best)
        warnings = []
        assert saved.best(workdir, warnings.append).path == next_best
        assert len(warnings) == 1

    def test_all_steps_damaged(self, workdir):
        for step in saved.steps(workdir):
            empty_it(step)
        with pytest.warns(UserWarning, match="skipped"):
            assert saved.latest_valid(workdir) is None
        with pytest.warns(UserWarning, match="skipped"):
            assert "3 steps" in failure(find, workdir)


@pytest.fixture(scope="module")
def spawn():
    """Starts processes quickly: they are forked from one that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orbax.checkpoint", "cvae_jax.runs.checkpoint", "optax"])
    return context.Process


def save_until_killed(workdir: Path, first: int, kill_at: int | None) -> None:
    """Saves steps, each twice, until it kills itself at its ``kill_at``-th folder change."""
    changes = 0

    def count(event, _):
        nonlocal changes
        if event in ("os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    for step in range(first, first + 1000):
        items = {"params": params_of(step)}
        for _ in range(2):
            retention.save_step(workdir, step, items, {"last": step}, keep_last=2)


def newest_whole_step(workdir: Path) -> int:
    """The newest step; none may be damaged, and it must hold what was saved as that step."""
    warnings = []
    newest = saved.latest_valid(workdir, warnings.append)
    assert warnings == []
    if newest is None:
        return 0
    step = int(newest.path.name)
    assert checkpoint.read_config(newest)["last"] == step
    restored = checkpoint.restore(newest, {"params": params_of(0)})["params"]
    assert_identical(restored, params_of(step))
    return step


class TestKill:
    # Chosen from a trace: inside Orbax, before the last rename, while a step is replaced,
    # while what a killed process left is cleaned up, and while an old step is deleted.
    @pytest.mark.parametrize("kill_at", [3, 5, 11, 14, 18, 46])
    def test_at_a_change_of_folders(self, tmp_path, spawn, kill_at):
        step = 0
        for _ in range(2):
            child = spawn(target=save_until_killed, args=(tmp_path, step + 1, kill_at))
            child.start()
            child.join(60)
            assert child.exitcode == -signal.SIGKILL
            newest = newest_whole_step(tmp_path)
            assert newest >= step
            step = newest

    def test_at_random_moments(self, tmp_path, spawn):
        rng = random.Random()
        step = 0
        for _ in range(4):
            child = spawn(target=save_until_killed, args=(tmp_path, step + 1, None))
            child.start()
            deadline = time.monotonic() + 60
            while not (tmp_path / "steps" / f"{step + 2:08d}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.2))
            child.kill()
            child.join(60)
            newest = newest_whole_step(tmp_path)
            assert newest > step
            step = newest
        retention.save_step(tmp_path, step + 1, {"params": params_of(0)}, {})
        assert not list((tmp_path / "steps").glob(".*"))
