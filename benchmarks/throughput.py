"""Images per second of training, encoding and decoding, beside the machine and other frameworks.

    python -m benchmarks.throughput [--rounds 7] [--json results/throughput.json]
    python -m benchmarks.throughput --tasks encode --json encode.json   # a shorter run
    python -m benchmarks.throughput --markdown results/throughput.json

The others are PyTorch (eager, channels_last, compiled) and, for encoding and decoding, ONNX
Runtime and OpenVINO, each with its default threads and with one thread; a ratio is against the
fastest of them.

Every contestant takes its turn in every round, so that a machine that drifts drifts for all;
figures are medians over the rounds.  A line's share of the limit is its exact multiply-adds over
the rate of a large matrix product in the same rounds.  Encoding and decoding start and end with
numpy arrays, as for a user.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from benchmarks import contestants
from cvae_jax import backend
from cvae_jax.config import ModelConfig
from cvae_jax.conv import output_size

TASKS = ("train", "encode", "decode")
TRAIN_BATCHES = (32, 128, 512, 4096)
COMPARED = (128, 512)  # of them, those that others train with too
BATCHES = (1, 128, 1024, 4096)
SECONDS = 0.4  # of each contestant's turn
PAUSE = 0.25  # before it, see `timed`
GEMM = 2048


def multiply_adds(model: ModelConfig) -> dict[str, int]:
    """Exact multiply-adds per image of the encoder's mean, the decoder and a training step."""
    size, channels, encoder, sizes = (model.height, model.width), model.channels, 0, []
    for features in model.filters:
        sizes.append(size)
        size = output_size(size, 2)
        encoder += size[0] * size[1] * 9 * channels * features
        channels = features
    flat = size[0] * size[1] * channels
    encoder += flat * model.dense_width + 2 * model.dense_width * model.latent_dim
    decoder = model.latent_dim * flat
    for features, larger in zip(model.filters[::-1], sizes[::-1], strict=True):
        decoder += size[0] * size[1] * 9 * channels * features
        size, channels = larger, features
    decoder += size[0] * size[1] * 9 * channels * model.channels
    return {"encode": encoder, "decode": decoder, "train": 3 * (encoder + decoder)}


def gemm_call() -> Callable[[], object]:
    a = jnp.ones((GEMM, GEMM))
    product = jax.jit(lambda a: a @ a)
    return lambda: product(a).block_until_ready()


def lines(
    tasks: Sequence[str], rivals: dict[str, contestants.Make]
) -> dict[str, dict[str, contestants.Call]]:
    """Label of a line -> contestant -> call."""
    ours, linen = contestants.ours(), contestants.linen()
    table: dict[str, dict[str, contestants.Call]] = {}
    for task in tasks:
        for batch in TRAIN_BATCHES if task == "train" else BATCHES:
            row = table.setdefault(f"{task} {batch}", {})
            row["cvae_jax"] = ours(task, batch)
            if batch == 128:
                row["Linen layers"] = linen(task, batch)
            for name, make in rivals.items():
                if task != "train" or (name.startswith(contestants.TRAINS) and batch in COMPARED):
                    row[name] = make(task, batch)
    return table


def timed(call: contestants.Call, seconds: float) -> float:
    """Seconds of one call, over as many as fit into a turn (at least one).

    The pause and the call before the clock starts belong to nobody: threads of the contestant
    before still spin for a while, and caches hold its data.
    """
    time.sleep(PAUSE)
    call()
    started, calls = time.perf_counter(), 0
    while True:
        call()
        calls += 1
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return elapsed / calls


def measure(rounds: int, seconds: float, table: dict[str, dict[str, contestants.Call]]) -> dict:
    """Medians over the rounds: seconds of a call for every line and contestant, and of the GEMM.

    A contestant that fails is left out, with its reason under "failed".
    """
    calls = {(line, who): call for line, row in table.items() for who, call in row.items()}
    calls["gemm", "cvae_jax"] = gemm_call()
    failed, seen = {}, {key: [] for key in calls}
    with tqdm(total=(rounds + 1) * len(calls), unit="turn", disable=not sys.stderr.isatty()) as bar:
        for turn in range(rounds + 1):
            for key in list(calls):
                bar.update()
                try:
                    if turn == 0:  # compiles, and warms up
                        for _ in range(2):
                            calls[key]()
                    else:
                        seen[key].append(timed(calls[key], seconds))
                except Exception as error:  # another framework's trouble is only reported
                    failed[" ".join(key)] = f"{type(error).__name__}: {error}".splitlines()[0]
                    del calls[key]
    return {"seconds": {key: statistics.median(seen[key]) for key in calls}, "failed": failed}


