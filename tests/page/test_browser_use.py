"""The page in a browser, as a person uses it: drawing, walking, by keyboard alone."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from browser_samples import DESKTOP, PHONE
from conftest import ROOT
from page_samples import digits

from cvae_jax import codec, reader

pytest_plugins = ["browser_samples"]

SHIFT = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) shifts.push(entry.value);
  }).observe({ type: "layout-shift", buffered: true });
}"""


@pytest.fixture(scope="module")
def archive():
    """An archive of labelled images, by a model that the page has."""
    return codec.load("mnist").compress(digits(300), labels=[k % 10 for k in range(300)])


@pytest.fixture(scope="module")
def axe():
    """The text of axe-core, which finds what makes a page hard to use with a screen reader."""
    folders = [parent / "node_modules" for parent in ROOT.parents]
    folders += filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep))
    for folder in map(Path, folders):
        if (folder / "axe-core" / "axe.min.js").is_file():
            return (folder / "axe-core" / "axe.min.js").read_text()
    pytest.skip("axe-core is not in NODE_PATH")


def draw(shown, points, pad="#pad"):
    """A stroke through these points, in hundredths of the pad, by mouse."""
    box = shown.page.locator(pad).bounding_box()
    places = [
        (box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100) for x, y in points
    ]
    shown.page.mouse.move(*places[0])
    shown.page.mouse.down()
    for place in places[1:]:
        shown.page.mouse.move(*place, steps=4)
    shown.page.mouse.up()


@contextmanager
def settled(shown):
    """Waits after a change until the drawing has been still for a moment, and been announced."""
    shown.announced()
    shown.page.evaluate("document.getElementById('draw-status').textContent = ''")
    yield
    shown.announced()


SEVEN = [(25, 25), (72, 22), (50, 80)]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_drawing_is_a_file_that_python_opens(show, size):
    with show(size=size) as shown:
        shown.ready()
        with settled(shown):
            draw(shown, SEVEN)
        name, data = shown.downloaded("#download")
        assert name == "drawing.cvae"
        image = reader.decompress(data)
        assert shown.pixels("#back") == image.tobytes()
        count = int(shown.page.locator("#count").inner_text())
        assert count == len(data)
        assert shown.page.locator("#hex").inner_text().split() == [f"{b:02x}" for b in data]
        seen = np.frombuffer(shown.pixels("#seen"), np.uint8).reshape(28, 28) / 255
        assert np.square(seen - image[..., 0] / 255).mean() < 0.03


HOLD = """
window.held = null; // answers of the worker, while they are kept back
window.Worker = class extends Worker {
  set onmessage(take) {
    super.onmessage = (event) => {
      if (held) held.push(() => take.call(this, event));
      else take.call(this, event);
    };
  }
};
"""


def test_what_was_cleared_does_not_come_back(show):
    """An answer that comes after Clear is of a drawing that is gone."""
    with show(script=HOLD) as shown:
        shown.ready()
        shown.announced()
        page = shown.page
        page.locator("#clear").click()
        shown.wait(lambda: shown.pixels("#seen") == bytes(784))
        empty = page.locator("#hex").inner_text()
        draw(shown, SEVEN)
        shown.wait(lambda: page.locator("#hex").inner_text() != empty)
        page.evaluate("held = []")
        draw(shown, [(20, 60), (80, 60)])
        shown.wait(lambda: page.evaluate("held.length"))
        page.evaluate(
            """() => {
              window.saw = [];
              const hex = document.getElementById("hex");
              new MutationObserver(() => saw.push(hex.innerText)).observe(hex, { childList: true });
            }"""
        )
        page.locator("#clear").click()
        page.evaluate("() => { const late = held; held = null; late.forEach((take) => take()); }")
        shown.wait(lambda: page.evaluate("saw.length"))
        assert set(page.evaluate("saw")) == {empty}


def test_a_drawing_is_brought_to_the_models_size_as_mnists_are(show):
    """Wherever it is drawn, and however large: within 20 x 20 pixels, about the centre of mass."""
    with show() as shown:
        shown.ready()
        for scale, shift in ((1, 0), (0.5, 5), (0.4, 55)):
            shown.page.locator("#clear").click()
            with settled(shown):
                draw(shown, [(scale * x + shift, scale * y + shift) for x, y in SEVEN])
            image = np.frombuffer(shown.pixels("#seen"), np.uint8).reshape(28, 28).astype(float)
            rows, columns = np.nonzero(image)
            assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
            centre = [(np.arange(28) * image.sum(axis)).sum() / image.sum() for axis in (0, 1)]
            assert np.abs(np.subtract(centre, 13.5)).max() <= 0.5 + 1e-9


