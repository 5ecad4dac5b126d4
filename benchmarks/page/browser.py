"""The page in a browser:  python -m benchmarks.page.browser ARCHIVE

ARCHIVE: of 10,000 images.  Writes what it finds into ``results/page.json``, beside what
``benchmarks.page`` does.  Needs Debian's Chromium and Playwright.  Medians of REPEATS fresh
pages: from the choice of the archive to the first picture on screen; images that the worker decodes
in a second; from a move of the pen to its bytes on screen; and, over all of that, the longest task
of the main thread (those of at least 50 ms, which is all that a browser tells) and what moved.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.throughput import machine

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 5
MOVES = 40  # of the pen
# The bars, and whether more is better.
BARS = {
    "first_picture_ms": (300, False),
    "images_per_second": (500, True),
    "slowest_stroke_ms": (50, False),
    "longest_task_ms": (50, False),
    "page_bytes": (600_000, False),
}
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

WATCH = """
window.tasks = []; window.shifts = [];
const watch = (type, take) => new PerformanceObserver((list) => list.getEntries().forEach(take))
  .observe({ type, buffered: true });
watch("longtask", (entry) => tasks.push(entry.duration));
watch("layout-shift", (entry) => entry.hadRecentInput || shifts.push(entry.value));
window.Workers = [];
window.Worker = class extends Worker {
  constructor(...given) { super(...given); Workers.push(this); }
};
"""
FIRST = """() => new Promise((resolve) => {
  const put = CanvasRenderingContext2D.prototype.putImageData;
  let chosen;
  const input = document.getElementById("file");
  input.addEventListener("change", () => { chosen = performance.now(); }, true);
  CanvasRenderingContext2D.prototype.putImageData = function (...given) {
    put.apply(this, given);
    if (this.canvas.closest("#grid")) {
      CanvasRenderingContext2D.prototype.putImageData = put;
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - chosen)));
    }
  };
})"""
# The page's own worker, asked beside the page, whose requests have other numbers.
DECODE = """(count) => new Promise((resolve) => {
  const [worker] = Workers;
  const id = "benchmark";
  const begun = performance.now();
  worker.addEventListener("message", ({ data }) => {
    if (data.id === id) resolve(count / (performance.now() - begun) * 1000);
  });
  worker.postMessage({ id, op: "images", file: 1, first: 0, count });
})"""
STROKE = """() => {
  window.strokes = [];
  let moved = null;
  const pad = document.getElementById("pad");
  pad.addEventListener("pointermove", () => { moved ??= performance.now(); }, true);
  new MutationObserver(() => {
    if (moved !== null) strokes.push(performance.now() - moved);
    moved = null;
  }).observe(document.getElementById("hex"), { childList: true });
}"""


def measure(page_file: Path, archive: Path, images: int) -> dict[str, Any]:
    """images: of the archive, to decode at once."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        for _ in range(REPEATS):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            page.add_init_script(WATCH)
            page.goto(page_file.resolve().as_uri())
            rows.append(_once(page, archive, images))
            context.close()
        version = browser.version
        browser.close()
    report: dict[str, Any] = {
        "browser": f"Chromium {version}",
        "page_bytes": page_file.stat().st_size,
    }
    for name in ("first_picture_ms", "images_per_second", "stroke_ms"):
        report[name] = round(statistics.median(row[name] for row in rows), 1)
    report["slowest_stroke_ms"] = round(max(row["slowest_stroke_ms"] for row in rows), 1)
    report["longest_task_ms"] = max(max(row["tasks"], default=0) for row in rows)
    report["layout_shift"] = round(max(sum(row["shifts"]) for row in rows), 5)
    return report


def _once(page: Any, archive: Path, images: int) -> dict[str, Any]:
    page.locator("#draw-status:not(:empty)").wait_for(state="attached")
    page.evaluate(STROKE)
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    for k in range(MOVES):
        page.mouse.move(box["x"] + 60 + 6 * k, box["y"] + 60 + 5 * k)
        page.wait_for_timeout(16)
    page.mouse.up()
    page.wait_for_timeout(800)
    strokes = page.evaluate("strokes")
    page.locator("#tab-walk").click()
    page.wait_for_timeout(500)
    page.locator("#tab-open").click()
    page.evaluate(f"window.first = ({FIRST})(); null")
    page.set_input_files("#file", archive)
    first = page.evaluate("first")
    page.wait_for_timeout(800)
    for _ in range(10):
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(60)
    page.wait_for_timeout(500)
    # Before the worker is asked for more at once than the page ever does.
    watched = page.evaluate("({ tasks, shifts })")
    return {
        "first_picture_ms": first,
        "images_per_second": page.evaluate(DECODE, images),
        "stroke_ms": statistics.median(strokes),
        "slowest_stroke_ms": max(strokes),
        **watched,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="decoded at once by the worker")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "page.json")
    args = parser.parse_args()
    found = measure(ROOT / "web" / "index.html", args.archive, args.images)
    found["bars"] = [
        {
            "what": name,
            "measured": found[name],
            "at_least" if least else "at_most": bar,
            "met": found[name] >= bar if least else found[name] <= bar,
        }
        for name, (bar, least) in BARS.items()
    ]
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    report["browser"] = {"machine": machine(), **found}
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["browser"], indent=2))


if __name__ == "__main__":
    main()
