"""The study: comparisons are right, nothing is extrapolated, the files agree with each other."""

import json

import numpy as np
import pytest
from conftest import RELEASED
from matplotlib.text import Text

from cvae_jax import codec, data, metrics
from cvae_jax.config import Config
from cvae_jax.data.holdout import TrainingData
from cvae_jax.runs import plots
from cvae_jax.runs.run.keeper import Pictures
from cvae_jax.study import compare, figures, lossless, report, sweep
from cvae_jax.study.compare import OWN, TOGETHER, WITH_MODEL

pytest.importorskip("imagecodecs")


def row(name, size, mse, kind="lossy", regime=TOGETHER, setting="s", bound=None, max_error=255):
    psnr = -10 * np.log10(mse) if mse else None
    return {
        "codec": name, "setting": setting, "kind": kind, "regime": regime, "images": 100,
        "bytes_per_image": size, "mse": mse, "psnr_of_mean_mse": psnr,
        "bound": bound, "max_error": max_error if mse else 0,
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


def test_pca_takes_part_in_the_comparison():
    ours = [row("ours", 50 / (1000 * m), m, "ours") for m in MSE]
    linear = [row("PCA", 25 / (1000 * m), m, "baseline") for m in MSE]
    found = compare.bjontegaard(ANCHOR + linear + ours, "ours", TOGETHER, effort=0)
    assert found["bd_rate_percent"] == pytest.approx(100, abs=0.1)


def test_the_envelope_is_the_lowest_curve_and_not_a_line_between_curves():
    """Of two codecs that take turns, and of one with few settings between which it is best."""
    few = [(10.0, 20.0), (1000.0, 40.0)]  # 10 dB for ten times the bytes
    many = [(30.0, 20.0), (120.0, 30.0), (500.0, 40.0)]
    psnr = np.array([19.0, 20.0, 30.0, 40.0])
    sizes, chosen = compare.envelope([few, many], psnr)
    np.testing.assert_allclose(sizes, [10, 10, 100, 500])
    assert chosen.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(compare.highest([few, many], sizes[1:]), psnr[1:])
    assert np.isinf(compare.envelope([few, many], np.array([40.1]))[0])
    assert np.isinf(compare.highest([few, many], np.array([9.9])))
    np.testing.assert_allclose(compare.envelope([[(5.0, 30.0)]], psnr[:3])[0], 5)


def test_a_codec_cannot_get_worse_by_another_settings():
    """The minimum of curves is never above any, whatever their settings are."""
    rng = np.random.default_rng(0)
    curves = [
        list(zip(np.cumsum(rng.random(5)) + 1, 20 + np.cumsum(4 * rng.random(5)), strict=True))
        for _ in range(6)
    ]
    psnr = np.linspace(20, 28, 50)
    whole, chosen = compare.envelope(curves, psnr)
    alone = np.array([compare.envelope([one], psnr)[0] for one in curves])
    assert np.array_equal(whole, alone.min(0))
    assert np.array_equal(whole, alone[chosen, np.arange(50)])
    assert np.all(np.diff(whole) >= 0)


def test_deltas_are_over_the_range_that_is_stated_and_of_the_codecs_that_are_named():
    ours = [row("ours", 50 / (1000 * m), m, "ours") for m in MSE]
    worse = [row("worse", 300 / (1000 * m), m) for m in MSE]
    found = compare.bjontegaard(ANCHOR + worse + ours, "ours", TOGETHER, 0, (0.006, 0.0022))
    assert found["mse_range"] == pytest.approx([0.006, 0.0022])
    assert found["of"] == ["other"]
    assert found["bd_rate_percent"] == pytest.approx(-50, abs=0.1)


def test_colour_has_a_column_for_luma_and_grey_none():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 12, 12, 3), np.uint8)
    decoded = images // 2
    found = sweep.quality(images, decoded)
    luma = [x @ (0.299, 0.587, 0.114) for x in (images, decoded)]
    mse = np.mean((luma[0] - luma[1]) ** 2) / 255**2
    assert found["psnr_of_mean_mse_luma"] == pytest.approx(-10 * np.log10(mse), rel=1e-4)
    assert found["mse"] == pytest.approx(metrics.mse_of_levels(images, decoded))
    assert sweep.quality(images, images)["psnr_of_mean_mse_luma"] is None
    of_row = {**row("ours", 5, 0.01), "mean_psnr": 20.0, "ssim": None}
    assert "| in luma |" in report.table([{**of_row, **found}])
    assert "luma" not in report.table([of_row])
    assert "psnr_of_mean_mse_luma" not in sweep.quality(images[..., :1], decoded[..., :1])


