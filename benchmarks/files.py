"""From file to file, as a user waits for it:  python -m benchmarks.files --data-dir DIR

``cvae compress`` and ``cvae decompress`` of MNIST's training images, and of a million that are
those images shifted, as .npy files, each command in a process of its own: images per second with
and without start-up, and peak memory.  Without start-up means more images over the more time that
they take: what the same command takes for a third of them, and at most for 20,000, is subtracted
from both.  (One image would not do: few are decoded without JAX.)  Files come from the page cache,
and compiled code from a cache that a first round filled.  Beside it, in the same run: the integer
decoder on its own, and what others make of the same images, in memory, on the same cores.  Writes
results/files.json, where ``bars`` says what was to be reached and what was.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import throughput
from benchmarks.compression import ROOT
from benchmarks.lossless import told
from cvae_jax import backend, codec, data
from cvae_jax.batching import cores
from cvae_jax.codec import Codec
from cvae_jax.metrics import mse_of_levels
from cvae_jax.runs.plots import spread
from cvae_jax.study import classical

IMAGES = (60_000, 1_000_000)
FEW = 20_000  # images that are subtracted at most
SEVERAL = 100_000  # images up to which a command is run several times
RUNS = 5
REPEATS = 3  # of the others
TRIED = 2_000  # images by which the others' qualities are chosen
QUALITIES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 70, 90)
ZSTD_LEVEL = 3
CORES = cores()
RATE = 16_000  # images/s to compress
SHARE = 0.9  # of the decoder's own rate, to decompress
PEAK_MB = 700
GROWTH = 1.1  # of the peak from the smallest to the largest number of images: none, but for noise
# Up to two pixels each way: MNIST's digits have four empty ones around them.
SHIFTS = sorted(itertools.product(range(-2, 3), repeat=2), key=lambda s: (abs(s[0]) + abs(s[1]), s))
# What a command takes, in a small process: a child's peak counts what its parent has at the fork.
MEASURED = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - started
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
print(json.dumps({"seconds": seconds, "peak_mb": peak / 1e6}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", "--data_dir")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "files.json")
    parser.add_argument("--ckpt", type=Path, default=ROOT / "checkpoints" / "mnist")
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, help="fewer, for a try")
    args = parser.parse_args()
    backend.use_compilation_cache()
    c = codec.load(args.ckpt)
    images = data.load("mnist", "train", args.data_dir)
    counts = sorted(args.images)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        check_space(Path(folder), counts[-1], images[0].nbytes)
        for count in counts:
            rows[str(count)] = told(
                f"{count} images", through_files(c, args.ckpt, images, count, Path(folder))
            )
    first = rows[str(counts[0])]
    report: dict[str, Any] = {
        "machine": throughput.machine(),
        "checkpoint": args.ckpt.name,
        "files": rows,
        "others": list(others(images[: counts[0]], first["mse"])),
    }
    report["bars"] = bars(report)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    for bar in report["bars"]:
        print("met   " if bar["met"] else "MISSED", bar["what"], bar["measured"])


def check_space(folder: Path, count: int, each: int) -> None:
    """Raises SystemExit where so many images of so many bytes do not fit twice."""
    needed = int(2.1 * count * each)
    if shutil.disk_usage(folder).free < needed:
        raise SystemExit(f"{folder} needs {needed / 1e9:.1f} GB; TMPDIR chooses another place")


def through_files(
    c: Codec, checkpoint: Path, images: np.ndarray, count: int, folder: Path
) -> dict[str, Any]:
    """Both commands on a file of so many images, and between the runs the integer decoder alone on
    those that were given; up to ``SEVERAL`` images, medians.

    Raises:
      ValueError: not all images come back.
    """
    few = min(count // 3, FEW)
    less, path = folder / "less.npy", folder / "images.npy"
    write_repeated(less, images, few)
    write_repeated(path, images, count)
    some = images[:count]
    symbols, step = c.encode_symbols(some)
    rounds = []
    # The first of several rounds fills the cache of compiled code, and does not count.
    for _ in range(RUNS + 1 if count <= SEVERAL else 1):
        shorter, longer = (there_and_back(p, checkpoint) for p in (less, path))
        started = time.perf_counter()
        c.decode_symbols(symbols, step)
        decoder = len(symbols) / (time.perf_counter() - started)
        rounds.append(one_round(count, few, longer, shorter, decoder))
    rounds = rounds[1:] or rounds

    back = np.load(_back(path), mmap_mode="r")
    if len(back) != count:
        raise ValueError(f"{len(back)} of {count} images came back")
    return {
        "bytes_per_image": _archive(path).stat().st_size / count,
        "mse": mse_of_levels(back[: len(some)], some),
        **medians(rounds),
    }


def one_round(
    count: int, few: int, longer: dict[str, Any], shorter: dict[str, Any], decoder: float
) -> dict[str, Any]:
    """Rates of the commands; longer, shorter: what they took for ``count`` images and for ``few``,
    as ``there_and_back`` says it; decoder: its own images/s.

    Everything is of one round, as a machine may be slower in the next.
    """
    found: dict[str, Any] = {"decoder": decoder}
    for name, took in longer.items():
        rate = (count - few) / (took["seconds"] - shorter[name]["seconds"])
        found[name] = {
            "images_per_second": rate,
            "with_start_up": count / took["seconds"],
            "start_up_seconds": took["seconds"] - count / rate,
            "peak_mb": took["peak_mb"],
        }
    found["decompress_over_decoder"] = found["decompress"]["images_per_second"] / decoder
    return found


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of every number in trees of one shape."""
    return {
        key: medians([r[key] for r in rounds])
        if isinstance(value, dict)
        else statistics.median(r[key] for r in rounds)
        for key, value in rounds[0].items()
    }


