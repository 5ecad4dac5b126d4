"""One checkpoint: saved whole or not at all, restored to the bit."""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys

import checkpoint_samples
import jax
import numpy as np
import optax
import pytest
from checkpoint_samples import CONFIG, assert_identical, failure, files_below, items_of, params_of

from cvae_jax.runs import checkpoint, manifest, retention
from cvae_jax.runs.find import find

originals = checkpoint_samples.originals
saved = checkpoint_samples.saved
workdir = checkpoint_samples.workdir


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
        path = find("a/b")
        assert path.path == tmp_path / "a/b"
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
from cvae_jax.runs import checkpoint
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


class TestSave:
    def test_never_over_something_that_is_there(self, saved):
        before = checkpoint.read_config(saved)
        assert "exists" in failure(checkpoint.save, saved, items_of(1), {})
        assert "exists" in failure(checkpoint.save, saved / "config.json", items_of(1), {})
        assert checkpoint.read_config(find(saved)) == before

    def test_an_unwritable_place(self, tmp_path, capfd):
        (tmp_path / "file").write_text("")
        message = failure(checkpoint.save, tmp_path / "file" / "c", items_of(0), CONFIG)
        assert str(tmp_path / "file" / "c") in message
        assert message.endswith(f"({tmp_path / 'file'})")
        failure(retention.save_step, tmp_path / "file", 1, items_of(0), CONFIG)
        assert capfd.readouterr() == ("", "")

    def test_a_disk_that_takes_no_more(self, workdir, capfd, caplog):
        """A limit on file sizes fails a write in the middle, in Orbax's own threads."""
        before = {p: p.read_bytes() for p in files_below(workdir)}
        big = {"params": {"x": np.random.default_rng(0).normal(size=100_000)}}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            message = failure(retention.save_step, workdir, 3, big, CONFIG)
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


class TestAttachedFiles:
    def test_they_join_the_checkpoint_and_its_manifest(self, saved):
        assert checkpoint.attached(saved, "tables.bin") is None
        for content in (b"first", b"second, longer"):
            checkpoint.attach(saved, {"tables.bin": content})
            assert checkpoint.attached(saved, "tables.bin") == content
            assert find(saved).path == saved
        assert_identical(
            checkpoint.restore(saved, jax.eval_shape(lambda: items_of(0))), items_of(0)
        )
        (saved / "tables.bin").write_bytes(b"second, longes")
        assert "tables.bin is not what was saved" in failure(find, saved)
        assert "tables.bin" in failure(checkpoint.attached, saved, "tables.bin")

    def test_a_kill_at_any_point_leaves_a_whole_checkpoint(self, saved, monkeypatch):
        """With all of the files or none: never with the manifest of another, never a mix."""
        names = ["tables.bin", "decoder.bin", "calibration.json"]
        old, new = (dict.fromkeys(names, content) for content in (b"old", b"new"))
        checkpoint.attach(saved, old)
        done, real = [], manifest.whole
        for survived in range(5):

            def write(path, survived=survived, **options):
                if len(done) == survived:
                    raise KeyboardInterrupt
                done.append(path)
                return real(path, **options)

            done.clear()
            monkeypatch.setattr(manifest, "whole", write)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.attach(saved, new)
            monkeypatch.setattr(manifest, "whole", real)
            assert find(saved).path == saved
            expected = b"old" if survived == 0 else None
            assert [checkpoint.attached(saved, name) for name in names] == [expected] * 3
            checkpoint.attach(saved, old)