LIKE_WITH_LIKE = [
    row("ours", 5.0, 0.009, "ours", setting="quality 50"),
    row("ours", 17.0, 0.009, "ours", OWN, setting="quality 50"),
    row("ours", 95.0, 0.009, "ours", WITH_MODEL, setting="quality 50"),
    row("a", 50.0, 0.0091), row("b", 60.0, 0.0089), row("c", 70.0, 0.0, "lossless"),
    row("a", 100.0, 0.0091, regime=OWN), row("c", 200.0, 0.0, "lossless", OWN),
]  # fmt: skip


def test_equal_quality_is_no_higher_an_error():
    found = compare.compare(LIKE_WITH_LIKE, ["ours"])["ours"]
    assert found["smallest_together"]["codec"] == "b"
    assert found["archive_times_smaller_than_together"] == 12
    assert found["single_times_smaller_than_own_files"] == 200 / 17
    assert found["smallest_pca"] == {TOGETHER: None, OWN: None}


def test_what_the_model_costs_is_counted():
    """100 images with the model inside take 9,500 bytes, of which it is 9,000; others, 60 each."""
    found = compare.with_model(LIKE_WITH_LIKE, "ours")
    assert (found["bytes"], found["model_bytes"], found["other_bytes"]) == (9500, 9000, 6000)
    since = found["pays_from"]
    assert 9000 + 5 * since < 60 * since
    assert 9000 + 5 * (since - 1) >= 60 * (since - 1)
    # PCA, which needs a model too, is no answer to what one costs; a codec below ours is.
    linear = row("PCA", 4.0, 0.008, "baseline")
    assert compare.with_model([*LIKE_WITH_LIKE, linear], "ours") == found
    assert compare.with_model([*LIKE_WITH_LIKE, row("d", 5.0, 0.0)], "ours")["pays_from"] is None
    wins = compare.compare([*LIKE_WITH_LIKE, linear], ["ours"])["ours"]
    assert wins["smallest_pca"][TOGETHER]["codec"] == "PCA"
    assert "and so wins" in report.summary({"comparisons": {"ours": wins}})


BOUNDED = [
    *LIKE_WITH_LIKE,
    row("ours", 40.0, 1e-5, "ours", setting="max error 4", bound=4, max_error=4),
    row("ours", 140.0, 1e-5, "ours", WITH_MODEL, setting="max error 4", bound=4, max_error=4),
    row("d", 55.0, 1e-6, max_error=5), row("e", 66.0, 1e-4, "bounded", bound=4, max_error=4),
]  # fmt: skip


def test_files_with_a_bound_are_compared_under_the_same_bound():
    """Not with a smaller file of less error on average and a pixel that is off by more."""
    (found,) = compare.compare(BOUNDED, ["ours"])["ours"]["bounded"]
    assert (found["bound"], found["bytes_per_image"], found["max_error"]) == (4, 40.0, 4)
    assert found["other"]["codec"] == found["with_model"]["other"]["codec"] == "e"
    assert found["with_model"]["model_bytes"] == 10_000
    assert "single" not in found
    without = compare.compare(LIKE_WITH_LIKE, ["ours"])["ours"]
    assert compare.compare(BOUNDED, ["ours"])["ours"]["default"] == without["default"]


