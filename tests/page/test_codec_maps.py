"""The page's codec opens what models with a map of latents make, to the same pixels as Python."""

import dataclasses

import numpy as np
import pytest
from map_samples import levels_of, map_model, symbols_of
from page_samples import needs_node, sha256

from benchmarks.fuzz.samples import refined_part
from benchmarks.page.node import Page
from cvae_jax import reader
from cvae_jax.bitstream import single
from cvae_jax.bitstream.records import ALONE, BASED, RAW
from cvae_jax.coding import streams

pytestmark = needs_node
N = 37
STEPS = (87, 598, 4096, 65535)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    (folder / "mnist.cvae").write_bytes(reader.load("mnist").files.model_file())
    return folder


@pytest.fixture(scope="module", params=["wasm", "typed"])
def page(request, folder):
    with Page(folder / "mnist.cvae", typed=request.param == "typed") as page:
        yield page


def read(page, path, data):
    path.write_bytes(data)
    answer = page.ask("read", path=path)
    assert answer["ok"], answer["error"]
    assert answer["faults"] == answer["lost"] == []
    assert sum(answer["bytesByUse"].values()) == answer["bytes"] == len(data)
    return answer


MODELS = [
    map_model(),
    map_model((9, 5, 1), blocks=0, groups=1, seed=1),
    map_model((16, 16, 3), blocks=1, groups=4, seed=2),
    map_model((4, 3, 4), blocks=3, groups=2, seed=3),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: "x".join(map(str, model.image_shape)))
def test_archives_of_maps(page, tmp_path, model):
    """At several steps, in one archive: also where the frequencies of rows are not built."""
    parts = [(symbols_of(model, N, step, step), step) for step in STEPS]
    levels = [levels_of(model, *part) for part in parts]
    chunks = [model.chunk(*part, of_part) for part, of_part in zip(parts, levels, strict=True)]
    answer = read(page, tmp_path / "a.cvae", model.archive(chunks, embed_model=True))
    assert answer["sha256"] == sha256(np.concatenate(levels))
    details = answer["details"]
    symbols, step = parts[0]
    assert details["symbols"] == symbols[0].tolist()
    assert details["bits"] == pytest.approx(streams.bits(symbols[:1], model.tables, step)[0])
    assert details["component"] == -1


@pytest.mark.parametrize("max_error", [0, 3])
def test_refined_archives_of_maps(page, tmp_path, max_error):
    model, step = MODELS[0], 598
    symbols = symbols_of(model, N, step)
    levels = levels_of(model, symbols, step)
    noise = np.random.default_rng(0).integers(-9, 10, levels.shape)
    images = np.clip(levels + noise, 0, 255).astype(np.uint8)
    modes = np.resize(np.array([BASED, ALONE, BASED, RAW], np.uint8), N)
    part = refined_part(model, images, symbols, levels, step, modes, max_error)
    chunk = model.chunk(part.symbols, step, part.levels, part.refinement)
    data = model.archive([chunk], embed_model=True, refined=True)
    answer = read(page, tmp_path / "refined.cvae", data)
    assert answer["sha256"] == sha256(part.images)
    assert answer["maxError"] == max_error
    if not max_error:
        assert np.array_equal(part.images, images)


def test_single_files_of_a_map(page, tmp_path):
    """Once its model file was opened, lossy and refined, of several steps."""
    model = MODELS[0]
    assert read(page, tmp_path / "model.cvae", model.model_file())["kind"] == "model"
    for step in STEPS:
        symbols = symbols_of(model, 3, step)
        levels = levels_of(model, symbols, step)
        for one, image in zip(symbols, levels, strict=True):
            data = single.encode(one, step, model.tables, model.identity, image)
            answer = read(page, tmp_path / "one.cvae", data)
            assert answer["sha256"] == sha256(image)
            assert answer["details"]["symbols"] == one.tolist()
            wrong = bytearray(data)
            wrong[-6] ^= 1
            (tmp_path / "wrong.cvae").write_bytes(wrong)
            assert not page.ask("read", path=tmp_path / "wrong.cvae")["ok"]
    images = np.clip(levels.astype(int) + 5, 0, 255).astype(np.uint8)
    for mode in (BASED, ALONE):
        modes = np.array([mode], np.uint8)
        part = refined_part(model, images[:1], symbols[:1], levels[:1], step, modes, 2)
        data = single.encode_refined(
            *part[:3], model.identity, part.levels, part.refinement, part.images[0]
        )
        assert read(page, tmp_path / "one.cvae", data)["sha256"] == sha256(part.images)


