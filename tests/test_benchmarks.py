"""The benchmark counts right, divides right, and survives a contestant that fails."""

import json

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import contestants, exactness, files, fuzz, lossless, readme, throughput
from benchmarks.memory import Peak
from cvae_jax.config import ModelConfig


def test_multiply_adds_of_the_default_model():
    work = throughput.multiply_adds(ModelConfig())
    assert work == {"encode": 1_365_120, "decode": 5_694_976, "train": 3 * 7_060_096}


def test_figures_follow_from_the_medians(monkeypatch):
    monkeypatch.setattr(throughput, "peak_memory_of_training", lambda: 0.5)
    measured = {
        "seconds": {
            ("train 128", "cvae_jax"): 0.1,
            ("train 128", "Linen layers"): 0.8,
            ("train 4096", "cvae_jax"): 4.096,
            ("encode 1", "cvae_jax"): 0.001,
            ("decode 1", "cvae_jax"): 0.001,
            ("decode 1", "PyTorch eager"): 0.004,
            ("decode 1", "PyTorch compile"): 0.002,
            ("decode 1", "OpenVINO, one thread"): 0.0016,
            ("gemm", "cvae_jax"): 2 * throughput.GEMM**3 / 100e9,
        },
        "failed": {},
    }
    results = throughput.report(measured)
    assert results["gemm_gflops"] == pytest.approx(100)
    ours = results["lines"]["train 128"]["cvae_jax"]
    assert ours["images_per_second"] == pytest.approx(1280)
    assert ours["share_of_gemm"] == pytest.approx(1280 * 2 * 3 * 7_060_096 / 100e9)
    assert results["largest_batch_over_best"]["train"] == pytest.approx(1000 / 1280)
    assert results["against_best"] == {
        "decode 1": {"best": "OpenVINO, one thread", "ratio": pytest.approx(1.6)}
    }
    table = throughput.markdown(results)
    fastest = "625 (OpenVINO, one thread) | 1.60"
    for text in ("| train 128 |", "train 128, Linen layers", fastest, "0.50 GB"):
        assert text in table


def test_a_run_may_leave_tasks_out():
    calls = throughput.lines(["encode"], {})
    assert list(calls) == [f"encode {batch}" for batch in throughput.BATCHES]
    seconds = {("encode 1", "cvae_jax"): 0.001, ("gemm", "cvae_jax"): 0.1}
    results = throughput.report({"seconds": seconds, "failed": {}})
    assert results["largest_batch_over_best"] == {"encode": 1.0}
    assert "Peak memory" not in throughput.markdown(results)


def test_a_contestant_that_fails_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(throughput, "PAUSE", 0)

    def broken():
        raise RuntimeError("no compiler\nhere")

    table = {"train 128": {"cvae_jax": lambda: None, "PyTorch compile": broken}}
    measured = throughput.measure(rounds=1, seconds=0, table=table)
    assert measured["failed"] == {"train 128 PyTorch compile": "RuntimeError: no compiler"}
    assert set(measured["seconds"]) == {("train 128", "cvae_jax"), ("gemm", "cvae_jax")}


@pytest.mark.parametrize("make", [contestants.ours, contestants.linen])
def test_contestants_do_what_they_are_timed_for(make):
    encode, decode = (make()(task, 2) for task in ("encode", "decode"))
    assert np.shape(encode()) == (2, 16)
    assert np.shape(decode()) == (2, 28, 28, 1)


def test_pixels_were_the_same_in_all_settings():
    """As they were measured last; the verdict of each quality is that of its hashes."""
    report = json.loads((ROOT / "results" / "exact.json").read_text())
    assert sorted(report["checkpoints"]) == sorted(exactness.NAMES)
    for found in report["checkpoints"].values():
        assert found["one_value"] == {str(quality): True for quality in exactness.QUALITIES}
        for hashes in found["sha256"].values():
            assert set(hashes) == set(exactness.SETTINGS)
            assert exactness.one_value(hashes)
            others = ("0" * 64, hashes["NumPy"].split("/")[1]), ("-", "0" * 64)
            for whole, first in others:
                assert not exactness.one_value({**hashes, "x64": f"{whole}/{first}"})


def test_thousands_of_hostile_files_are_refused_cheaply(tmp_path):
    """Every input is checked by the fuzzer itself; 200,000 others are in results/fuzz.json."""
    report = fuzz.run(2000, seed=1, failure=tmp_path / "failure.bin")
    outcomes = report["outcomes"]
    assert sum(outcomes.values()) == 2000
    # Not all of them stop at the first check.
    assert outcomes["a valid archive"] > 80
    assert outcomes["a valid image"] > 80
    assert outcomes["FormatError"] > 800


