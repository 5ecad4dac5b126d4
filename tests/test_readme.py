"""The README's figures are those of the repository's files, and what it names exists."""

import re

from conftest import ROOT

from benchmarks import readme
from cvae_jax import codec

TEXT = (ROOT / "README.md").read_text()


def test_tables_are_up_to_date():
    assert readme.filled(TEXT) == TEXT, "run python -m benchmarks.readme"


def test_released_checkpoints_know_the_sheet_to_beat():
    for name in ("mnist", "mnist-hq"):
        assert codec.load(name).made_by().best_sheet == readme.best_sheet(name)


def test_every_link_and_module_exists():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    layout = TEXT.split("## How the code is laid out")[1].split("```")[1]
    package = ROOT / "cvae_jax"
    there = {p.stem for p in package.glob("[a-z]*.py")}
    there |= {f"{p.parent.name}/" for p in package.glob("*/__init__.py")}
    assert there <= set(layout.split())


def test_the_first_screen_is_short_and_names_what_the_model_costs():
    assert len(TEXT.split()) < 1600
    first = TEXT.split("## ")[0]
    for words in (
        "all in one file",
        "each a file of its own",
        "the decoder inside",
        "it pays off above",
    ):
        assert words in first
