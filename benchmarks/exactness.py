"""Are pixels the same everywhere:  python -m benchmarks.exactness --data-dir DIR

On MNIST's test images and both released checkpoints: whether the pixels at three qualities are the
same in processes of different settings, by their SHA-256; what integers add to the error; sizes of
the decoder and of a self-contained archive; speeds beside the float decoder's, and of the command
as a whole process.  Writes results/exact.json.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cvae_jax import codec, data
from cvae_jax.coding.quantize import dequantize
from cvae_jax.exact import by_numpy
from cvae_jax.metrics import mse_of_levels
from cvae_jax.pixels import to_levels

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("mnist", "mnist-hq")
QUALITIES = (0, 50, 100)
FEW = 500  # images without jit
REPEATS = 5
# Environment, images at once (0: all), and whether NumPy decodes.
SETTINGS: dict[str, tuple[dict[str, str], int, bool]] = {
    "as it is": ({}, 0, False),
    "SSE4.2": ({"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2"}, 0, False),
    "AVX2": ({"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}, 0, False),
    "one thread": ({"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}, 0, False),
    "x64": ({"JAX_ENABLE_X64": "1"}, 0, False),
    "batches of 1": ({}, 1, False),
    "batches of 7": ({}, 7, False),
    "batches of 4096": ({}, 4096, False),
    "NumPy": ({}, 0, True),
    "without jit": ({"JAX_DISABLE_JIT": "1"}, 0, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "exact.json")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--hash", nargs=4, help=argparse.SUPPRESS)  # in a process of a setting
    args = parser.parse_args()
    if args.hash:
        checkpoint, symbols, size, with_numpy = args.hash
        print(_hash(checkpoint, symbols, int(size), with_numpy == "1"))
        return
    images = data.load("mnist", "test", args.data_dir)[: args.images]
    report = {
        "images": len(images),
        "checkpoints": {name: measure(name, images) for name in NAMES},
        "command_seconds": command_seconds(),
    }
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def measure(name: str, images: np.ndarray) -> dict:
    checkpoint = ROOT / "checkpoints" / name
    c = codec.load(checkpoint)
    model, out = c.file_model, {}
    with tempfile.TemporaryDirectory() as folder:
        hashes: dict[str, dict[str, str]] = {}
        for quality in QUALITIES:
            symbols, step = c.encode_symbols(images, quality)
            exact = c.decode_symbols(symbols, step)
            real = to_levels(c.decode(dequantize(symbols, c.tables, step)))
            errors = mse_of_levels(exact, images), mse_of_levels(real, images)
            out[f"quality {quality}"] = {
                "mse": errors[0],
                "mse_of_float_decoder": errors[1],
                "added_percent": 100 * (errors[0] / errors[1] - 1),
            }
            path = Path(folder) / f"{quality}.npz"
            np.savez(path, symbols=symbols, step=step)
            hashes[str(quality)] = {s: _hash_elsewhere(checkpoint, path, s) for s in SETTINGS}
        out["sha256"] = hashes
        out["one_value"] = {quality: one_value(found) for quality, found in hashes.items()}
    symbols, step = c.encode_symbols(images)
    archive = c.pack(symbols, step, embed_model=True)
    out["tables_bytes"] = len(model.tables.to_bytes())
    out["decoder_bytes"] = len(model.decoder.to_bytes())
    out["model_bytes"] = len(model.pack())
    out["archive_bytes_per_image"] = len(archive) / len(images)
    z = dequantize(symbols, c.tables, step)
    numpy_levels = model.levels_by(by_numpy.decoder)
    some = symbols[:1024]
    out["images_per_second"] = {
        "exact": len(images) / _seconds(functools.partial(c.decode_symbols, symbols, step)),
        "float": len(images) / _seconds(lambda: to_levels(c.decode(z))),
        "numpy": len(some) / _seconds(lambda: numpy_levels(some, step)),
    }
    return out


def one_value(hashes: dict[str, str]) -> bool:
    """Whether the hashes of all settings, ``all/first few``, are of the same pixels."""
    whole, first = zip(*(found.split("/") for found in hashes.values()), strict=True)
    return len(set(first)) == 1 and len({w for w in whole if w != "-"}) == 1


def command_seconds() -> dict[str, float]:
    """Of whole processes, the fastest of several."""
    c = codec.load(ROOT / "checkpoints" / "mnist")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "three.cvae"
        path.write_bytes(c.compress(data.load("digits", "test")[3]))
        out = {}
        for words in (["decompress", path, "-f", "-o", path.with_suffix(".png")], ["info", path]):
            command = [sys.executable, "-m", "cvae_jax", *map(str, words)]
            run = functools.partial(subprocess.run, command, check=True, capture_output=True)
            out[words[0]] = _seconds(run)
    return out


def _hash_elsewhere(checkpoint: Path, symbols: Path, setting: str) -> str:
    environment, size, with_numpy = SETTINGS[setting]
    command = [sys.executable, "-m", "benchmarks.exactness", "--hash", str(checkpoint)]
    command += [str(symbols), str(size), str(int(with_numpy))]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, check=True, capture_output=True
    )
    return done.stdout.decode().split()[-1]


def _hash(checkpoint: str, path: str, size: int, with_numpy: bool) -> str:
    """SHA-256 of all pixels, and of the first FEW images', which is all there is without jit."""
    stored = np.load(path)
    symbols, step = stored["symbols"], int(stored["step"])
    c = codec.load(checkpoint)
    levels = c.file_model.levels_by(by_numpy.decoder) if with_numpy else c.decode_symbols
    few = bool(os.environ.get("JAX_DISABLE_JIT"))
    symbols = symbols[:FEW] if few else symbols
    sha, prefix = hashlib.sha256(), io.BytesIO()
    for start in range(0, len(symbols), size or len(symbols)):
        part = levels(symbols[start : start + (size or len(symbols))], step).tobytes()
        sha.update(part)
        prefix.write(part)
    first = hashlib.sha256(prefix.getvalue()[: FEW * math.prod(c.image_shape)]).hexdigest()
    return f"{'-' if few else sha.hexdigest()}/{first}"


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