def test_an_input_that_costs_too_much_fails_the_fuzzing(tmp_path, monkeypatch):
    failure = tmp_path / "failure.bin"
    monkeypatch.setattr(fuzz, "SECONDS", -1.0)
    with pytest.raises(fuzz.Excess, match="at most"):
        fuzz.run(5, seed=0, failure=failure)
    assert failure.is_file()


def test_a_bar_of_lossless_files_is_met_or_missed():
    one = {"images": 10, "identical": 10, "bytes_per_image": 90.0, "share_of_raw": 0.5}
    others = [{"codec": "JPEG-LS, lossless", "bytes": 2000}, {"codec": "xz", "bytes": 1500}]
    sizes = {"bits_per_pixel": 1.2, "bytes": 1000, "bytes_with_model": 1600, "largest_error": 0}
    report = {
        "images": 10,
        "context_bytes": 50_000,
        "archives": {"0": sizes, "4": {**sizes, "bytes": 600, "largest_error": 4}},
        "others": {"0": others, "4": [*others, {"codec": "JPEG-LS, NEAR 4", "bytes": 1300}]},
        "unknown": {"patches": one, "noise": {**one, "identical": 9}},
        "own_models": {"patches": {**one, "others": others}},
        "speeds": {"1000": {"encode": 1600, "decode": 900}},
        "sha256": {
            "pixels": "a",
            "decompressed": {"as it is": "a", "Haswell": "b"},
            "compressed": {"as it is": "a"},
            "chunks": {"7": {"identical": True}},
        },
    }
    found = {bar["what"]: bar for bar in lossless.bars(report)}
    assert {what for what, bar in found.items() if not bar["met"]} == {
        "lossless, bits per pixel",
        "lossless with the models inside, against the smallest of all others",
        "settings and chunks with other pixels",
        "identical after the round trip, noise",
        "decode, batches of 1000, images/s",
    }
    assert found["max error 4, against JPEG-LS's sheet"]["measured"] == pytest.approx(600 / 1300)
    assert found["patches with their model, against JPEG-LS"]["measured"] == pytest.approx(0.45)


def test_a_bar_of_whole_files_is_met_or_missed():
    def row(compress, decompress, *peaks):
        commands = zip(("compress", "decompress"), (compress, decompress), peaks, strict=True)
        found = {c: {"images_per_second": rate, "peak_mb": mb} for c, rate, mb in commands}
        return {**found, "decompress_over_decoder": decompress / 14_000}

    rows = {"60000": row(17_000, 12_000, 500, 600), "1000000": row(20_000, 14_000, 540, 800)}
    found = {bar["what"]: bar for bar in files.bars({"files": rows})}
    assert len(found) == 8
    assert {what for what, bar in found.items() if not bar["met"]} == {
        "decompress, 60000 images, share of the decoder's own rate",
        "decompress, 1000000 images, peak MB",
        "decompress, growth of the peak with the images",
    }
    assert len(files.bars({"files": {"60000": rows["60000"]}})) == 4


def test_rates_leave_start_up_out():
    def took(seconds):
        return {name: {"seconds": seconds, "peak_mb": 300} for name in ("compress", "decompress")}

    rounds = [files.one_round(60, 20, took(4 + x), took(2 + x), 20) for x in (0, 0.5, 3)]
    found = files.medians(rounds)
    assert found["decoder"] == found["compress"]["images_per_second"] == 20
    assert found["compress"]["with_start_up"] == pytest.approx(60 / 4.5)
    assert found["compress"]["start_up_seconds"] == pytest.approx(1.5)
    assert found["decompress_over_decoder"] == 1


def test_a_command_is_measured_with_its_memory(tmp_path):
    checkpoint = ROOT / "checkpoints" / "mnist"
    found = files.measured("model", checkpoint, "-o", tmp_path / "model.cvae")
    assert (tmp_path / "model.cvae").is_file()
    assert 0 < found["seconds"] < 100
    assert 10 < found["peak_mb"] < 1000


def test_a_large_file_is_the_images_and_then_the_same_shifted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    files.write_repeated(tmp_path / "images.npy", images, 11)
    written = np.load(tmp_path / "images.npy")
    assert written.shape == (11, 28, 28, 1)
    np.testing.assert_array_equal(written[:4], images)
    (first, second), (third, fourth) = files.SHIFTS[1:3]
    np.testing.assert_array_equal(written[4:8], np.roll(images, (first, second), (1, 2)))
    np.testing.assert_array_equal(written[8:], np.roll(images[:3], (third, fourth), (1, 2)))


