"""The same steps of training on one device, on several, and in two processes:
python -m benchmarks.scale.layouts

Each layout runs twice in processes of its own.  Bars: parameters equal to 1e-5 relative; the same
layout twice, and two processes of one device and one of two, bit for bit.  The speeds are of
virtual devices that share these cores: they say what sharing costs, not what devices gain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.compression import ROOT

OUT = ROOT / "results" / "layouts.json"
STEPS = 20
LAYOUTS = {"1": (1, 1), "2": (1, 2), "8": (1, 8), "2 x 1": (2, 1), "2 x 4": (2, 4)}
BATCHES = (256, 128)  # on 8 devices the second gives each less than a microbatch


def steps(batch: int, into: Path, meeting: list[str]) -> None:
    """In a process of its own: trains, and keeps the parameters and the seconds of a step."""
    import jax

    if meeting:
        jax.distributed.initialize(meeting[0], 2, int(meeting[1]))
    from cvae_jax import backend, training
    from cvae_jax.config import PRESETS

    backend.dispatch_inline()
    config = PRESETS["default"].replace(epochs=1, batch_size=batch)
    images = np.random.default_rng(0).integers(0, 256, (STEPS * batch, 28, 28, 1), np.uint8)
    images[:, :8] = images[:, 20:] = 0  # borders, whose gradient is next to nothing
    started = 0.0
    for at in training.run(config, training.init_state(config, STEPS), images):  # noqa: B007
        started = started or time.perf_counter()  # the first step compiles
    seconds = (time.perf_counter() - started) / (STEPS - 1)
    leaves = jax.tree.leaves(jax.device_get(at.state.params))
    if jax.process_index() == 0:
        np.savez(into, seconds=seconds, parameters=np.concatenate([p.ravel() for p in leaves]))


def measured(name: str, batch: int) -> tuple[np.ndarray, float]:
    """The parameters of a layout after the steps, and its images per second."""
    processes, devices = LAYOUTS[name]
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        address, into = f"127.0.0.1:{free.getsockname()[1]}", Path(folder, "found.npz")
        free.close()
        command = [
            sys.executable,
            "-m",
            "benchmarks.scale.layouts",
            "--steps",
            str(batch),
            str(into),
        ]
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
        running = [
            subprocess.Popen(
                command + ([address, str(k)] if processes > 1 else []),
                env=environment,
                stderr=subprocess.DEVNULL,
            )
            for k in range(processes)
        ]
        if any(process.wait(120) for process in running):
            raise SystemExit(f"layout {name}: a process failed")
        found = np.load(into)
        return found["parameters"], batch / float(found["seconds"])


def compare(batch: int) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    first = None
    for name in LAYOUTS:
        (parameters, speed), (again, _) = measured(name, batch), measured(name, batch)
        first = parameters if first is None else first
        rows[name] = {
            "sha256": hashlib.sha256(parameters.tobytes()).hexdigest(),
            "twice_equal": bool(np.array_equal(parameters, again)),
            "equal_to_1": bool(np.array_equal(parameters, first)),
            "relative_difference": float(
                np.linalg.norm(parameters - first) / np.linalg.norm(first)
            ),
            "largest_difference": float(np.abs(parameters - first).max()),
            "images_per_second": round(speed, 1),
        }
        print(batch, name, rows[name], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--steps", nargs="+", help=argparse.SUPPRESS)  # a process of a layout
    args = parser.parse_args()
    if args.steps:
        batch, into, *meeting = args.steps
        return steps(int(batch), Path(into), meeting)
    found = {"steps": STEPS, "batches": {str(batch): compare(batch) for batch in BATCHES}}
    args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