def test_damaged_symbols_of_a_map_are_lost(page, tmp_path):
    model = MODELS[2]
    symbols = symbols_of(model, N, 300)
    good = model.chunk(symbols, 300, levels_of(model, symbols, 300))
    broken = dataclasses.replace(good, stream=good.stream[:-8] + b"\1\2\3\4\5\6\7\x08")
    path = tmp_path / "broken.cvae"
    path.write_bytes(model.archive([good, broken], embed_model=True))
    answer = page.ask("read", path=path)
    assert answer["ok"], answer["error"]
    assert answer["runs"] == [[0, N]]
    assert {fault.split(":")[0] for fault in answer["faults"]} == {f"images {N} to {2 * N - 1}"}


SIZES = [(5, 3), (16, 12), (17, 40), (1, 1)]


def of_size(size, step=598, n=5):
    """The model for images of a size, symbols and images."""
    model = MODELS[2].resized(size)
    symbols = symbols_of(model, n, step, size[0])
    return model, symbols, levels_of(model, symbols, step)


def test_archives_of_images_of_several_sizes(page, tmp_path):
    """They are shown in the upper left of what all have room in."""
    chunks, whole = [], np.zeros((len(SIZES) + 1, 5, 17, 40, 3), np.uint8)
    for size, room in zip([None, *SIZES], whole, strict=True):
        model, symbols, levels = of_size(size or (16, 16))
        chunks.append(model.chunk(symbols, 598, levels))
        room[:, : levels.shape[1], : levels.shape[2]] = levels
    chunks[0] = dataclasses.replace(chunks[0], size=None)
    data = MODELS[2].archive(chunks, embed_model=True)
    answer = read(page, tmp_path / "sizes.cvae", data)
    assert answer["sha256"] == sha256(whole)
    assert (answer["shape"], answer["isMixed"]) == ([17, 40, 3], True)
    assert answer["details"]["shape"] == [16, 16, 3]


@pytest.mark.parametrize("size", SIZES)
def test_files_of_another_size(page, tmp_path, size):
    model, symbols, levels = of_size(size)
    data = MODELS[2].archive([model.chunk(symbols, 598, levels)], embed_model=True)
    answer = read(page, tmp_path / "size.cvae", data)
    assert answer["sha256"] == sha256(levels)
    assert (answer["shape"], answer["isMixed"]) == ([*size, 3], False)
    read(page, tmp_path / "model.cvae", MODELS[2].model_file())
    one = single.encode(symbols[0], 598, model.tables, model.identity, levels[0], size)
    assert read(page, tmp_path / "one.cvae", one)["sha256"] == sha256(levels[0])
    (tmp_path / "one.cvae").write_bytes(one[:-9] + one[-4:])
    assert not page.ask("read", path=tmp_path / "one.cvae")["ok"]


@pytest.mark.parametrize(("number", "size", "words"), [
    (1, (4, 4), "images of 4x4, but its model has 9x5 alone"),  # which its stages halve unevenly
    (2, (8193, 4), "impossible dimensions"),
    (2, (3000, 3000), "is the limit here"),
])  # fmt: skip
def test_images_of_a_size_that_is_refused(page, tmp_path, number, size, words):
    """The others are shown."""
    model = MODELS[number]
    symbols = symbols_of(model, 3, 598)
    good = model.chunk(symbols, 598, levels_of(model, symbols, 598))
    path = tmp_path / "sizes.cvae"
    chunks = [good, dataclasses.replace(good, size=size)]
    path.write_bytes(model.archive(chunks, embed_model=True))
    answer = page.ask("read", path=path)
    assert answer["ok"], answer["error"]
    assert answer["runs"] == [[0, 3]]
    assert words in answer["faults"][0]