def test_other_codecs_bring_the_images_back():
    pytest.importorskip("imagecodecs")
    images = np.zeros((40, 28, 28, 1), np.uint8)
    images[:, 8:20, 10:18] = np.arange(40, dtype=np.uint8)[:, None, None, None] * 6
    rows = {row["codec"]: row for row in files.others(images, mse=0.001)}
    assert list(rows) == ["JPEG", "WebP", "zstd"]
    assert rows["zstd"]["mse"] == 0
    for row in rows.values():
        assert 0 < row["bytes_per_image"] < 784
        assert row["mse"] < 0.01
        assert min(row["compress"], row["decompress"]) > 0


def test_images_that_no_model_knows():
    pytest.importorskip("skimage")
    for images in lossless.unknown(5).values():
        assert images.shape == (5, 28, 28, 1)
        assert images.dtype == np.uint8


def test_peak_memory_is_what_was_used_since():
    peak = Peak()
    block = np.ones(100_000_000, np.uint8)  # too large to come from memory that was freed
    del block
    assert 90 < peak.megabytes() < 140
    assert Peak().megabytes() < 20


def test_pytorch_does_the_same_work():
    pytest.importorskip("torch")
    make = contestants.pytorch()["PyTorch eager"]
    assert make("encode", 2)().shape == (2, 16)
    assert make("decode", 2)().shape == (2, 1, 28, 28)
    make("train", 2)()


@pytest.mark.parametrize("name", ["ONNX Runtime", "OpenVINO"])
@pytest.mark.parametrize("task", ["encode", "decode"])
def test_runtimes_compute_what_we_do(name, task):
    modules, contestants_of = contestants.RIVALS[name]
    for module in modules:
        pytest.importorskip(module)
    expected = contestants.ours()(task, 3)()
    for make in contestants_of().values():
        found = make(task, 3)()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_framework_that_is_not_installed_is_named(monkeypatch):
    ready = {"made up": lambda task, batch: lambda: None}
    rivals = {"Here": (("numpy",), lambda: ready), "Gone": (("numpy", "no_such_module"), dict)}
    monkeypatch.setattr(contestants, "RIVALS", rivals)
    assert contestants.rivals() == (ready, {"Gone": "not installed: no_such_module"})


def test_the_readme_shows_what_has_been_measured(tmp_path, monkeypatch):
    row = {"bytes_per_image": 5.07, "mse": 0.0085, "decoder": 13_000, "decompress_over_decoder": 1}
    both = {
        name: {"images_per_second": rate, "peak_mb": mb}
        for name, rate, mb in (("compress", 17_000, 400), ("decompress", 12_500, 390))
    }
    zstd = {"codec": "zstd", "bytes_per_image": 166, "mse": 0, "compress": 9e5, "decompress": 2e6}
    searched = [
        {"effort": e, "images_per_second": rate, "share_of_gain": share, "bytes_per_image": 5.1}
        for e, rate, share in ((0, 30_000, 0), (1, 1700, 0.46), (2, 900, 1.02), (9, 80, 1.5))
    ]
    measured = {
        "FILES": {"files": {"60000": row | both, "1000000": row | both}, "others": [zstd]},
        "SEARCH": {"mnist": {"rows": [{**row, "mse": 0.008} for row in searched]}},
        "STARTUP": {"rows": {"compress": {"seconds": 0.91}}},
    }
    for name, content in measured.items():
        monkeypatch.setattr(readme, name, tmp_path / name)
        before = readme.filled((ROOT / "README.md").read_text())
        (tmp_path / name).write_text(json.dumps(content))
        assert readme.filled(before) != before
    text = readme.filled(before)
    for words in (
        "| `cvae`, MSE 0.0085 | 5.1 | 17,000 | 12,500 |",
        "| zstd, lossless | 166.0 | 900,000 | 2,000,000 |",
        "in at most 400 MB (1,000,000 images: 400)",
        "at effort 1 5.10, MSE 0.0080 (1,700 images/s, 46% of a full round's gain)",
        "at effort 2 5.10, MSE 0.0080 (900 images/s, 102% of a full round's gain)",
        "`cvae compress one.png` takes 0.9 s",
    ):
        assert words in text
    assert len(text.split()) < 1950
