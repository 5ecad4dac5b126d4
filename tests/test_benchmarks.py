"""The benchmark counts right, divides right, and survives a contestant that fails."""

import numpy as np
import pytest

from benchmarks import contestants, throughput
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
    assert results["against_pytorch"] == {
        "decode 1": {"best": "PyTorch compile", "ratio": pytest.approx(2.0)}
    }
    table = throughput.markdown(results)
    for text in ("train, batch 128", "Linen layers", "500 (compile) | 2.00", "0.50 GB"):
        assert text in table


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


def test_pytorch_does_the_same_work():
    pytest.importorskip("torch")
    make = contestants.pytorch()["PyTorch eager"]
    assert make("encode", 2)().shape == (2, 16)
    assert make("decode", 2)().shape == (2, 1, 28, 28)
    make("train", 2)()
