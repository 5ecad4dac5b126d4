"""The manifest: whatever happens to a checkpoint's files is noticed."""

import contextlib
import hashlib
import json
import math
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import checkpoint_samples
import pytest
from checkpoint_samples import failure, files_below, flip_a_bit, params_of
from conftest import RELEASED

from cvae_jax import codec
from cvae_jax.config import Config
from cvae_jax.errors import CheckpointError
from cvae_jax.modules import abstract_params
from cvae_jax.runs import checkpoint, manifest
from cvae_jax.runs.find import find
from cvae_jax.runs.record import Dataset, Record

originals = checkpoint_samples.originals
saved = checkpoint_samples.saved
workdir = checkpoint_samples.workdir


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
            assert str(file.relative_to(saved)) in failure(find, saved)
            file.write_bytes(intact)
        assert find(saved).path == saved

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3, "format": 1}', "ÿ"])
    def test_a_manifest_that_is_none(self, saved, content):
        (saved / manifest.NAME).write_text(content, "latin-1")
        assert manifest.NAME in failure(find, saved)

    def test_a_manifest_of_a_later_format(self, saved):
        text = (saved / manifest.NAME).read_text()
        (saved / manifest.NAME).write_text(text.replace('"format": 1', '"format": 2'))
        assert "format 2" in failure(find, saved)

    def test_damage_is_not_handed_to_orbax(self, saved):
        flip_a_bit(saved)
        assert "damaged" in failure(checkpoint.restore, saved, {"params": params_of(0)})

    def test_a_damaged_config(self, saved):
        (saved / "config.json").write_text('{"seed": 8}')
        assert "config.json" in failure(checkpoint.read_config, saved)


HOSTILE = {
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "a long integer": b'{"format": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"format": "\xff\xfe"}',
    "huge": b'{"format": 1, "files": {}}' + b" " * manifest.LARGEST_JSON,
    "a list": b"[1, 2]",
}


class TestHostile:
    @pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
    def test_json_that_is_no_manifest_or_config(self, saved, content):
        manifest.replace(saved, {"config.json": content})
        assert "config.json is not a JSON object" in failure(checkpoint.read_config, saved)
        (saved / manifest.NAME).write_bytes(content)
        assert f"{manifest.NAME} is not what was saved" in failure(find, saved)

    @pytest.mark.parametrize(
        "name",
        ["../outside", "/outside", "a/../../outside", "a/..", ".", "", "a//b", "..\\outside",
         "C:outside", "a\0b", "a\nb", "\ud800"],
    )  # fmt: skip
    def test_names_that_lead_out_are_refused_before_anything_is_opened(
        self, saved, name, monkeypatch
    ):
        if name.startswith("/"):
            name = str(saved.parent / "outside")
        text = json.loads((saved / manifest.NAME).read_text())
        text["files"] = {name: {"size": 3, "sha256": hashlib.sha256(b"out").hexdigest()}}
        (saved / manifest.NAME).write_text(json.dumps(text))
        (saved.parent / "outside").write_bytes(b"out")
        opened, real = [], Path.open
        monkeypatch.setattr(Path, "open", lambda p, *a, **k: opened.append(p) or real(p, *a, **k))
        assert "which is outside its folder" in failure(find, saved)
        assert opened == [saved / manifest.NAME]

    @pytest.mark.parametrize("linked", ["config.json", "params"])
    def test_links_that_lead_out(self, saved, linked):
        (saved / linked).rename(saved.parent / "outside")
        (saved / linked).symlink_to("../outside")
        assert "which is outside its folder" in failure(find, saved)

    def test_a_link_that_stays_inside(self, saved):
        (saved / "config.json").rename(saved / "of-the-run.json")
        (saved / "config.json").symlink_to("of-the-run.json")
        assert find(saved).path == saved

    @pytest.mark.parametrize(
        "fingerprint",
        [None, 3, [], {}, {"size": -1, "sha256": ""}, {"size": 1.0, "sha256": ""},
         {"size": 1 << 70, "sha256": ""}, {"size": 1, "sha256": 2},
         {"size": 1, "sha256": "", "more": 1}],
    )  # fmt: skip
    def test_fingerprints_that_are_none(self, saved, fingerprint):
        text = json.loads((saved / manifest.NAME).read_text())
        text["files"]["config.json"] = fingerprint
        (saved / manifest.NAME).write_text(json.dumps(text))
        assert "damaged" in failure(find, saved)

    def test_a_config_of_other_types_is_one_line(self, tmp_path):
        """Every field in turn; what is read is checked before it is used."""
        record = Record(Config(), Dataset("x", "f", {"test": 1}), {"jax": "1"}, step=1, score=1.0)
        whole = record.to_dict()
        for at in [(), *_places(whole)]:
            for value in (None, "x", -1, 1 << 70, math.nan, [], {}, [[1]], True):
                changed = json.loads(json.dumps(whole))
                node = changed
                for key in at[:-1]:
                    node = node[key]
                if at:
                    node[at[-1]] = value
                with contextlib.suppress(CheckpointError):
                    record = Record.from_dict(changed if at else value)
                    assert record.versions.items() is not None
                    abstract_params(record.config.model)


def _places(value, at=()):
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*at, key)
        if isinstance(value[key], dict | list):
            yield from _places(value[key], (*at, key))


class TestOnce:
    """Nothing is read, hashed or parsed twice."""

    @pytest.fixture
    def counts(self, monkeypatch):
        opened, calls, real_open = Counter(), Counter(), Path.open

        def counted(module, name):
            function = getattr(module, name)
            return lambda *a, **k: calls.update([name]) or function(*a, **k)

        monkeypatch.setattr(
            Path, "open", lambda p, *a, **k: opened.update([p]) or real_open(p, *a, **k)
        )
        for module, names in ((hashlib, ("sha256", "file_digest")), (json, ("loads",))):
            stand_in = SimpleNamespace(**{name: counted(module, name) for name in names})
            monkeypatch.setattr(manifest, module.__name__, stand_in)
        return opened, calls

    def test_a_released_checkpoint(self, counts):
        opened, calls = counts
        codec.load(RELEASED)
        names = ("config.json", "manifest.json", "params.safetensors", "tables.bin")
        names += ("decoder.bin", "calibration.json", "context.bin")
        assert opened == {RELEASED / name: 1 for name in names}
        assert calls == {"sha256": 6, "loads": 2}

    def test_the_best_step_of_a_workdir(self, counts, workdir):
        opened, calls = counts
        found = find(workdir)
        checkpoint.read_config(found)
        checkpoint.restore(found, {"params": params_of(0)})
        checkpoint.attached(found, "tables.bin")
        best = files_below(found.path)
        assert all(opened[path] == 1 for path in best)
        # Of the other two steps the manifest and the configuration, to compare the scores.
        assert sum(count for path, count in opened.items() if path not in best) == 4
        assert calls["sha256"] + calls["file_digest"] == len(best) - 1 + 2
        assert calls["loads"] == 3 + 4  # manifests, and configurations: the best one's is used
