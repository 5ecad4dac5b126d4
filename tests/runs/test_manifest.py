"""The manifest: whatever happens to a checkpoint's files is noticed."""

import random

import checkpoint_samples
import pytest
from checkpoint_samples import failure, files_below, flip_a_bit, params_of

from cvae_jax.runs import checkpoint, manifest
from cvae_jax.runs.find import find

originals = checkpoint_samples.originals
saved = checkpoint_samples.saved


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
