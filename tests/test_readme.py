"""The README's figures are those of the repository's files, and what it names exists."""

import re

from conftest import ROOT

from benchmarks import readme

TEXT = (ROOT / "README.md").read_text()


def test_tables_are_up_to_date():
    assert readme.filled(TEXT) == TEXT, "run python -m benchmarks.readme"


def test_every_link_and_module_exists():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    layout = TEXT.split("## How the code is laid out")[1]
    named = set(re.findall(r"^\s*(?:cvae_jax/)?(\w+\.py|data/|bitstream/) ", layout, re.MULTILINE))
    there = {p.name for p in (ROOT / "cvae_jax").glob("*.py") if not p.name.startswith("__")}
    assert there | {"data/", "bitstream/"} <= named | {"train.py"}