def test_quality_and_the_other_encoders(show):
    with show() as shown:
        shown.ready()
        sizes = []
        for quality in ("0", "51", "100"):
            with settled(shown):
                shown.page.locator("#quality").fill(quality)
            sizes.append(int(shown.page.locator("#count").inner_text()))
        assert sizes == sorted(set(sizes))
        shown.page.locator("#rivals tbody tr:last-child small:has-text('quality')").wait_for()
        rows = shown.page.locator("#rivals tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == ["cvae", "PNG", "WebP", "JPEG"]
        bytes_of = [
            int(cell.replace(",", ""))
            for cell in shown.page.locator("#rivals td:nth-child(3)").all_inner_texts()
        ]
        assert bytes_of[0] == sizes[-1]
        assert min(bytes_of[1:]) > bytes_of[0]


def test_walking(show):
    """What the sliders stand at is decoded as Python decodes it; the prior, a drawing, a morph."""
    model = reader.load("mnist")
    decoder = model.decoder()
    with show() as shown:
        shown.ready()
        shown.view("walk")
        shown.page.locator("#latent-0").wait_for()
        shown.page.locator("#zero").click()
        zeros = decoder.decode_symbols(np.zeros((1, 16), np.int32), 1)[0, :, :, 0]
        shown_as = lambda: shown.pixels("#walked")  # noqa: E731
        shown.wait(lambda: shown_as() == zeros.tobytes())
        shown.page.locator("#latent-0").focus()
        for _ in range(40):
            shown.page.keyboard.press("ArrowRight")
        shown.wait(lambda: shown_as() != zeros.tobytes())
        before = shown_as()
        shown.page.locator("#sample").click()
        shown.wait(lambda: shown_as() not in (before, zeros.tobytes()))
        shown.page.locator("#from-drawing").click()
        ends = [shown.pixels(f"#strip canvas:nth-child({k})") for k in (1, 6, 11)]
        assert len(set(ends)) == 3
        assert shown.pixels("#morphed") == ends[1]
        shown.page.locator("#way").fill("100")
        shown.wait(lambda: shown.pixels("#morphed") == ends[2])
        draw(shown, SEVEN, "#pad-a")
        shown.wait(lambda: shown.pixels("#strip canvas:nth-child(1)") != ends[0])


def test_keyboard_alone(show, archive, tmp_path):
    (tmp_path / "some.cvae").write_bytes(archive)
    with show() as shown:
        shown.ready()
        page, keys = shown.page, shown.page.keyboard
        focused = lambda: page.evaluate("document.activeElement.id")  # noqa: E731
        choosers = []  # listened for from the start: the browser takes a while to hand them over
        page.on("filechooser", lambda chooser: choosers.append(chooser))

        def tab_to(name):
            for _ in range(60):
                if focused() == name:
                    return
                keys.press("Tab")
            raise AssertionError(f"Tab does not reach {name}")

        def press(*names):
            for name in names:
                keys.press(name)

        # Draw: a stroke, another quality, the file.
        first = shown.pixels("#seen")
        tab_to("pad")
        press("Shift+ArrowUp", "Space", *["Shift+ArrowDown"] * 4, "Space", "ArrowRight")
        shown.wait(lambda: shown.pixels("#seen") != first)
        count = page.locator("#count").inner_text()
        tab_to("undo")
        tab_to("quality")
        press("End")
        shown.wait(lambda: page.locator("#count").inner_text() != count)
        tab_to("hex")
        keys.press("Shift+Tab")
        assert focused() == "download"
        with page.expect_download():
            press("Enter")
        # Walk.
        page.locator("#tab-draw").focus()
        press("ArrowRight")
        assert focused() == "tab-walk"
        page.locator("#latent-0").wait_for()
        before = shown.pixels("#walked")
        tab_to("sample")
        press("Enter")
        shown.wait(lambda: shown.pixels("#walked") != before)
        tab_to("latent-0")
        tab_to("way")
        # Open: choose, go through the images, enlarge one, come back.
        page.locator("#tab-walk").focus()
        press("Home")
        assert focused() == "tab-open"
        tab_to("file")
        press("Enter")
        shown.wait(lambda: choosers)
        choosers[0].set_files(tmp_path / "some.cvae")
        page.locator(".cell[aria-label='Image 0, label 0']").wait_for()
        tab_to("go-to")
        keys.press("Tab")
        label = lambda: page.evaluate("document.activeElement.ariaLabel")  # noqa: E731
        assert label() == "Image 0, label 0"
        press("ArrowRight", "ArrowRight")
        assert label() == "Image 2, label 2"
        press("ArrowDown", "ArrowUp", "End")
        shown.wait(lambda: label() == "Image 299, label 9")
        press("Home", "Enter")
        assert page.locator("#large-title").inner_text() == "Image 0"
        press("ArrowRight")
        assert page.locator("#large-title").inner_text() == "Image 1"
        press("Escape")
        assert not page.locator("#large").is_visible()
        shown.wait(lambda: label() == "Image 0, label 0")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(show, axe, archive, scheme, size):
    with show(scheme=scheme, size=size) as shown:
        shown.ready()
        shown.announced()
        shown.page.evaluate(axe)

        def check():
            found = shown.page.evaluate(
                "axe.run().then(({ violations }) => JSON.stringify(violations))"
            )
            violations = json.loads(found)
            assert not [(v["id"], [node["html"] for node in v["nodes"]]) for v in violations]

        check()
        shown.view("walk")
        shown.page.locator("#latent-0").wait_for()
        check()
        shown.view("open")
        check()
        shown.open(b"no file")
        check()
        shown.open(archive)
        check()
        shown.page.locator(".cell").first.click()
        shown.page.locator("#large-symbols li").first.wait_for()
        check()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_moves_by_itself(show, archive, size):
    with show(size=size) as shown:
        shown.page.evaluate(SHIFT)
        shown.ready()
        shown.announced()
        shown.page.locator("#rivals .bar").last.wait_for()
        shown.view("walk")
        shown.page.locator("#latent-0").wait_for()
        shown.wait(lambda: any(shown.pixels("#morphed")))
        shown.view("open")
        shown.open(archive)
        assert sum(shown.page.evaluate("shifts")) < 0.001
