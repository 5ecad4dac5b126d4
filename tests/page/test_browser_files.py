"""The page in a browser opens what Python opens, to the same pixels, and survives the rest."""

import contextlib

import numpy as np
import pytest
from conftest import ROOT
from map_samples import levels_of, map_model, symbols_of
from page_samples import digits, sha256

from benchmarks.fuzz.mutants import mutant
from benchmarks.fuzz.samples import Sample, samples, tiny_model
from cvae_jax import codec, reader
from cvae_jax.bitstream import budget, writer
from cvae_jax.bitstream.budget import Meter
from cvae_jax.bitstream.salvage import salvage
from cvae_jax.data import read_image
from cvae_jax.errors import CvaeError
from cvae_jax.exact import by_numpy
from cvae_jax.exact.architecture import Architecture
from cvae_jax.page import build

pytest_plugins = ["browser_samples"]
GOLDEN = ROOT / "tests" / "golden"
INPUTS = 150  # mutated files
SCREEN = 400  # images that are on screen, at most


@pytest.fixture(scope="module")
def made():
    return codec.load("mnist")


@pytest.fixture(scope="module")
def shown(show):
    with show() as shown:
        shown.ready()
        yield shown


def opened(shown, data):
    """Red levels of all images on screen, which must begin with the first and have no gap."""
    error, images = shown.open(data)
    assert error is None
    assert [k for k, _ in images] == list(range(len(images)))
    return [levels for _, levels in images]


def test_pixels_on_screen_are_those_of_python(shown, made):
    """Of the first images and, after scrolling, of later ones."""
    data = made.compress(digits(1000))
    images = reader.decompress(data)
    first = opened(shown, data)
    assert len(first) > 100
    assert sha256(images[: len(first)]) == sha256(np.frombuffer(b"".join(first), np.uint8))
    shown.page.locator("#go-to").fill("990")
    shown.page.locator("#go-to").press("Enter")
    shown.page.locator(".cell[aria-label='Image 999']").wait_for()
    assert shown.picture("Image 999") == images[999].tobytes()
    assert shown.picture("Image 990") == images[990].tobytes()


@pytest.mark.parametrize("max_error", [None, 0, 4])
def test_single_images_and_refined_files(shown, made, max_error):
    images = digits(12, seed=1)
    for some in (images, images[:1]):
        data = made.compress(some, max_error=max_error)
        assert b"".join(opened(shown, data)) == reader.decompress(data).tobytes()
    data, _ = made.compress_one(images[0], max_error=max_error)
    (levels,) = opened(shown, data)
    assert levels == reader.decompress(data).tobytes()
    assert shown.page.locator("#large").is_visible()  # of one image, it opens by itself
    shown.wait(lambda: shown.pixels("#large-picture") == levels)
    assert shown.page.locator("#large-hex").inner_text().split() == [f"{b:02x}" for b in data]
    shown.page.locator("#large-close").click()


@pytest.mark.parametrize("name", ["v2_mnist", "v2_refined"])
def test_golden_files(shown, name):
    expected = reader.decompress((GOLDEN / f"{name}.cvae").read_bytes())
    levels = opened(shown, (GOLDEN / f"{name}.cvae").read_bytes())
    assert b"".join(levels) == expected[: len(levels), ..., 0].tobytes()


def test_names_are_text(shown, made, monkeypatch):
    """Also those that Python would not write."""
    names = ["&lt;b&gt;.png", "a'onload=alert(1).png"]
    opened(shown, made.compress(digits(2), names=names, labels=[7, 2**32 - 1]))
    cells = shown.page.locator(".cell:visible")
    for k, (name, label) in enumerate(zip(names, ["7", "4294967295"], strict=True)):
        assert cells.nth(k).inner_text().split(maxsplit=1) == [label, name]
    cells.nth(0).click()
    shown.page.locator("#large-facts", has_text=names[0]).wait_for(timeout=5000)
    name, _ = shown.downloaded("#large-save")
    assert name == "&lt;b&gt;.png"
    shown.page.locator("#large-close").click()
    monkeypatch.setattr(writer, "check_names", lambda names: None)
    hostile = ["<img src=x onerror=alert(1)>.png", "</script><b>b</b>"]
    shown.open(made.compress(digits(2), names=hostile))
    assert cells.count() == 2
    assert not shown.page.locator("#grid :is(img, b, script)").count()


def test_a_saved_picture_has_the_same_pixels(shown, made, tmp_path):
    data = made.compress(digits(5), names=[f"some/where/{k}.png" for k in range(5)])
    opened(shown, data)
    shown.page.locator(".cell").nth(3).click()
    name, content = shown.downloaded("#large-save")
    assert name == "3.png"
    (tmp_path / name).write_bytes(content)
    assert np.array_equal(read_image(tmp_path / name), reader.decompress(data)[3])
    shown.page.locator("#large-close").click()