def variants(images: np.ndarray, count: int, *, mirrored: bool = False) -> Iterator[np.ndarray]:
    """So many images, uint8 ``[n, H, W, C]`` at a time: those given, then the same with every
    shift in turn; mirrored: each time also from right to left."""
    for shift in itertools.cycle(SHIFTS):
        moved = np.roll(images, shift, axis=(1, 2))
        for block in [moved, moved[:, :, ::-1]] if mirrored else [moved]:
            yield block[:count]
            count -= len(block)
            if count <= 0:
                return


def write_repeated(path: Path, images: np.ndarray, count: int, *, mirrored: bool = False) -> None:
    """An .npy file of so many images, as ``variants`` makes them."""
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *images.shape[1:]))
    at = 0
    for block in variants(images, count, mirrored=mirrored):
        file[at : at + len(block)] = block
        at += len(block)
    file.flush()


def there_and_back(path: Path, checkpoint: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of compressing a file and of decompressing what came of it."""
    common = ["--ckpt", checkpoint, "--force"]
    return {
        "compress": measured("compress", path, "-o", _archive(path), "--quiet", *common),
        "decompress": measured("decompress", _archive(path), "-o", _back(path), *common),
    }


def measured(*words: Any) -> dict[str, float]:
    """What a command of ``cvae`` takes: seconds, and the megabytes it has at most, mapped files
    included."""
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "cvae_jax", *map(str, words)]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _archive(path: Path) -> Path:
    return path.with_suffix(".cvae")


def _back(path: Path) -> Path:
    return path.with_suffix(".back.npy")


def others(images: np.ndarray, mse: float) -> Iterator[dict[str, Any]]:
    """What JPEG, WebP and zstd make of the images in memory, on all cores: bytes, error, rates.

    The quality of JPEG and WebP is the one whose error is nearest.  JPEG's tables are made for each
    image, as most of its bytes would be standard ones; WebP's effort is its default.  Each image is
    a byte string of its own, of zstd each core's share of all.
    """
    with classical.needs_imagecodecs():
        import imagecodecs as ic
    grey = images[..., 0]
    coloured = np.repeat(images, 3, axis=3)  # WebP knows no grey
    lossy = (
        ("JPEG", functools.partial(ic.jpeg8_encode, optimize=True), ic.jpeg8_decode, grey),
        ("WebP", functools.partial(ic.webp_encode, lossless=False), ic.webp_decode, coloured),
    )
    for name, encode, decode, inputs in lossy:
        quality = _nearest(encode, decode, spread(inputs, TRIED), mse)
        at = functools.partial(encode, level=quality)
        yield told(name, _both_ways(name, f"quality {quality}", list(inputs), at, decode))
    shares = [np.ascontiguousarray(share).ravel() for share in np.array_split(grey, CORES)]
    at = functools.partial(ic.zstd_encode, level=ZSTD_LEVEL)
    decode = functools.partial(_unpacked, ic.zstd_decode)
    yield told("zstd", _both_ways("zstd", f"level {ZSTD_LEVEL}", shares, at, decode, len(images)))


def _nearest(encode: Callable, decode: Callable, images: np.ndarray, mse: float) -> int:
    """The quality whose error is nearest to this one."""

    def distance(quality: int) -> float:
        decoded = np.stack([decode(encode(image, level=quality)) for image in images])
        return abs(math.log(mse_of_levels(decoded, images) / mse))

    return min(QUALITIES, key=distance)


def _unpacked(decode: Callable[[bytes], bytes], content: bytes) -> np.ndarray:
    return np.frombuffer(decode(content), np.uint8)


def _both_ways(
    name: str,
    setting: str,
    inputs: Sequence[np.ndarray],
    encode: Callable[[np.ndarray], bytes],
    decode: Callable[[bytes], np.ndarray],
    count: int | None = None,
) -> dict[str, Any]:
    """Medians, each input alone, a thread for each core; count: of images, if not of inputs."""
    count = count or len(inputs)
    with ThreadPoolExecutor(CORES) as pool:

        def timed(f: Callable, arguments: Sequence) -> tuple[list, float]:
            size = -(-len(arguments) // (4 * CORES))
            parts = [arguments[i : i + size] for i in range(0, len(arguments), size)]
            times = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                out = list(pool.map(lambda part: [f(x) for x in part], parts))
                times.append(time.perf_counter() - started)
            return list(itertools.chain(*out)), count / statistics.median(times)

        contents, encode_rate = timed(encode, inputs)
        decoded, decode_rate = timed(decode, contents)
    squares = sum(mse_of_levels(x, y) * x.size for x, y in zip(decoded, inputs, strict=True))
    return {
        "codec": name,
        "setting": setting,
        "bytes_per_image": sum(map(len, contents)) / count,
        "mse": squares / sum(x.size for x in inputs),
        "compress": encode_rate,
        "decompress": decode_rate,
    }


def bars(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, what was measured, and whether it is enough."""
    rows = {int(count): row for count, row in report["files"].items()}
    fewest, most = min(rows), max(rows)

    def at_most(what: str, measured: float, limit: float) -> dict[str, Any]:
        return {"what": what, "measured": measured, "at_most": limit, "met": measured <= limit}

    def at_least(what: str, measured: float, limit: float) -> dict[str, Any]:
        return {"what": what, "measured": measured, "at_least": limit, "met": measured >= limit}

    found = [
        at_least(
            f"compress, {fewest} images, images/s",
            rows[fewest]["compress"]["images_per_second"],
            RATE,
        ),
        at_least(
            f"decompress, {fewest} images, share of the decoder's own rate",
            rows[fewest]["decompress_over_decoder"],
            SHARE,
        ),
    ]
    for name in ("compress", "decompress"):
        peaks = {count: row[name]["peak_mb"] for count, row in rows.items()}
        found += [at_most(f"{name}, {n} images, peak MB", mb, PEAK_MB) for n, mb in peaks.items()]
        if len(rows) > 1:
            growth = peaks[most] / peaks[fewest]
            found.append(at_most(f"{name}, growth of the peak with the images", growth, GROWTH))
    return found


if __name__ == "__main__":
    main()
