"""The page's codec reads what Python writes, to the same pixels, and the other way round."""

import json
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from page_samples import digits, needs_node, sha256

from benchmarks.page.node import NODE, Page, carried
from cvae_jax import codec, reader

pytestmark = needs_node
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="module")
def made():
    return codec.load("mnist")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made):
    """With the files that a page carries."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "model.cvae").write_bytes(made.file_model.model_file())
    (folder / "encoder.bin").write_bytes(carried((ROOT / "web/index.html").read_text(), "encoder"))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    with Page(folder / "model.cvae", folder / "encoder.bin") as page:
        yield page


@pytest.fixture(scope="module", params=["wasm", "typed"])
def either(request, folder):
    with Page(folder / "model.cvae", typed=request.param == "typed") as page:
        yield page


def read(page, path, data=None):
    if data is not None:
        path.write_bytes(data)
    answer = page.ask("read", path=path)
    assert answer["ok"], answer["error"]
    return answer


def test_golden_files(either):
    for name, expected in (("v2_mnist", "pixels"), ("v2_refined", "images")):
        path = GOLDEN / f"{name}.cvae"
        answer = read(either, path)
        assert answer["sha256"] == sha256(np.load(path.with_suffix(".npz"))[expected])
        assert answer["faults"] == answer["lost"] == []
        assert sum(answer["bytesByUse"].values()) == answer["bytes"] == path.stat().st_size
    found = read(either, GOLDEN / "v2_mnist_single.cvae")
    expected = np.load(GOLDEN / "v2_mnist.npz")
    assert found["sha256"] == sha256(expected["pixels"][3])
    assert found["details"]["symbols"] == expected["symbols"][3].tolist()


def test_a_golden_image_of_another_model(either, tmp_path):
    """Once its model file was opened."""
    single = GOLDEN / "v2_refined_single.cvae"
    other = tmp_path / "other.cvae"
    other.write_bytes(reader.load(GOLDEN / "v2_refined.cvae").files.model_file())
    assert read(either, other)["kind"] == "model"
    assert read(either, single)["sha256"] == sha256(np.load(GOLDEN / "v2_refined.npz")["single"])


@pytest.mark.parametrize("name", ["v2_archive", "v2_single"])
def test_files_of_unknown_models_are_refused(page, name):
    answer = page.ask("read", path=GOLDEN / f"{name}.cvae")
    assert not answer["ok"]
    assert answer["error"].startswith("made with a model that this page does not have")


def test_an_archive_of_a_thousand_images(either, made, tmp_path):
    images = digits(1000)
    names = [f"{i}-\u00e4.png" for i in range(1000)]
    data = made.compress(images, names=names, labels=range(1000))
    answer = read(either, tmp_path / "archive.cvae", data)
    assert answer["sha256"] == sha256(made.decompress(data))
    assert answer["runs"] == [[0, 1000]]
    assert (answer["names"], answer["labels"]) == (names, list(range(1000)))
    assert (answer["qualities"], answer["maxError"], answer["count"]) == ([50], None, 1000)
    symbols, step = made.encode_symbols(images[:1], 50)
    bits = made.tables.book(step).bits(symbols)[0]
    assert answer["details"]["bits"] == pytest.approx(bits)
    assert answer["details"]["symbols"] == symbols[0].tolist()


def test_a_hundred_single_files(page, made, tmp_path):
    images = digits(100, 1)
    for k, image in enumerate(images):
        data = made.compress(image, quality=k)
        answer = read(page, tmp_path / "image.cvae", data)
        assert answer["sha256"] == sha256(made.decompress(data))


@pytest.mark.parametrize("max_error", [0, 1, 5, 63])
def test_refined_archives(page, made, tmp_path, max_error):
    """Also of images that are coded alone or raw, as noise is."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    images = np.concatenate([digits(60, 2), noise, np.zeros_like(noise)])
    data = made.compress(images, max_error=max_error)
    answer = read(page, tmp_path / "refined.cvae", data)
    assert answer["sha256"] == sha256(made.decompress(data))
    assert answer["maxError"] == max_error


@pytest.mark.parametrize("max_error", [0, 4])
def test_refined_single_files(either, made, tmp_path, max_error):
    for image in digits(3, 3):
        data = made.compress(image, max_error=max_error)
        answer = read(either, tmp_path / "one.cvae", data)
        assert answer["sha256"] == sha256(made.decompress(data))


def test_the_other_released_model(page, tmp_path):
    """In an archive that carries it, with spot checks as ``--quiet`` writes them."""
    hq = codec.load("mnist-hq")
    data = hq.compress(digits(40, 4), embed_model=True, quality=80)
    answer = read(page, tmp_path / "hq.cvae", data)
    assert answer["sha256"] == sha256(hq.decompress(data))


def test_what_is_left_of_a_damaged_archive(page, made, tmp_path):
    images = digits(300, 5)
    whole = made.file_model.archive(
        [coded.chunk for k in range(3) for coded in made.chunks(images[100 * k : 100 * k + 100])]
    )
    start = whole.index(b"CHNK", whole.index(b"CHNK") + 4)
    broken = bytearray(whole)
    broken[start + 60] ^= 4
    answer = read(page, tmp_path / "broken.cvae", bytes(broken))
    assert answer["lost"] == [[100, 199]]
    assert answer["runs"] == [[0, 100], [200, 100]]
    assert answer["faults"]
    expected = made.decompress(whole)
    assert answer["sha256"] == sha256(np.concatenate([expected[:100], expected[200:]]))
    cut = read(page, tmp_path / "cut.cvae", whole[: start + 100])
    assert cut["runs"] == [[0, 100]]


