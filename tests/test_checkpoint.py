import asyncio
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvae_jax import checkpoint, manifest
from cvae_jax.errors import CheckpointError

CONFIG = {"config": {"latent": 16, "name": "größer"}, "seed": 7}


def params_of(seed: int):
    rng = np.random.default_rng(seed)
    return {
        "encoder": {
            "conv": {
                "kernel": rng.normal(size=(3, 3, 1, 4)).astype("f"),
                "bias": np.zeros(4, "f"),
            }
        },
        "decoder": {"kernel": jnp.asarray(rng.normal(size=(2, 5)), jnp.bfloat16)},
    }


def items_of(seed: int):
    params = params_of(seed)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, 10))
    _, state = optimizer.update(params, optimizer.init(params), params)
    return {"params": params, "optimizer": {"state": state, "key": jax.random.PRNGKey(seed)}}


def assert_identical(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def failure(function, *args, **kwargs) -> str:
    """The one line of the CheckpointError that the call must raise."""
    with pytest.raises(CheckpointError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    checkpoint.save(folder / "released", items_of(0), CONFIG)
    for step, score in [(1, 3.0), (2, 1.0), (3, 2.0)]:
        checkpoint.save_step(folder / "run", step, items_of(step), CONFIG, score=score)
    return folder


@pytest.fixture
def saved(tmp_path, originals):
    """A checkpoint of `items_of(0)`."""
    return Path(shutil.copytree(originals / "released", tmp_path / "released"))


@pytest.fixture
def workdir(tmp_path, originals):
    """Steps 1, 2, 3 with the best score at 2."""
    return Path(shutil.copytree(originals / "run", tmp_path / "run"))


class TestRoundTrip:
    def test_every_bit_and_type_comes_back(self, saved):
        items = items_of(0)
        abstract = jax.eval_shape(lambda: items)
        assert_identical(checkpoint.restore(saved, abstract), items)

    def test_bits_that_comparison_would_miss(self, tmp_path):
        bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x00000001], np.uint32)
        tree = {"x": bits.view(np.float32)}  # NaNs with payload, -0.0, a subnormal
        path = checkpoint.save(tmp_path / "c", {"params": tree}, CONFIG)
        assert_identical(checkpoint.restore(path, {"params": tree})["params"], tree)

    def test_scalars_and_optimizer_states_without_arrays(self, tmp_path):
        tree = {"step": 3, "rate": 0.1, "on": True, "sgd": optax.sgd(0.1).init(params_of(0))}
        path = checkpoint.save(tmp_path / "c", {"state": tree}, CONFIG)
        restored = checkpoint.restore(path, {"state": tree})["state"]
        assert restored == tree
        assert [type(restored[k]) for k in ("step", "rate", "on")] == [int, float, bool]

    def test_config_is_text_that_anyone_can_read(self, saved):
        assert checkpoint.read_config(saved) == CONFIG
        assert json.loads((saved / "config.json").read_text("utf-8")) == CONFIG

    def test_relative_paths(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        checkpoint.save("a/b", {"params": params_of(1)}, CONFIG)
        path = checkpoint.find("a/b")
        assert path == tmp_path / "a/b"
        assert_identical(
            checkpoint.restore("a/b", {"params": params_of(1)})["params"], params_of(1)
        )

    def test_inside_a_running_event_loop_as_in_a_notebook(self, saved):
        async def cell():
            return checkpoint.restore(saved, {"params": params_of(0)})["params"]

        assert_identical(asyncio.run(cell()), params_of(0))

    def test_saved_from_four_devices_restored_on_one(self, tmp_path):
        script = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from cvae_jax import checkpoint
mesh = jax.make_mesh((4,), ("data",))
x = jax.device_put(np.arange(8.0, dtype="f"), NamedSharding(mesh, PartitionSpec("data")))
assert len(x.devices()) == 4
checkpoint.save(sys.argv[1], {"params": {"x": x}}, {})
"""
        environment = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
        }
        subprocess.run([sys.executable, "-c", script, tmp_path / "c"], env=environment, check=True)
        for file in files_below(tmp_path / "c"):
            assert b"sharding_type" not in file.read_bytes(), "it records the devices"
        target = {"x": np.arange(8.0, dtype="f")}
        assert_identical(checkpoint.restore(tmp_path / "c", {"params": target})["params"], target)

    def test_files_name_no_path_of_the_machine(self, tmp_path):
        for file in files_below(checkpoint.save(tmp_path / "c", items_of(0), CONFIG)):
            assert os.fsencode(tmp_path) not in file.read_bytes(), file


def delete_a_file(step):
    files_below(step / "optimizer")[-1].unlink()


def truncate_a_file(step):
    largest = max(files_below(step / "params"), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def flip_a_bit(step):
    file = files_below(step / "params")[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


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
    def test_any_flipped_bit_is_noticed_and_its_file_named(self, saved):
        for file in files_below(saved):
            if file.name == manifest.NAME:
                continue
            intact = file.read_bytes()
            position = random.Random(file.name).randrange(len(intact))
            file.write_bytes(
                intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :]
            )
            assert str(file.relative_to(saved)) in failure(checkpoint.find, saved)
            file.write_bytes(intact)
        assert checkpoint.find(saved) == saved

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3, "format": 1}', "ÿ"])
    def test_a_manifest_that_is_none(self, saved, content):
        (saved / manifest.NAME).write_text(content, "latin-1")
        assert manifest.NAME in failure(checkpoint.find, saved)

    def test_a_manifest_of_a_later_format(self, saved):
        text = (saved / manifest.NAME).read_text()
        (saved / manifest.NAME).write_text(text.replace('"format": 1', '"format": 2'))
        assert "format 2" in failure(checkpoint.find, saved)

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
        steps = checkpoint.steps(workdir)
        damage(steps[-1])
        warnings = []
        assert checkpoint.latest_valid(workdir, warnings.append) == steps[-2]
        assert len(warnings) == 1
        assert str(steps[-1]) in warnings[0]
        assert "\n" not in warnings[0]
        assert str(steps[-1]) in failure(checkpoint.find, steps[-1])

    def test_a_damaged_best_step_is_passed_over(self, workdir):
        _, best, next_best = checkpoint.steps(workdir)
        assert checkpoint.best(workdir) == best
        truncate_a_file(best)
        warnings = []
        assert checkpoint.best(workdir, warnings.append) == next_best
        assert len(warnings) == 1

    def test_all_steps_damaged(self, workdir):
        for step in checkpoint.steps(workdir):
            empty_it(step)
        with pytest.warns(UserWarning, match="skipped"):
            assert checkpoint.latest_valid(workdir) is None
        with pytest.warns(UserWarning, match="skipped"):
            assert "3 steps" in failure(checkpoint.find, workdir)

    def test_damage_is_not_handed_to_orbax(self, saved):
        flip_a_bit(saved)
        assert "damaged" in failure(checkpoint.restore, saved, {"params": params_of(0)})

    def test_a_damaged_config(self, saved):
        (saved / "config.json").write_text('{"seed": 8}')
        assert "config.json" in failure(checkpoint.read_config, saved)


class TestRestore:
    def test_params_alone_need_no_optimizer_on_the_disk(self, saved):
        shutil.rmtree(saved / "optimizer")
        restored = checkpoint.restore(saved, {"params": params_of(0)})
        assert list(restored) == ["params"]
        assert_identical(restored["params"], params_of(0))

    def test_an_item_that_was_not_saved(self, saved):
        message = failure(checkpoint.restore, saved, {"ema": params_of(0)})
        assert "'ema'" in message
        assert "optimizer, params" in message

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                lambda p: p["encoder"]["conv"].update(bias=np.zeros(5, "f")),
                "bias is float32[4]",
            ),
            (lambda p: p["encoder"]["conv"].update(bias=np.zeros(4, "i")), "expected int32[4]"),
            (lambda p: p["encoder"].pop("conv"), "expected absent"),
            (lambda p: p.update(extra=np.zeros(1)), "params/extra is absent"),
        ],
    )
    def test_another_model_is_told_by_its_first_difference(self, saved, change, expected):
        target = params_of(0)
        change(target)
        assert expected in failure(checkpoint.restore, saved, {"params": target})


class TestFind:
    def test_a_workdir_means_its_best_step(self, workdir):
        assert checkpoint.find(workdir).name == "00000002"

    def test_without_scores_the_newest(self, tmp_path):
        for step in (5, 10):
            checkpoint.save_step(tmp_path, step, {"params": params_of(step)}, CONFIG)
        assert checkpoint.find(tmp_path).name == "00000010"

    def test_a_step(self, workdir):
        assert checkpoint.find(workdir / "steps" / "00000003").name == "00000003"

    def test_a_released_checkpoint_with_a_model_card(self, saved):
        (saved / "README.md").write_text("A model card.")
        assert checkpoint.find(saved) == saved

    def test_a_wrong_path_says_what_was_looked_for_and_what_is_near(self, saved, workdir):
        parent = saved.parent
        for wrong in (parent / "relaesed", parent / "run" / "steps" / "7", parent):
            message = failure(checkpoint.find, wrong)
            assert str(wrong) in message
            assert manifest.NAME in message
        assert "released, run" in failure(checkpoint.find, parent / "nowhere" / "at" / "all")
        assert "00000001, 00000002" in failure(checkpoint.find, workdir / "steps" / "00000007")
        assert "holds none" in failure(checkpoint.find, saved / "params")
        assert "config.json" in failure(checkpoint.find, saved / "config.json")


class TestSave:
    def test_never_over_something_that_is_there(self, saved):
        before = checkpoint.read_config(saved)
        assert "exists" in failure(checkpoint.save, saved, items_of(1), {})
        assert "exists" in failure(checkpoint.save, saved / "config.json", items_of(1), {})
        assert checkpoint.read_config(checkpoint.find(saved)) == before

    def test_an_unwritable_place(self, tmp_path, capfd):
        (tmp_path / "file").write_text("")
        message = failure(checkpoint.save, tmp_path / "file" / "c", items_of(0), CONFIG)
        assert str(tmp_path / "file" / "c") in message
        assert message.endswith(f"({tmp_path / 'file'})")
        failure(checkpoint.save_step, tmp_path / "file", 1, items_of(0), CONFIG)
        assert capfd.readouterr() == ("", "")

    def test_a_disk_that_takes_no_more(self, workdir, capfd, caplog):
        """A limit on file sizes fails a write in the middle, in Orbax's own threads."""
        before = {p: p.read_bytes() for p in files_below(workdir)}
        big = {"params": {"x": np.random.default_rng(0).normal(size=100_000)}}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            message = failure(checkpoint.save_step, workdir, 3, big, CONFIG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert message.endswith(": File too large")
        assert str(workdir / "steps" / "00000003") in message
        assert {p: p.read_bytes() for p in files_below(workdir)} == before
        assert caplog.records == []
        assert capfd.readouterr() == ("", "")

    def test_an_interrupt_leaves_nothing(self, tmp_path, monkeypatch):
        def interrupted(folder):
            raise KeyboardInterrupt

        monkeypatch.setattr(manifest, "seal", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path / "c", {"params": params_of(0)}, CONFIG)
        assert list(tmp_path.iterdir()) == []

    def test_a_config_that_is_no_json_is_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(ValueError, match="JSON"):
            checkpoint.save(tmp_path / "c", {"params": params_of(0)}, {"loss": float("nan")})
        assert list(tmp_path.iterdir()) == []


class TestRetention:
    def names(self, workdir):
        return [int(p.name) for p in checkpoint.steps(workdir)]

    def test_the_last_few_and_the_best_stay(self, tmp_path):
        scores = [5, 1, 4, float("nan"), None, 3, 2]
        for step, score in enumerate(scores):
            path = checkpoint.save_step(
                tmp_path, step, {"params": params_of(step)}, CONFIG, score=score, keep_last=2
            )
            assert path == checkpoint.latest_valid(tmp_path)
        assert self.names(tmp_path) == [1, 5, 6]
        assert checkpoint.read_config(path) == {**CONFIG, "step": 6, "score": 2.0}
        assert sorted(os.listdir(tmp_path)) == ["steps"]
        assert len(os.listdir(tmp_path / "steps")) == 3

    def test_damaged_steps_neither_count_nor_stay(self, workdir):
        flip_a_bit(checkpoint.steps(workdir)[2])
        checkpoint.save_step(workdir, 4, items_of(4), CONFIG, score=9.0, keep_last=2)
        assert self.names(workdir) == [2, 4]

    def test_going_back_and_saving_a_step_again_replaces_it(self, workdir):
        path = checkpoint.save_step(workdir, 2, {"params": params_of(9)}, {}, keep_last=1)
        assert_identical(checkpoint.restore(path, {"params": params_of(0)})["params"], params_of(9))
        assert self.names(workdir) == [2, 3]

    def test_other_names_are_no_steps(self, workdir):
        (workdir / "steps" / "notes").mkdir()
        (workdir / "steps" / "00000003 copy").mkdir()
        (workdir / "steps" / "12").write_text("")
        assert self.names(workdir) == [1, 2, 3]

    def test_clear(self, workdir):
        checkpoint.clear(workdir)
        assert checkpoint.steps(workdir) == []
        assert list((workdir / "steps").iterdir()) == []
        checkpoint.clear(workdir / "none")


@pytest.fixture(scope="module")
def spawn():
    """Starts processes quickly: they are forked from one that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["orbax.checkpoint", "cvae_jax.checkpoint", "optax"])
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
            checkpoint.save_step(workdir, step, items, {"last": step}, keep_last=2)


def newest_whole_step(workdir: Path) -> int:
    """The newest step; none may be damaged, and it must hold what was saved as that step."""
    warnings = []
    newest = checkpoint.latest_valid(workdir, warnings.append)
    assert warnings == []
    if newest is None:
        return 0
    step = int(newest.name)
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
        checkpoint.save_step(tmp_path, step + 1, {"params": params_of(0)}, {})
        assert not list((tmp_path / "steps").glob(".*"))


class TestAttachedFiles:
    def test_they_join_the_checkpoint_and_its_manifest(self, saved):
        assert checkpoint.attached(saved, "tables.bin") is None
        for content in (b"first", b"second, longer"):
            checkpoint.attach(saved, "tables.bin", content)
            assert checkpoint.attached(saved, "tables.bin") == content
            assert checkpoint.find(saved) == saved
        assert_identical(
            checkpoint.restore(saved, jax.eval_shape(lambda: items_of(0))), items_of(0)
        )
        (saved / "tables.bin").write_bytes(b"second, longes")
        assert "tables.bin is not what was saved" in failure(checkpoint.find, saved)
        assert "tables.bin" in failure(checkpoint.attached, saved, "tables.bin")

    def test_a_kill_at_any_point_leaves_a_whole_checkpoint(self, saved, monkeypatch):
        """With the new file, or with none: never with the manifest of another."""
        from cvae_jax import manifest

        checkpoint.attach(saved, "tables.bin", b"old")
        done, real = [], manifest._write_atomically
        for survived in range(3):

            def write(path, data, survived=survived):
                if len(done) == survived:
                    raise KeyboardInterrupt
                done.append(path)
                real(path, data)

            done.clear()
            monkeypatch.setattr(manifest, "_write_atomically", write)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.attach(saved, "tables.bin", b"new")
            monkeypatch.setattr(manifest, "_write_atomically", real)
            assert checkpoint.find(saved) == saved
            assert checkpoint.attached(saved, "tables.bin") == (b"old" if survived == 0 else None)
            checkpoint.attach(saved, "tables.bin", b"old")