def test_no_curve_of_the_lossy_joins_those_with_a_bound():
    rows = [r | {"bound": None} for r in ANCHOR] + [row("other", 400, 0, "lossless", bound=0)]
    sizes, psnr = figures._curve(rows, TOGETHER, top=99)
    assert (sizes[-1], psnr[-1]) == (400, 99)
    assert np.isnan(psnr[-2])
    near = [row("near", 300, 1e-5, "bounded", bound=4), row("near", 400, 0, "lossless", bound=0)]
    assert figures._curve(near, TOGETHER, top=99) == ([300, 400], [pytest.approx(50), 99])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The study of 30 digits, and its files."""
    images = data.load("digits", "test")[:30]
    training = data.load("digits", "train")[:600]
    codecs = {"mnist": codec.load(RELEASED)}
    said = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweep, "FEW_SINGLES", 1)  # each takes as long as the archive
        patched.setattr(lossless, "BOUNDS", (0, 4))
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
    assert all((r["mse"] == 0) == (r["bound"] == 0) for r in rows)
    ours = [r for r in rows if r["codec"] == "mnist" and r["regime"] == TOGETHER]
    plain = [r for r in ours if r["bound"] is None and "effort" not in r["setting"]]
    sizes = [r["bytes_per_image"] for r in plain]
    errors = [r["mse"] for r in plain if r["bytes_per_image"] < 20]
    assert sizes == sorted(set(sizes))
    assert len(errors) > 5
    assert errors[:6] == sorted(errors[:6], reverse=True)
    comparison = found.report["comparisons"]["mnist"]
    for regime, best in ((OWN, "smallest_own_file"), (TOGETHER, "smallest_together")):
        good = [r for r in rows if r["kind"] in ("lossy", "lossless") and r["regime"] == regime
                and r["mse"] <= comparison["default"]["mse"]]  # fmt: skip
        assert comparison[best]["bytes_per_image"] == min(r["bytes_per_image"] for r in good)
    assert "PCA, 16 components" in {r["codec"] for r in rows if r["regime"] == OWN}
    whole = next(r for r in rows if r["regime"] == WITH_MODEL and r["bound"] is None)
    assert comparison["with_model"]["bytes"] == round(30 * whole["bytes_per_image"]) > 80_000


def test_no_pixel_is_off_by_more_than_is_promised(small):
    rows = small[0].report["rows"]
    bounded = [r for r in rows if r["bound"] is not None]
    assert {r["kind"] for r in bounded} >= {"lossless", "bounded"}
    assert all(r["max_error"] <= r["bound"] for r in bounded)
    assert all(r["max_error"] > 8 for r in rows if r["setting"] == "quality 50")
    for regime in (TOGETHER, OWN, WITH_MODEL):
        ours = [r for r in bounded if (r["codec"], r["regime"]) == ("mnist", regime)]
        assert [r["max_error"] for r in ours] == [4, 0]


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
    table = text.split("Every setting that was measured:")[1]
    assert table.count("\n| ") == len(stored["rows"]) + 1


def test_a_study_of_an_earlier_version_is_named_and_no_obstacle(tmp_path):
    old = {"command": "the command", "dataset": "old", "images": 3, "image_shape": [2, 2, 1],
           "rows": [], "comparisons": {"mnist": {"default": {}}}}  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "other.json").write_text("{}")
    assert "earlier version: run the command again" in report.overview(tmp_path)


def test_it_is_said_that_images_had_been_jpeg_files(tmp_path):
    study = {"command": "the command", "images": 3, "image_shape": [2, 2, 3], "rows": [],
             "comparisons": {}}  # fmt: skip
    for name, from_jpeg in (("cifar10", True), ("others", True), ("plain", False)):
        content = {**study, "dataset": name, "from_jpeg": from_jpeg}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    cifar, others, plain = report.overview(tmp_path).split("\n## ")[1:]
    assert "come from JPEG files of quality 75 with colours at half resolution (4:2:0)" in cifar
    assert "come from JPEG files. " in others
    assert "JPEG" not in plain


def texts(figure):
    """Everything that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_this_codec_has_a_row_in_every_picture_of_images(small):
    found = small[0]
    images = data.load("digits", "test")[:30]
    # As for scikit-learn's digits, of which no setting of ours takes as many bytes as any sheet.
    tiny = [{**r, "bytes_per_image": 1.0} if r["kind"] == "ours" else r
            for r in found.report["rows"]]  # fmt: skip
    found = found._replace(report={**found.report, "rows": tiny})
    for figure in (figures.equal_bytes(found, images), figures.equal_quality(found, images)):
        written = texts(figure)
        assert "this codec, mnist, quality" in written
        assert ", effort" not in written, "a searched row would have to say so"
        assert "30 images in one file" in written


