"""The study: comparisons are right, nothing is extrapolated, the files agree with each other."""

import json

import numpy as np
import pytest
from conftest import RELEASED, shared_dir

from cvae_jax import codec, data
from cvae_jax.study import compare, report, sweep
from cvae_jax.study.compare import OWN, TOGETHER


def row(name, size, mse, kind="lossy", regime=TOGETHER, setting="s"):
    psnr = -10 * np.log10(mse) if mse else None
    return {
        "codec": name, "setting": setting, "kind": kind, "regime": regime,
        "bytes_per_image": size, "mse": mse, "psnr_of_mean_mse": psnr,
    }  # fmt: skip


MSE = (0.008, 0.004, 0.002, 0.001)
ANCHOR = [row("other", 100 / (1000 * m), m) for m in MSE]


def test_bjontegaard_of_a_curve_at_half_the_bytes_is_minus_half():
    ours = [row("ours", 50 / (1000 * m), m, "ours") for m in MSE]
    found = compare.bjontegaard(ANCHOR + ours, "ours", TOGETHER, effort=0)
    assert found["bd_rate_percent"] == pytest.approx(-50, abs=0.1)
    assert found["bd_psnr_db"] == pytest.approx(10 * np.log10(2), abs=0.05)
    assert found["bytes_range"] == pytest.approx([12.5, 50])
    assert found["mse_range"] == pytest.approx([0.005, 0.0015])
    same = [{**r, "codec": "ours", "kind": "ours"} for r in ANCHOR]
    found = compare.bjontegaard(ANCHOR + same, "ours", TOGETHER, effort=0)
    assert found["bd_rate_percent"] == pytest.approx(0, abs=1e-6)


def test_the_range_is_what_both_cover_and_never_more():
    short = [row("ours", 50 / (1000 * m), m, "ours") for m in (0.01, 0.003)]
    found = compare.bjontegaard(ANCHOR + short, "ours", TOGETHER, effort=0)
    assert found["mse_range"] == pytest.approx([0.005, 0.003])
    apart = [row("ours", 5, m, "ours") for m in (0.05, 0.02)]
    assert compare.bjontegaard(ANCHOR + apart, "ours", TOGETHER, effort=0) is None
    assert compare.bjontegaard(ANCHOR, "ours", TOGETHER, effort=0) is None


def test_the_anchor_is_the_best_of_all_codecs_at_every_rate():
    worse = [row("worse", 300 / (1000 * m), m) for m in MSE]
    ours = [row("ours", 50 / (1000 * m), m, "ours") for m in MSE]
    with_worse, without = (
        compare.bjontegaard(rows + ours, "ours", TOGETHER, effort=0)
        for rows in (ANCHOR + worse, ANCHOR)
    )
    assert with_worse == without


def test_equal_quality_is_no_higher_an_error():
    rows = [
        row("ours", 5.0, 0.009, "ours", setting="quality 50"),
        row("ours", 17.0, 0.009, "ours", OWN, setting="quality 50"),
        row("a", 50.0, 0.0091), row("b", 60.0, 0.0089), row("c", 70.0, 0.0, "lossless"),
        row("a", 100.0, 0.0091, regime=OWN), row("c", 200.0, 0.0, "lossless", OWN),
    ]  # fmt: skip
    found = compare.compare(rows, ["ours"], effort=1)["ours"]
    assert found["smallest_together"]["codec"] == "b"
    assert found["archive_times_smaller_than_together"] == 12
    assert found["single_times_smaller_than_own_files"] == 200 / 17


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The study of 60 digits, and its files."""
    images = data.load("mnist", "test", shared_dir() / "data")[:60]
    training = data.load("mnist", "train", shared_dir() / "data")[:600]
    codecs = {"mnist": codec.load(RELEASED)}
    said = []
    found = sweep.run(codecs, images, training, said.append)
    out = tmp_path_factory.mktemp("results")
    written = report.write(found, codecs, images, out, "few", "the command")
    return found, out, written, said


def test_every_codec_is_measured_in_every_regime(small):
    found, _, _, said = small
    rows = found.report["rows"]
    assert len(said) == len(rows) == len(found.shown)
    for codec_name in ("JPEG", "WebP", "AVIF", "JPEG XL", "JPEG 2000", "mnist"):
        assert {r["regime"] for r in rows if r["codec"] == codec_name} >= {OWN, TOGETHER}
    assert all(r["mse"] == 0 for r in rows if r["kind"] == "lossless")
    assert all(r["mse"] > 0 for r in rows if r["kind"] != "lossless")
    ours = [r for r in rows if r["codec"] == "mnist" and r["regime"] == TOGETHER]
    plain = [r for r in ours if "effort" not in r["setting"]]
    sizes = [r["bytes_per_image"] for r in plain]
    errors = [r["mse"] for r in plain if r["bytes_per_image"] < 20]
    assert sizes == sorted(set(sizes))
    assert len(errors) > 5
    assert errors[:6] == sorted(errors[:6], reverse=True)
    assert 10 < found.report["comparisons"]["mnist"]["archive_times_smaller_than_own_files"] < 30


def test_the_files_say_what_was_measured(small):
    found, out, written, _ = small
    assert all(path.stat().st_size for path in written)
    stored = json.loads((out / "few.json").read_text())
    assert stored["rows"] == found.report["rows"]
    curve = json.loads((out / "few" / "mnist.compressai.json").read_text())["results"]
    assert len(curve["bpp"]) == len(curve["psnr-rgb"]) == len(sweep.QUALITIES)
    assert curve["bpp"] == sorted(curve["bpp"])
    text = (out / "README.md").read_text()
    assert text == report.overview(out)
    for picture in (out / "few").glob("*.png"):
        assert f"few/{picture.name}" in text
    assert text.count("\n| ") == len(stored["rows"]) + 1
