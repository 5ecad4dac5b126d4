"""Sizes and times of real files:  python -m benchmarks.compression --data-dir DIR

On MNIST's test images and the released checkpoint: bytes and error at every tenth quality, at
the default one with and without search, of single images, against the ideal of the tables; and
the time of quantising and entropy coding beside the network's.  Every archive is decompressed by
another process.  Writes results/compression.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cvae_jax import backend, codec, data
from cvae_jax.cli.commands.info import bytes_as
from cvae_jax.coding import quantize
from cvae_jax.coding.quantize import DEFAULT_QUALITY
from cvae_jax.coding.vectors import entropy
from cvae_jax.metrics import mse_of_levels

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "mnist"
REPEATS = 7
SINGLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "compression.json")
    args = parser.parse_args()
    backend.use_compilation_cache()
    c = codec.load(CHECKPOINT)
    images = data.load("mnist", "test", args.data_dir)

    def measure(quality: float, effort: int = 0) -> dict[str, float]:
        started = time.perf_counter()
        compressed = c.compress(images, quality, effort)
        seconds = time.perf_counter() - started
        error = mse_of_levels(_decompressed_elsewhere(compressed), images)
        row = {
            "quality": quality,
            "effort": effort,
            "bytes_per_image": len(compressed) / len(images),
            "mse": error,
            "seconds_to_compress": round(seconds, 2),
        }
        print(row, flush=True)
        return row

    curve = [measure(q) for q in range(0, 101, 10)]
    searched = [measure(DEFAULT_QUALITY, effort) for effort in (1, 3, 9)]
    symbols, step = c.encode_symbols(images)
    book = c.tables.book(step)
    stream = len(entropy.encode(symbols, book))
    singles = [c.compress(image) for image in images[:SINGLES]]
    report = {
        "images": len(images),
        "default": next(row for row in curve if row["quality"] == DEFAULT_QUALITY),
        "png_bytes_per_image": bytes_as(".png", images),
        "curve": curve,
        "searched": searched,
        "stream_over_ideal": stream / (book.bits(symbols).sum() / 8),
        "single_image": {
            "images": SINGLES,
            "mean_bytes": float(np.mean([len(one) for one in singles])),
            "largest": max(len(one) for one in singles),
        },
        "seconds": _times(c, images),
    }
    print(json.dumps({k: v for k, v in report.items() if k != "curve"}, indent=2))
    args.json.write_text(json.dumps(report, indent=2) + "\n")


def _decompressed_elsewhere(compressed: bytes) -> np.ndarray:
    """The images of an archive, decompressed by the command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.cvae")
        path.write_bytes(compressed)
        command = [sys.executable, "-m", "cvae_jax", "decompress", path, "-o", f"{path}.npy"]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return np.load(f"{path}.npy")


def _times(c: codec.Codec, images: np.ndarray) -> dict[str, float]:
    """Medians, for all images: the network both ways, and what turns latents into bytes."""
    tables, step = c.tables, quantize.step(DEFAULT_QUALITY)
    z_mean = c.encode(images)
    symbols = quantize.quantize(z_mean, tables, step)
    book = tables.book(step)
    parts = [symbols[i : i + 4096] for i in range(0, len(symbols), 4096)]
    streams = [entropy.encode(part, book) for part in parts]
    work = {
        "network_encode": lambda: c.encode(images),
        "network_decode": lambda: c.decode(z_mean),
        "quantize": lambda: quantize.quantize(z_mean, tables, step),
        "entropy_encode": lambda: [entropy.encode(part, book) for part in parts],
        "entropy_decode": lambda: [
            entropy.decode(s, len(p), book) for s, p in zip(streams, parts, strict=True)
        ],
        "dequantize": lambda: quantize.dequantize(symbols, tables, step),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(REPEATS):
        for name, f in work.items():
            started = time.perf_counter()
            f()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    network = medians["network_encode"] + medians["network_decode"]
    return {**medians, "coding_over_network": (sum(medians.values()) - network) / network}


if __name__ == "__main__":
    main()
