"""Jobs on a million images, by Beam, by a pool and by one process:

    python -m benchmarks.scale.jobs --data-dir DIR [--images N] [--only beam2,pool1,...]

MNIST's training images, moved and mirrored, are written as several .npy files and compressed into
one set of shards in each way, every run a command of its own with the start of its workers: images
per second, the speed-up of two workers over one (each computes with one core), the most memory that
a worker took, and whether the shards are the same bytes.  The run ``killed`` loses a worker to
``kill -9`` and is started again.  Results are added to results/jobs.json run by run, so that runs
may be made one at a time; ``bars`` says what was to be reached and what was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression import ROOT
from benchmarks.files import variants
from cvae_jax import data
from cvae_jax.batching import CORES, cores

IMAGES, SHARDS, FILES = 1_000_000, 16, 4
SPEED_UP, PEAK_MB = 1.6, 1000
BEAM = "--direct_num_workers="
# What each run adds to the command, and whether it may compute with all cores.
RUNS: dict[str, tuple[list[str], bool]] = {
    "one process": ([], True),
    "pool 1": (["--jobs", "1"], False),
    "pool 2": (["--jobs", "2"], False),
    "beam 1": (["--", f"{BEAM}1"], False),
    "beam 2": (["--", f"{BEAM}2"], False),
    "killed": (["--jobs", "2"], False),
    "killed beam": (["--", f"{BEAM}2"], False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where MNIST's files are")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--only", help="runs, with commas between them (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "jobs.json")
    parser.add_argument("--python", default=sys.executable, help="that has Apache Beam")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        found = json.loads(args.out.read_text())
    if found.get("images") != args.images:
        found = {"images": args.images, "shards": SHARDS, "cores": cores(), "runs": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, args.images, args.data_dir)
        for name in args.only.split(",") if args.only else RUNS:
            found["runs"][name] = measure(name, folder, args.images, args.python)
            found["bars"] = bars(found["runs"])
            args.out.write_text(json.dumps(found, indent=2) + "\n")
            print(name, found["runs"][name], flush=True)
    print(json.dumps(found["bars"], indent=2))


def write(folder: Path, count: int, data_dir: Path) -> None:
    """The images as FILES .npy files."""
    images = data.load("mnist", "train", data_dir)
    parts = np.diff(np.arange(FILES + 1) * count // FILES).tolist()
    files = [
        np.lib.format.open_memmap(folder / f"in-{k}.npy", "w+", np.uint8, (part, *images.shape[1:]))
        for k, part in enumerate(parts)
    ]
    number = at = 0
    for block in variants(images, count, mirrored=True):
        while len(block):
            rows = block[: parts[number] - at]
            files[number][at : at + len(rows)] = rows
            at, block = at + len(rows), block[len(rows) :]
            if at == parts[number] and number < FILES - 1:
                number, at = number + 1, 0


def measure(name: str, folder: Path, images: int, python: str) -> dict[str, Any]:
    more, all_cores = RUNS[name]
    output = folder / f"{name.replace(' ', '-')}@{SHARDS}.cvae"
    job = [] if name == "one process" else ["job"]
    options = [str(folder / "in-*.npy"), "-o", str(output), "--json", "--ckpt", "mnist"]
    command = [python, "-m", "cvae_jax", *job, "compress", *options, *more]
    one_core = {} if all_cores else {CORES: "1"}
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | one_core
    result: dict[str, Any] = {}
    if name.startswith("killed"):
        result["status_when_killed"] = kill(command, folder, output, environment)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    report = json.loads(done.stdout)
    if not name.startswith("killed"):
        result["images_per_second"] = round(images / seconds)
    stem = output.name.split("@")[0]
    digest = hashlib.sha256()
    for path in sorted(folder.glob(f"{stem}-*.cvae")):
        digest.update(path.read_bytes())
        path.unlink()
    result |= {
        "seconds": round(seconds, 1),
        "shards_made": report["made"],
        "peak_mb": report["peak_bytes"] >> 20,
        "bytes": report["bytes"],
        "sha256": digest.hexdigest(),
        "temporaries": len([*folder.glob(".*")]),
    }
    return result


def kill(command: list[str], folder: Path, output: Path, environment: dict[str, str]) -> int:
    """Starts the command, kills a worker once shards are there, and returns its exit status."""
    stem = output.name.split("@")[0]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        busy = [*folder.glob(f".{stem}-0*")]
        if busy and len([*folder.glob(f"{stem}-*.cvae")]) >= SHARDS // 8:
            os.kill(int(busy[0].name.split(".")[-4]), signal.SIGKILL)
            break
        time.sleep(0.05)
    return process.wait(60)


def bars(runs: dict[str, Any]) -> dict[str, Any]:
    """What was to be reached, and what was."""
    found: dict[str, Any] = {}
    for way in ("beam", "pool"):
        if {f"{way} 1", f"{way} 2"} <= runs.keys():
            one, two = (runs[f"{way} {k}"]["images_per_second"] for k in (1, 2))
            ratio = round(two / one, 2)
            found[f"{way}: 2 workers over 1"] = {
                "at_least": SPEED_UP, "measured": ratio, "met": ratio >= SPEED_UP
            }  # fmt: skip
    # One process with all cores is no worker.
    peak = max(run["peak_mb"] for name, run in runs.items() if name != "one process")
    found["peak of a worker, MB"] = {"below": PEAK_MB, "measured": peak, "met": peak < PEAK_MB}
    same = len({run["sha256"] for run in runs.values()}) == 1
    found["the same bytes"] = {"of": sorted(runs), "met": same}
    left = sum(run["temporaries"] for run in runs.values())
    found["temporaries left"] = {"measured": left, "met": not left}
    return found


if __name__ == "__main__":
    main()
