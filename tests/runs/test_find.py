"""Which checkpoint a path means."""

import checkpoint_samples
import pytest
from checkpoint_samples import CONFIG, failure, params_of
from conftest import RELEASED, ROOT

from cvae_jax import codec
from cvae_jax.runs import manifest, retention
from cvae_jax.runs.find import find

originals = checkpoint_samples.originals
saved = checkpoint_samples.saved
workdir = checkpoint_samples.workdir


class TestFind:
    def test_a_workdir_means_its_best_step(self, workdir):
        assert find(workdir).path.name == "00000002"

    def test_without_scores_the_newest(self, tmp_path):
        for step in (5, 10):
            retention.save_step(tmp_path, step, {"params": params_of(step)}, CONFIG)
        assert find(tmp_path).path.name == "00000010"

    def test_a_step(self, workdir):
        assert find(workdir / "steps" / "00000003").path.name == "00000003"

    def test_a_released_checkpoint_with_a_model_card(self, saved):
        (saved / "README.md").write_text("A model card.")
        assert find(saved).path == saved

    def test_a_wrong_path_says_what_was_looked_for_and_what_is_near(self, saved, workdir):
        parent = saved.parent
        for wrong in (parent / "relaesed", parent / "run" / "steps" / "7", parent):
            message = failure(find, wrong)
            assert str(wrong) in message
            assert manifest.NAME in message
        assert "released, run" in failure(find, parent / "nowhere" / "at" / "all")
        assert "00000001, 00000002" in failure(find, workdir / "steps" / "00000007")
        assert "holds none" in failure(find, saved / "params")
        assert "config.json" in failure(find, saved / "config.json")


class TestNames:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_a_released_checkpoint(self):
        assert find("mnist-hq").path == ROOT / "checkpoints" / "mnist-hq"
        assert find().path == find("mnist").path == RELEASED
        assert codec.load().identity == codec.load("mnist").identity

    def test_a_path_that_exists_comes_before_a_name(self, saved, tmp_path):
        saved.rename(tmp_path / "mnist")
        assert find("mnist").path == tmp_path / "mnist"
        assert find().path == RELEASED
        (tmp_path / "mnist-hq").mkdir()
        message = failure(find, "mnist-hq")
        assert "a path takes precedence over a name" in message
        assert str(ROOT / "checkpoints" / "mnist-hq") in message

    def test_an_unknown_name_lists_those_that_are_known(self):
        assert "known by name: mnist, mnist-hq, photos32" in failure(find, "mnits")

    def test_nothing_released(self, monkeypatch, tmp_path):
        monkeypatch.setattr("cvae_jax.runs.find.RELEASED", (tmp_path,))
        assert f"no released checkpoint in {tmp_path}" in failure(find)
        assert "known by name: none" in failure(find, "mnist")