def test_damage_is_named_and_the_rest_is_shown(shown, made):
    parts = [coded.chunk for k in (0, 10, 20) for coded in made.chunks(digits(30)[k : k + 10])]
    whole = made.file_model.archive(parts)
    broken = bytearray(whole)
    broken[whole.index(b"CHNK", whole.index(b"CHNK") + 4) + 60] ^= 4
    error, found = shown.open(bytes(broken))
    assert error is None
    said = shown.page.locator("#damage").inner_text()
    assert "Lost: images 10 to 19. The rest is shown." in said
    expected = reader.decompress(whole)
    assert [k for k, levels in found if levels is None] == list(range(10, 20))
    assert all(levels == expected[k].tobytes() for k, levels in found if levels is not None)
    lost = shown.page.locator(".cell[aria-label='Image 12, lost']")
    lost.click()
    # The facts come from the worker.
    shown.page.locator("#large-facts", has_text="lost").wait_for(timeout=5000)
    assert shown.page.locator("#large-save").is_disabled()
    shown.page.locator("#large-close").click()


def test_damage_that_only_pixels_tell_is_named_when_the_worker_is_idle(shown, made):
    """Of a chunk that is on screen in part: its check is of images that nobody scrolled to."""
    symbols, step = made.encode_symbols(digits(1500))
    levels = made.decode_symbols(symbols, step)
    wrong = levels.copy()
    wrong[1199, 14, 14] ^= 1
    files = made.file_model
    whole, broken = (
        files.archive(
            [
                files.chunk(symbols[:1200], step, pixels[:1200]),
                files.chunk(symbols[1200:], step, pixels[1200:]),
            ]
        )
        for pixels in (levels, wrong)
    )
    error, images = shown.open(broken)
    assert error is None
    assert images[0][0] == 0
    damage = shown.page.locator("#damage")
    damage.filter(has_text="Lost: images 0 to 1199. The rest is shown.").wait_for()
    damage.filter(has_text="decode to other pixels").wait_for()
    shown.page.locator(".cell[aria-label='Image 0, lost']").wait_for()
    shown.page.locator("#go-to").fill("1499")
    shown.page.locator("#go-to").press("Enter")
    shown.page.locator(".cell[aria-label='Image 1499']").wait_for()
    assert shown.picture("Image 1499") == levels[1499].tobytes()
    shown.open(whole)
    assert not damage.is_visible()


def test_what_cannot_be_opened_leaves_what_is_shown(shown, made):
    opened(shown, made.compress(digits(3)))
    error, images = shown.open(b"hello", "other.cvae")
    assert error.startswith("other.cvae: ")
    assert error.endswith(". Still showing file.cvae.")
    assert [k for k, _ in images] == [0, 1, 2]
    error, _ = shown.open(made.file_model.model_file(), "model.cvae")
    assert error.startswith("model.cvae is a model")
    assert error.endswith(". Still showing file.cvae.")


COUNT_CANVASES = """() => {
  window.made = 0;
  const make = document.createElement;
  document.createElement = function (tag) {
    if (tag === "canvas") made++;
    return make.call(this, tag);
  };
}"""


def test_rows_are_used_again(shown, made):
    """Wherever one goes: a canvas for each row on screen, and none made for other rows."""
    opened(shown, made.compress(digits(3000)))
    rows = shown.page.locator(".grid-row")
    for k, image in enumerate((1500, 2999, 0, 2000, 700)):
        shown.page.locator("#go-to").fill(str(image))
        shown.page.locator("#go-to").press("Enter")
        shown.page.locator(f".cell[aria-label='Image {image}']").wait_for()
        assert shown.page.locator("#grid canvas").count() == rows.count() <= 24
        numbers = rows.evaluate_all("rows => rows.map((row) => Number(row.ariaRowIndex))")
        assert numbers == sorted(numbers)
        if k == 0:
            shown.page.evaluate(COUNT_CANVASES)
    assert shown.page.evaluate("made") <= 2  # as rows at the edges of the window may be cut


def test_what_is_no_file_is_refused_in_a_line(shown):
    for data in (b"", b"hello", bytes(1000), b"\x89PNG\r\n\x1a\n" + bytes(100)):
        error, _ = shown.open(data, "some <b>file</b>.cvae")
        assert error.startswith("some <b>file</b>.cvae: ")
        assert "\n" not in error


def test_mutated_files_give_an_error_or_the_right_pixels(shown, made):
    """What the page shows as intact is what Python gives, or salvages."""
    rng = np.random.default_rng(5)
    images = digits(6, seed=2)
    files = [made.compress(images, max_error=bound) for bound in (None, 0, 4)]
    files += [made.compress_one(images[0], max_error=bound)[0] for bound in (None, 0)]
    context = made.file_model.context
    whole = [Sample(data, made.header, made.tables, context) for data in files]
    whole += [sample for sample in samples() if sample.header.image_shape != (28, 28, 1)]
    decoder = made.file_decoder
    compared = 0
    for _ in range(INPUTS):
        data = mutant(rng, whole[rng.integers(len(whole))])
        error, found = shown.open(data)
        expected = python_gives(data, decoder)
        for k, levels in found if error is None and expected is not None else []:
            if levels is not None:
                assert levels == expected[k].tobytes()
                compared += 1
    assert compared > INPUTS / 10


