"""The README's figures are those of the repository's files, and what it names exists."""

import json
import re

from conftest import ROOT

from benchmarks import readme
from benchmarks.scale import report
from cvae_jax import codec

TEXT = (ROOT / "README.md").read_text()


def test_tables_are_up_to_date():
    assert readme.filled(TEXT) == TEXT, "run python -m benchmarks.readme"


def test_the_tables_of_scale_are_up_to_date():
    text = report.TEXT.read_text()
    assert report.filled(text) == text, "run python -m benchmarks.scale.report"


def test_released_checkpoints_know_the_sheet_to_beat():
    for name in readme.RELEASES:
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
    assert len(TEXT.split()) < 1950
    first = TEXT.split("## ")[0]
    for words in (
        "all in one file",
        "each a file of its own",
        "the decoder inside",
        "it pays off above",
    ):
        assert words in first


def test_the_lead_has_what_is_lossless(tmp_path, monkeypatch):
    study = json.loads(readme.STUDY.read_text())
    found = study["comparisons"]["mnist"]
    exact = {
        "bound": 0, "bytes_per_image": 98.0, "other": {"codec": "xz", "bytes_per_image": 147.0},
        "single": {"bytes_per_image": 120.0},
        "other_own_file": {"codec": "WebP", "bytes_per_image": 240.0},
        "with_model": {**found["with_model"], "model_bytes": 1234, "pays_from": 5000},
    }  # fmt: skip
    near = {"bound": 4, "bytes_per_image": 50.0, "other": {"codec": "near", "bytes_per_image": 60}}
    found["bounded"] = [near, exact]
    monkeypatch.setattr(readme, "STUDY", tmp_path / "study.json")
    readme.STUDY.write_text(json.dumps(study))
    lead = readme.lead()
    for words in (
        "| lossless | 98.0 bytes each | 147.0 (xz) | 1.50 times smaller |",
        "Lossless is 1.00 bits per pixel (best published likelihood, probabilistic circuits: 1.20)",
        "(1,234 bytes), it pays off above about 5,000 images",
    ):
        assert words in lead
    whole = readme.filled(TEXT)
    assert len(whole.split()) < 1950
