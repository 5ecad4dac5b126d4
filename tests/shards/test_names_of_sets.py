"""The names of a set's files, and the pattern that stands for them."""

import pytest
from conftest import failure

from cvae_jax.errors import ConfigError, DataError
from cvae_jax.shards import parse, present


def test_a_pattern_names_its_files(tmp_path):
    shards = parse(tmp_path / "a.b@12.cvae")
    assert [p.name for p in shards.paths[:2]] == [
        "a.b-00000-of-00012.cvae",
        "a.b-00001-of-00012.cvae",
    ]
    assert len(shards.paths) == 12
    assert str(shards) == str(tmp_path / "a.b@12.cvae")


@pytest.mark.parametrize("name", ["a.cvae", "@3.cvae", "a@3", "a@x.cvae", "a@.cvae", "a@-1.cvae"])
def test_other_names_mean_themselves(name):
    assert parse(name) is None


def test_a_file_of_that_name_is_meant_itself(tmp_path):
    (tmp_path / "a@3.cvae").touch()
    assert parse(tmp_path / "a@3.cvae") is None


@pytest.mark.parametrize("count", ["0", "100000"])
def test_impossible_numbers_of_shards_are_refused(count):
    assert "1 to 99999" in failure(ConfigError, parse, f"a@{count}.cvae")


def test_the_only_set_is_found(tmp_path):
    assert "no file a-00000-of-" in failure(DataError, parse, tmp_path / "a@*.cvae")
    for k in range(3):
        (tmp_path / f"a-0000{k}-of-00003.cvae").touch()
    (tmp_path / "ab-00000-of-00001.cvae").touch()
    assert parse(tmp_path / "a@*.cvae") == parse(tmp_path / "a@3.cvae")
    (tmp_path / "a-00000-of-00001.cvae").touch()
    assert "sets of 1 and 3 shards" in failure(DataError, parse, tmp_path / "a@*.cvae")


def test_missing_shards_are_named(tmp_path):
    (tmp_path / "a-00000-of-00003.cvae").touch()
    message = failure(DataError, present, tmp_path / "a@3.cvae")
    assert "a-00001-of-00003.cvae, a-00002-of-00003.cvae are missing" in message
    assert "cvae job" in message


def test_a_set_that_is_not_there_is_told_from_one_of_another_number(tmp_path):
    message = failure(DataError, present, tmp_path / "a@8.cvae")
    assert "none of its 8 shards is there" in message
    assert "cvae job" in message
    assert "none" in failure(DataError, present, tmp_path / "nowhere" / "a@8.cvae")
    (tmp_path / "a-00003-of-00016.cvae").touch()
    message = failure(DataError, present, tmp_path / "a@8.cvae")
    assert "no set of 8 shards, but of 16; name it a@16.cvae" in message
