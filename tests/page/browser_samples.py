"""A real browser for the tests of the page: Debian's Chromium, driven by Playwright."""

import base64
import shutil
from contextlib import contextmanager
from urllib.parse import urlparse

import pytest
from conftest import ROOT

PAGE = ROOT / "web" / "index.html"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WITHIN = 20_000  # ms that a test waits for anything; no figure


@pytest.fixture(scope="module")
def chromium():
    """A browser with a profile of its own, new and empty; skips the test where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def show(chromium):
    """``with show() as shown``: the page, fresh; nothing may be in its console when it is left, and
    nothing may have been asked of any host."""

    @contextmanager
    def show(path=PAGE, scheme="light", size=DESKTOP, script=""):
        """script: that runs before those of the page."""
        context = chromium.new_context(viewport=size, color_scheme=scheme)
        context.set_default_timeout(WITHIN)
        context.add_init_script(script)
        shown = Shown(context)
        shown.page.goto(path.as_uri())
        yield shown
        said, asked = shown.said, shown.asked
        context.close()
        assert not said
        assert not asked

    return show


class Shown:
    """A page in the browser."""

    def __init__(self, context):
        self.said, self.asked = [], []  # in the console, of other hosts
        context.route(lambda url: urlparse(url).scheme not in ("file", "blob"), self._refuse)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def _refuse(self, route):
        self.asked.append(route.request.url)
        route.abort()

    def ready(self):
        """Waits until the first drawing is a file."""
        self.page.locator("#download:enabled").wait_for(state="attached")

    def wait(self, holds):
        """Waits until something holds."""
        for _ in range(WITHIN // 20):
            if holds():
                return
            self.page.wait_for_timeout(20)
        raise AssertionError("it does not come to hold")

    def announced(self):
        """Waits until it has said how many bytes the drawing takes."""
        self.page.locator("#draw-status:not(:empty)").wait_for(state="attached")

    def view(self, name):
        self.page.locator(f"#tab-{name}").click()

    def open(self, data, name="file.cvae"):
        """Opens a file and waits for what is on screen: the error, or None and (number, pixels or
        None for a lost one) of every image that is."""
        content = base64.b64encode(data).decode()
        found = self.page.evaluate(OPEN, [name, content, WITHIN])
        images = [(k, text and base64.b64decode(text)) for k, text in found["images"]]
        return found["error"], images

    def pixels(self, selector):
        """Of a canvas, bytes of its red levels ``[H * W]``."""
        return base64.b64decode(self.page.locator(selector).evaluate(LEVELS))

    def picture(self, label):
        """Of the image with this label in the grid, as ``pixels``."""
        cell = self.page.locator(f".cell[aria-label='{label}']")
        return base64.b64decode(cell.evaluate(PICTURE))

    def downloaded(self, selector):
        """Name and bytes of what a button downloads."""
        with self.page.expect_download() as started:
            self.page.locator(selector).click()
        return started.value.suggested_filename, started.value.path().read_bytes()


LEVELS = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return btoa(String.fromCharCode(...data.filter((_, k) => k % 4 === 0)));
}"""

# A cell's part of the canvas of its row; images are as wide as that which shows one alone.
PICTURE = f"""cell => {{
  const row = cell.parentElement.querySelector("canvas");
  const columns = Number(document.getElementById("grid").getAttribute("aria-colcount"));
  const pitch = row.width / columns;
  const {{ width, height }} = document.getElementById("large-picture");
  const copy = new OffscreenCanvas(width, height);
  const left = (cell.ariaColIndex - 1) * pitch + Math.floor((pitch - width) / 2);
  copy.getContext("2d", {{ willReadFrequently: true }}).drawImage(row, -left, 0);
  return ({LEVELS})(copy);
}}"""

OPEN = f"""async ([name, content, within]) => {{
  const picture = {PICTURE};
  const status = document.getElementById("open-status");
  const input = document.getElementById("file");
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
  status.textContent = "Reading";
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
  const end = performance.now() + within;
  const isBusy = () => status.textContent.startsWith("Reading")
    || (!status.textContent && [...document.querySelectorAll(".cell:not([hidden])")].some(
      cell => cell.getAttribute("aria-label").includes("not decoded yet")))
    || (!status.textContent && !document.querySelector(".cell")
      && !document.getElementById("grid").hidden);
  while (isBusy()) {{
    if (performance.now() > end) throw new Error("the page hangs: " + status.textContent);
    await new Promise(resolve => setTimeout(resolve, 2));
  }}
  const images = [...document.querySelectorAll(".cell:not([hidden])")]
    .filter(cell => !cell.getAttribute("aria-label").includes("not decoded yet"))
    .map(cell => [
      Number(cell.dataset.number),
      cell.classList.contains("lost") ? null : picture(cell),
    ]);
  return {{ error: status.textContent || null, images }};
}}"""
