"""The page's codec in Node (``web/node.mjs``), from Python."""

from __future__ import annotations

import json
import re
import selectors
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.page import dense

PROGRAM = Path(__file__).resolve().parents[2] / "web" / "node.mjs"
NODE = shutil.which("node")
PATIENCE = 60.0  # seconds for an answer


class Page:
    """A process that answers requests; a context manager."""

    def __init__(self, model: Path, encoder: Path | None = None, *, typed: bool = False):
        """model: a model file; encoder: of ``page.weights``; typed: without WebAssembly."""
        command = [NODE or "node", PROGRAM, model, encoder or "-", *(["--typed"] if typed else [])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._answers.register(self._process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The answer to a request; raises TimeoutError where there is none."""
        given, answers = self._process.stdin, self._process.stdout
        assert given is not None
        assert answers is not None
        given.write(json.dumps({"op": op, **request}, default=str) + "\n")
        given.flush()
        if not self._answers.select(PATIENCE):
            raise TimeoutError(f"no answer to {op} in {PATIENCE:g} s")
        return json.loads(answers.readline())


def carried(page: str, part: str) -> bytes:
    """What a page carries: its "model", "encoder" or "kernels"."""
    found = re.search(rf'"{part}": \[(\d+), "([^"]*)"\]', page)
    assert found, f"the page carries no {part}"
    codes = np.array([dense.ALPHABET.index(letter) for letter in found[2]], np.int64)
    numbers = codes[::2] + len(dense.ALPHABET) * codes[1::2]
    bits = numbers[:, None] >> np.arange(dense.BITS) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()[: int(found[1])]
