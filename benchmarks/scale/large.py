"""A collection larger than memory should be:  python -m benchmarks.scale.large --data-dir DIR

Writes an .npy file of MNIST's training images, shifted and mirrored, block by block into a
temporary folder (or ``--folder``, where it stays for the next call), and runs each command on it in
a process of its own: images per second from start to end, and the most memory that the command and
its children had resident at once, sampled.  ``--rows`` names the commands to run: the results of
the others stay in results/large.json, so that one call need not take long.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.compression import ROOT
from benchmarks.files import write_repeated
from benchmarks.throughput import machine
from cvae_jax import data

PEAK_MB = 1500
SECONDS = 0.05  # between two looks at a command's memory
ROWS = ("compress", "decompress", "evaluate", "calibrate", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", "--data_dir")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--folder", type=Path, help="where the files are made, and stay")
    parser.add_argument("--train-seconds", type=int, default=60, help="after which it is stopped")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "large.json")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        count = int(args.gigabytes * 1e9 / 784)
        images = folder / f"{count}.npy"
        if not images.exists():
            part = images.with_suffix(".part")
            write_repeated(part, data.load("mnist", "train", args.data_dir), count, mirrored=True)
            part.rename(images)
        rows = _written(args.json, count)
        for name in args.rows:
            limit = args.train_seconds if name == "train" else None
            rows[name] = measured(command(name, images, folder), count, limit)
            print(f"{name:12}{json.dumps(rows[name])}", flush=True)
    peak = max(row["peak_mb"] for row in rows.values())
    report = {
        "machine": machine(),
        "images": count,
        "rows": rows,
        "bars": [
            {
                "what": "resident memory of every command, children included, MB",
                "measured": peak,
                "at_most": PEAK_MB,
                "met": peak <= PEAK_MB,
            }
        ],
    }
    args.json.write_text(json.dumps(report, indent=2) + "\n")


def command(name: str, images: Path, folder: Path) -> list[str]:
    cvae = [sys.executable, "-m", "cvae_jax", name]
    archive, model = folder / "large.cvae", folder / "model"
    match name:
        case "compress":
            return [*cvae, str(images), "-o", str(archive), "-f", "--quiet"]
        case "decompress":
            return [*cvae, str(archive), "-o", str(folder / "back.npy"), "-f"]
        case "evaluate":
            return [*cvae, "--ckpt", "mnist", "--dataset", str(images), "--split", "test"]
        case "calibrate":
            subprocess.run(
                ["cp", "-rT", str(ROOT / "checkpoints" / "mnist"), str(model)], check=True
            )
            return [*cvae, str(model), "-f", "--dataset", str(images), "--context-steps", "0"]
    return [*cvae, "--workdir", str(folder / "run"), "--fresh", "--dataset", str(images)]


def measured(command: list[str], count: int, limit: float | None) -> dict[str, float | bool]:
    """Of a command: seconds, images/s of the whole file, and peak memory.

    limit: seconds after which it is stopped; then its images/s are those that it says itself.
    """
    started = time.perf_counter()
    peak = 0.0
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process,
        contextlib.ExitStack() as stack,
    ):
        # A command does not outlive this call, whatever ends it.
        stack.callback(process.kill)
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            if limit and time.perf_counter() - started > limit:
                process.terminate()
                process.wait()
                break
            time.sleep(SECONDS)
    seconds = time.perf_counter() - started
    stopped = bool(limit) and process.returncode != 0
    if process.returncode and not stopped:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    row: dict[str, float | bool] = {"seconds": round(seconds, 1), "peak_mb": round(peak)}
    return row | ({"stopped": True} if stopped else {"images_per_second": round(count / seconds)})


def resident(session: int) -> float:
    """MB that the processes of a session have in memory; what they share counts for each."""
    pages = 0
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _written(path: Path, count: int) -> dict[str, dict[str, float | bool]]:
    """The rows of an earlier call for as many images."""
    report = json.loads(path.read_text()) if path.exists() else {}
    return report["rows"] if report.get("images") == count else {}


if __name__ == "__main__":
    main()