@pytest.mark.parametrize("quality", [0, 50, 83.5, 100])
def test_python_reads_what_the_page_makes(page, made, tmp_path, quality):
    for k, image in enumerate(digits(5, 6)):
        (tmp_path / "pixels").write_bytes(image.tobytes())
        out = tmp_path / f"{k}.cvae"
        answer = page.ask("encode", path=tmp_path / "pixels", quality=quality, out=out)
        assert answer["ok"], answer["error"]
        pixels = made.decompress(out.read_bytes())
        assert answer["sha256"] == sha256(pixels)
        # Its encoder is a rough one, and yet about as good.
        own = made.decompress(made.compress(image, quality=quality)).astype(float)
        errors = [np.square(p.reshape(own.shape) - image).mean() for p in (pixels, own)]
        assert errors[0] < 1.5 * errors[1] + 30


def test_the_page_does_what_a_browser_asks(page):
    """The other requests, by the session itself."""
    script = """
import { readFileSync } from "node:fs";
import { Session } from "./web/src/codec/session.js";
const model = Uint8Array.from(readFileSync(process.argv[1]));
const session = new Session({ name: "m", model });
const ask = (op, more = {}) => session.answer({ op, ...more });
const spread = ask("distributions");
const { z } = ask("prior", { count: 2, seed: 7 });
const again = ask("prior", { count: 2, seed: 7 }).z;
const { pixels } = ask("decode", { z });
console.log(JSON.stringify({
  hello: ask("hello"),
  sums: Array.from({ length: 16 }, (_, d) =>
    spread.density.subarray(d * spread.bins, (d + 1) * spread.bins).reduce((a, b) => a + b, 0)),
  ordered: spread.low.every((x, d) => x < spread.high[d]),
  same: z.every((x, i) => x === again[i]), z: Array.from(z), pixels: Array.from(pixels),
  wrong: ["nothing", "encode", "images", "decode"].map((op) => ask(op, { z: new Float32Array(3) })),
}));
"""
    model = page._process.args[2]
    done = subprocess.run(
        [page._process.args[0], "--input-type=module", "-e", script, str(model)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["hello"]["model"]["shape"] == [28, 28, 1]
    assert not found["hello"]["model"]["canEncode"]
    assert found["ordered"]
    assert found["same"]
    assert np.allclose(found["sums"], 1, atol=0.01)
    made = codec.load("mnist")
    z = np.array(found["z"], np.float32).reshape(2, 16)
    symbols = np.rint(z.astype(np.float64) / made.tables.unit.astype(np.float64)).astype(np.int32)
    assert np.array_equal(found["pixels"], made.decode_symbols(symbols, 1).ravel())
    assert all(not answer["ok"] and "\n" not in answer["error"] for answer in found["wrong"])


def test_checks_of_pixels_go_on_when_there_is_nothing_else_to_do(folder, made, tmp_path):
    """Of chunks that were decoded in part: a spot check, and one of the last image of a chunk."""
    symbols, step = made.encode_symbols(digits(300))
    levels = made.decode_symbols(symbols, step)
    levels[[99, 170, 299], 14, 14] ^= 1
    files = made.file_model
    parts = [(0, 100), (100, 164), (200, 300)]  # of the middle one, the first 64 are checked
    chunks = [
        files.chunk(symbols[first : first + 100], step, levels[first:end]) for first, end in parts
    ]
    path = tmp_path / "broken.cvae"
    path.write_bytes(files.archive(chunks))
    script = """
import { readFileSync } from "node:fs";
import { Session } from "./web/src/codec/session.js";
const [model, archive] = process.argv.slice(1).map((path) => Uint8Array.from(readFileSync(path)));
const session = new Session({ name: "m", model });
const ask = (op, more = {}) => session.answer({ op, file: 1, ...more });
ask("open", { bytes: archive.buffer });
const found = [ask("check")];
const first = [40, 110].map((first) => ask("images", { first, count: 20 }));
do found.push(ask("check")); while (!found.at(-1).isDone);
const later = [0, 99, 110, 210].map((first) => ask("images", { first, count: 1 }));
found.push(ask("check"));
console.log(JSON.stringify({
  first: first.map(({ intact }) => intact.every(Boolean)),
  lost: found.flatMap(({ lost }) => lost), faults: found.flatMap(({ faults }) => faults),
  later: later.map(({ intact, lost }) => [intact[0], lost]),
  details: ask("details", { number: 5 }).ok,
}));
"""
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", script, folder / "model.cvae", path],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"] == [True, True]
    assert found["lost"] == [[0, 99]]
    assert [fault.split(":")[0] for fault in found["faults"]] == ["images 0 to 99"]
    assert found["later"] == [[0, [[0, 99]]], [0, [[0, 99]]], [1, []], [1, []]]
    assert not found["details"]
