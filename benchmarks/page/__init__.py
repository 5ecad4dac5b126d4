"""The page's codec in Node, and the page's size:  python -m benchmarks.page

Writes ``results/page.json``: images a second, the first picture of an archive of 10,000 images, the
time from pixels to a file's bytes, the page's bytes; and what rounding its encoder's weights costs
on MNIST's held-out images, with ``--data``, an .npy of them, uint8 ``[N, 28, 28, 1]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.page.node import Page, carried
from benchmarks.throughput import machine
from cvae_jax import codec
from cvae_jax.codec import Codec

ROOT = Path(__file__).resolve().parents[2]
QUALITY = 50
IMAGES = 10_000
REPEATS = 7
ENCODED = 200  # images, of those that rounding is measured on
# The bars: at least, and at most.
RATE, FIRST, STROKE, SIZE = 500, 0.3, 0.05, 600_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="held-out images")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "page.json")
    args = parser.parse_args()
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    report |= measured(np.load(args.data) if args.data else None)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def measured(held_out: np.ndarray | None) -> dict:
    made = codec.load("mnist")
    text = (ROOT / "web" / "index.html").read_text()
    with tempfile.TemporaryDirectory() as folder:
        return _measured(Path(folder), made, text, held_out)


def _measured(folder: Path, made: Codec, text: str, held_out: np.ndarray | None) -> dict:
    model, encoder, archive, small = (
        folder / name for name in ("model", "encoder", "archive", "small")
    )
    model.write_bytes(made.file_model.model_file())
    encoder.write_bytes(carried(text, "encoder"))
    symbols = np.concatenate([_typical(made, 100)] * (IMAGES // 100))
    for file, n in ((archive, IMAGES), (small, IMAGES // 10)):
        some = symbols[:n]
        file.write_bytes(made.pack(some, 597, levels=made.decode_symbols(some, 597)))
    node: dict = {}
    for kind in ("webassembly", "typed arrays"):
        typed = kind != "webassembly"
        first, rates = [], []
        for _ in range(1 if typed else REPEATS):  # as a page that was just opened
            with Page(model, encoder, typed=typed) as page:
                answer = page.ask("read", path=small if typed else archive)
            first.append(answer["toFirst"])
            rates.append(answer["count"] / answer["seconds"])
        node[kind] = {
            "first_picture_seconds": round(statistics.median(first), 4),
            "images_per_second": round(statistics.median(rates)),
        }
    with Page(model, encoder) as page:
        images = made.decode_symbols(symbols[:50], 597)
        seconds = [_encoded(page, folder, image)["seconds"] for image in images]
        node["pixels_to_bytes_seconds"] = {
            "first": round(seconds[0], 4),
            "median": round(statistics.median(seconds), 4),
        }
        cost = None if held_out is None else _cost(page, folder, made, held_out[:ENCODED])
    size = len(text.encode())
    quick = node["webassembly"]
    bars = [
        ("images/s in Node", quick["images_per_second"], RATE, True),
        ("first picture of 10,000 in Node, seconds", quick["first_picture_seconds"], FIRST, False),
        (
            "pixels to bytes in Node, seconds",
            node["pixels_to_bytes_seconds"]["first"],
            STROKE,
            False,
        ),
        ("bytes of the page", size, SIZE, False),
    ]
    out = {
        "machine": machine(),
        "page_bytes": size,
        "encoder_bytes": encoder.stat().st_size,
        "node": node,
        "bars": [
            {
                "what": what,
                "measured": value,
                "at_least" if least else "at_most": bar,
                "met": value >= bar if least else value <= bar,
            }
            for what, value, bar, least in bars
        ],
    }
    return out if cost is None else {**out, "rounded_encoder": cost}


def _typical(made: Codec, n: int) -> np.ndarray:
    """Symbols as the tables expect them, of n components: int32 ``[n, D]``."""
    return np.rint(made.tables.means[:n] / 597).astype(np.int32)


def _encoded(page: Page, folder: Path, image: np.ndarray) -> dict:
    pixels, out = folder / "pixels", folder / "out.cvae"
    pixels.write_bytes(image.tobytes())
    answer = page.ask("encode", path=pixels, quality=QUALITY, out=out)
    assert answer["ok"], answer["error"]
    return answer


def _cost(page: Page, folder: Path, made: Codec, images: np.ndarray) -> dict:
    """Mean bytes of single files and mean squared error, of the page's encoder and of the real."""
    sizes, errors = [], []
    for image in images:
        _encoded(page, folder, image)
        files = (folder / "out.cvae").read_bytes(), made.compress(image, QUALITY)
        sizes.append([len(file) for file in files])
        decoded = [made.decompress(file)[0].astype(float) for file in files]
        errors.append([np.square((x - image.reshape(x.shape)) / 255).mean() for x in decoded])
    names = "page", "real"
    return {
        "images": len(images),
        "bytes": dict(zip(names, np.mean(sizes, 0).round(3).tolist(), strict=True)),
        "mse": dict(zip(names, np.mean(errors, 0).round(6).tolist(), strict=True)),
    }