def test_curves_are_told_apart_without_colour(small):
    """No two of a panel share a marker and a line; the legend hides none of them."""
    figure = figures.rate_distortion(small[0], ["mnist"])
    for axes in figure.axes:
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        looks = [(line.get_marker(), line.get_linestyle()) for line in drawn]
        assert len(set(looks)) == len(looks)
        ours = {line.get_marker() for line in drawn if "this codec" in line.get_label()}
        assert not ours & {x.get_marker() for x in drawn if "this codec" not in x.get_label()}
        assert axes.get_legend() is None
    assert "two rounds of searching" in texts(figure).replace("\n", " ")
    assert len(figure.legends) == 1


def test_traversals_say_which_latent_how_spread_and_what_values():
    c, images = codec.load(RELEASED), data.load("digits", "test")[:50]
    written = texts(figures.traversals(c, images, rows=3))
    spread = c.encode(images).std(0)
    assert f"latent {spread.argmax()}\nspread {spread.max():.2f}" in written
    assert all(f"\n{value}\n" in f"\n{written}\n" for value in ("-3", "0", "+3"))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pictures_of_very_few_images(n):
    c, images = codec.load(RELEASED), data.load("digits", "test")[:n]
    assert "digit" not in texts(figures.interpolation(c, images))
    figures.traversals(c, images, rows=2)


def test_images_are_taken_from_all_over():
    """A folder of classes has them in order: the first 64 would be one class."""
    classes = np.repeat(np.arange(10), 30)
    assert list(np.bincount(plots.spread(classes, 60))) == [6] * 10
    assert list(plots.spread(classes[:3], 60)) == [0, 0, 0]
    assert len(plots.spread(classes[:0], 60)) == 0


def test_a_runs_pictures_show_every_class(tmp_path):
    classes = np.repeat(np.arange(10, dtype=np.uint8), 30)[:, None, None, None]
    images = np.tile(classes, (1, 28, 28, 1))
    data_of_run = TrainingData.split("classes", images, images, 0.1)
    pictures = Pictures(Config(), data_of_run, tmp_path)
    assert set(pictures.images[:, 0, 0, 0]) == set(range(10))


@pytest.mark.parametrize("term", ["bce", "mse", "charbonnier"])
def test_loss_curves_of_any_loss_show_every_epoch(term):
    values = [("loss", 900), (term, 850), ("kl", 20), ("validation_loss", 920)]
    rows = [
        {"step": 5 * n, "epoch": n, "images_per_second": 3.0} | {k: v / n for k, v in values}
        for n in range(1, 9)
    ]
    figure = plots.loss_curves(rows, term)
    left, right = figure.axes
    assert f"reconstruction ({term})" in texts(figure)
    assert left.get_ylim()[0] < 900 / 8
    assert left.get_ylim()[1] > 920
    assert right.get_ylim()[1] > 850
    plots.loss_curves([], term)
    plots.loss_curves([{**rows[0], term: -3.0, "loss": -1.0}], term)  # a loss may be below zero