def python_gives(data, decoder):
    """The images of a file by their numbers; None where Python refuses it.

    Of a damaged archive, chunk by chunk: the page shows also images whose names are damaged, and
    what is on screen before it has all images of a chunk, which have one check together.
    """
    try:
        return dict(enumerate(reader.decompress(data)))
    except CvaeError:
        pass
    given = {}
    try:
        found = salvage(data)
        decoder.require(found.header)
    except CvaeError:
        return None
    for chunk in found.chunks:
        with contextlib.suppress(CvaeError):
            symbols = chunk.symbols(decoder.tables)
            if chunk.refinement is None:
                levels = decoder.decode_symbols(symbols[:SCREEN], chunk.step)
            else:
                base = decoder.decode_symbols(symbols, chunk.step)
                meter = Meter(budget.DISTRIBUTIONS, budget.DEFAULT, len(data))
                (levels,) = decoder.refined([(chunk, base)], meter)
            given.update(enumerate(levels, chunk.first))
    return given


def test_a_page_of_another_model(show, tmp_path):
    """Neither grey nor square, without an encoder: it opens its archives; nothing can be drawn."""
    rng = np.random.default_rng(3)
    model = tiny_model(rng, Architecture((12, 8, 3), 3, (3, 2)))
    decoder = model.file_decoder(model.levels_by(by_numpy.decoder), trusted=True)
    symbols = rng.integers(-2, 3, (40, 3)).astype(np.int32)
    images = decoder.decode_symbols(symbols, 300)
    data = model.archive([model.chunk(symbols, 300, images)])
    path = tmp_path / "page.html"
    path.write_text(build(model, "tiny", archive=("tiny.cvae", data)))
    with show(path) as shown:
        shown.page.locator(".cell[aria-label='Image 39']").wait_for()
        for k in (0, 39):
            levels = shown.picture(f"Image {k}")
            assert levels == images[k, :, :, 0].tobytes()
        assert not shown.page.locator("#tab-draw").is_visible()
        shown.view("walk")
        shown.page.locator("#latent-0").wait_for()
        assert not shown.page.locator("#morph").is_visible()


def map_archive():
    """A model with a map of latents, its archive, which carries it, and the images."""
    model = map_model((16, 12, 3))
    symbols = symbols_of(model, 40, 300)
    images = levels_of(model, symbols, 300)
    return model, model.archive([model.chunk(symbols, 300, images)], embed_model=True), images


def test_an_archive_of_a_map_that_carries_its_model(shown):
    _, data, images = map_archive()
    reds = opened(shown, data)
    assert reds == [image[:, :, 0].tobytes() for image in images[: len(reds)]]
    shown.page.locator(".cell[aria-label='Image 3']").click()
    symbols = shown.page.locator("#large-symbols li")
    symbols.first.wait_for()  # they come after the picture
    assert symbols.count() == 48
    assert "Component" not in shown.page.locator("#large-facts").text_content()
    shown.page.locator("#large-close").click()


def test_images_of_several_sizes_are_each_shown_whole(shown):
    model = map_model((16, 12, 3))
    chunks, images = [], []
    for sized in (model, model.resized((9, 21)), model.resized((30, 5))):
        symbols = symbols_of(sized, 2, 300)
        images.append(levels_of(sized, symbols, 300))
        chunks.append(sized.chunk(symbols, 300, images[-1]))
    assert len(opened(shown, model.archive(chunks, embed_model=True))) == 6
    assert "up to 21×30" in shown.page.locator("#opened-facts").text_content()
    for k, (height, width) in enumerate([(16, 12), (9, 21), (30, 5)]):
        shown.page.locator(f".cell[aria-label='Image {2 * k}']").click()
        size = shown.page.locator(f"#large-facts :text-is('{width}×{height}')")
        size.wait_for()
        assert shown.pixels("#large-picture") == images[k][0, :, :, 0].tobytes()
        shown.page.locator("#large-close").click()


def test_a_page_of_a_map_only_opens_files(show, tmp_path):
    model, data, images = map_archive()
    path = tmp_path / "page.html"
    path.write_text(build(model, "map"))
    with show(path) as shown:
        shown.page.locator("#open").wait_for()
        assert "only opens them" in shown.page.locator("#chooser").text_content()
        assert shown.page.locator("[role=tab]:visible").count() == 1
        assert opened(shown, data)[0] == images[0, :, :, 0].tobytes()