def report(measured: dict) -> dict[str, Any]:
    """The figures as they go into the JSON file."""
    seconds = measured["seconds"]
    gemm = 2 * GEMM**3 / seconds["gemm", "cvae_jax"]
    work = multiply_adds(ModelConfig())
    rows = {}
    for (line, who), s in seconds.items():
        if line == "gemm":
            continue
        task, batch = line.split()
        rate = int(batch) / s
        row = {"images_per_second": rate, "milliseconds": 1000 * s}
        row["share_of_gemm"] = rate * 2 * work[task] / gemm
        rows.setdefault(line, {})[who] = row
    tasks = {line.split()[0]: None for line in rows}  # in order
    ratios = {}
    for line, row in rows.items():
        rivals = {
            who: found["images_per_second"]
            for who, found in row.items()
            if who.startswith(tuple(contestants.RIVALS))
        }
        if rivals:
            best = max(rivals, key=rivals.get)
            ratio = row["cvae_jax"]["images_per_second"] / rivals[best]
            ratios[line] = {"best": best, "ratio": ratio}
    return {
        "machine": machine(),
        "gemm_gflops": gemm / 1e9,
        "lines": rows,
        "against_best": ratios,
        "largest_batch_over_best": {task: _largest_over_best(rows, task) for task in tasks},
        "peak_memory_of_training_gb": peak_memory_of_training() if "train" in tasks else None,
        "left_out": measured["failed"],
    }


def _largest_over_best(rows: dict, task: str) -> float:
    rates = {
        int(line.split()[1]): row["cvae_jax"]["images_per_second"]
        for line, row in rows.items()
        if line.startswith(task)
    }
    return rates[max(rates)] / max(rates.values())


def machine() -> dict[str, Any]:
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    for name in ("torch", "onnxruntime", "openvino"):
        if name in sys.modules:
            versions[name] = sys.modules[name].__version__.split("-")[0]  # OpenVINO's is long
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        **versions,
    }


def peak_memory_of_training() -> float:
    """GB that a process needs at most which trains a while on as many images as MNIST has."""
    code = "from benchmarks.throughput import train_a_while; train_a_while()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def train_a_while() -> None:
    call = contestants.ours()("train", 128)
    for _ in range(50):
        call()
    print(peak_memory() / 1e9)


def peak_memory() -> float:
    """Bytes; from /proc where there is one, as getrusage counts a parent's memory in too."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def accelerator() -> dict[str, float]:
    """Training images/s with an epoch as one dispatch, in both precisions; decoding."""
    figures = {}
    for dtype in ("float32", "bfloat16"):
        call = contestants.ours(contestants.CONFIG.replace(compute_dtype=dtype))("train", 128)
        call()
        images = len(contestants.IMAGES) // 128 * 128
        figures[f"train 128 {dtype}"] = images / timed(call, SECONDS)
    return figures


def markdown(results: dict[str, Any]) -> str:
    """All lines as a table."""
    lines = [
        f"{conditions(results)}; matrix products run at {results['gemm_gflops']:.0f} GFLOP/s.",
        "",
        "| task, batch | images/s | ms per call | of the limit | fastest other | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for line, row in results["lines"].items():
        lines.append(
            f"{_cells(line, row['cvae_jax'])} {' | '.join(fastest_other(results, line))} |"
        )
        if "Linen layers" in row:
            lines.append(f"{_cells(f'{line}, Linen layers', row['Linen layers'])} | |")
    memory = results["peak_memory_of_training_gb"]
    if memory is not None:
        lines += ["", f"Peak memory of training on 60,000 images: {memory:.2f} GB."]
    return "\n".join(lines)


def conditions(results: dict[str, Any]) -> str:
    """The machine and the versions."""
    m = results["machine"]
    names = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    versions = "".join(f", {name} {m[key]}" for key, name in names.items() if key in m)
    return f"{m['cpu']}, {m['cores']} cores; Python {m['python']}, jax {m['jax']}{versions}"


def fastest_other(results: dict[str, Any], line: str) -> tuple[str, str]:
    """Its images/s and name, and how many times as fast we are; empty where nobody else ran."""
    if line not in results["against_best"]:
        return "", ""
    best = results["against_best"][line]
    rate = results["lines"][line][best["best"]]["images_per_second"]
    return f"{rate:,.0f} ({best['best']})", f"{best['ratio']:.2f}"


def _cells(label: str, found: dict[str, float]) -> str:
    return (
        f"| {label} | {found['images_per_second']:,.0f} | {found['milliseconds']:.2f} "
        f"| {found['share_of_gemm']:.0%} |"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--json", type=Path, default=Path("results/throughput.json"))
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="only show this result")
    args = parser.parse_args(argv)
    if args.markdown:
        print(markdown(json.loads(args.markdown.read_text())))
        return 0
    rivals, left_out = contestants.rivals()
    measured = measure(args.rounds, SECONDS, lines(args.tasks, rivals))
    results = report(measured | {"failed": left_out | measured["failed"]})
    if not backend.on_cpu():
        results["accelerator"] = accelerator()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
