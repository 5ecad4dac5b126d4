"""Files for the tests of the page, and the page's codec in Node."""

import hashlib
import json
import subprocess

import numpy as np
import pytest
from conftest import ROOT

from benchmarks.page.node import NODE

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed")


def sha256(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


_SESSION = """
import { readFileSync } from "node:fs";
import { Session } from "./web/src/codec/session.js";
const [model, ...files] = process.argv.slice(1).map((path) => Uint8Array.from(readFileSync(path)));
const kernels = new WebAssembly.Module(readFileSync("web/wasm/kernels.wasm"));
const session = new Session({ name: "m", model, kernels });
const ask = (op, more = {}) => session.answer({ op, file: 1, ...more });
"""


def in_session(script, *paths):
    """What a script prints, from JSON; it has ``session``, of the model at the first path, ``ask``,
    and ``files``, the bytes at the other paths."""
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", _SESSION + script, *map(str, paths)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digits(n, seed=0):
    """Images that look like some: strokes of random walks, uint8 ``[n, 28, 28, 1]``."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n, 28, 28, 1))
    for image in out:
        y, x = rng.uniform(8, 20, 2)
        angle = rng.uniform(0, 6.3)
        for _ in range(40):
            angle += rng.normal(0, 0.4)
            y = np.clip(y + np.sin(angle) / 2, 4, 23)
            x = np.clip(x + np.cos(angle) / 2, 4, 23)
            for i in range(-1, 2):
                for j in range(-1, 2):
                    near = np.exp(-((int(y) + i - y) ** 2 + (int(x) + j - x) ** 2))
                    image[int(y) + i, int(x) + j] = max(image[int(y) + i, int(x) + j, 0], near)
    return np.rint(out * 255).astype(np.uint8)
