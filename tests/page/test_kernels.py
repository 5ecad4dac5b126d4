"""The WebAssembly that is committed is what its source makes."""

import shutil
import subprocess

import pytest
from conftest import ROOT
from page_samples import needs_node

from benchmarks.page.node import NODE

FOLDER = ROOT / "web" / "wasm"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    if not (shutil.which("clang") and shutil.which("wasm-ld")):
        pytest.skip("clang and lld are not installed")
    out = tmp_path_factory.mktemp("wasm") / "kernels.wasm"
    done = subprocess.run([FOLDER / "build.sh", out], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return out


_COMPARE = """
import { readFileSync } from "node:fs";
const files = process.argv.slice(1);
const instance = (file) => new WebAssembly.Instance(new WebAssembly.Module(readFileSync(file)));
const made = files.map((file) => instance(file).exports);
let state = 1;
const next = () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >> 8;
const [pairs, outputs, w, height, width] = [3, 20, 5, 9, 10];
const inputs = Int16Array.from({ length: 7 * 7 * 2 * pairs }, () => next() % 100);
const weights = Int16Array.from({ length: 9 * pairs * outputs * 2 }, () => (next() % 101) - 50);
const bias = Int32Array.from({ length: outputs }, () => (next() % 1001) - 500);
const factor = Float32Array.from({ length: outputs }, () => 2 ** -(next() % 9));
const results = made.map(({ memory, transposed, product }) => {
  let end = memory.buffer.byteLength;
  memory.grow(4);
  const put = (array) => {
    const at = end;
    new array.constructor(memory.buffer, at, array.length).set(array);
    end += Math.ceil(array.byteLength / 16) * 16;
    return at;
  };
  const [x, a, b, f] = [inputs, weights, bias, factor].map(put);
  const out = put(new Int16Array((height + 2) * (width + 2) * outputs));
  const raw = put(new Int32Array(height * width * outputs));
  const common = [x, w, a, b, f, pairs, outputs, 255];
  transposed(...common, out, height, width, 2, 0, 0, 0);
  transposed(...common, 0, 5, 5, 1, 1, 1, raw);
  product(x, 2 * pairs, 7, a, b, f, pairs, outputs, 255, out, outputs, 0);
  return Buffer.from(memory.buffer.slice(x, end)).toString("base64");
});
console.log(results.every((result) => result === results[0]));
"""


@needs_node
def test_its_source_makes_what_computes_the_same(rebuilt):
    """Another compiler may write other instructions; the same one writes the same bytes."""
    files = [FOLDER / "kernels.wasm", rebuilt]
    command = [NODE, "--input-type=module", "-e", _COMPARE, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "true"


def test_it_is_small():
    assert (FOLDER / "kernels.wasm").stat().st_size < 8192
