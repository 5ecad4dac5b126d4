"""The pictures of the study: rate against distortion, images at equal bytes, inside the latents."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from matplotlib.figure import Figure

from cvae_jax.codec import Codec
from cvae_jax.coding import quantize
from cvae_jax.pixels import to_unit
from cvae_jax.runs.plots import COLOURS, grid, show, tile
from cvae_jax.study.compare import OWN, TOGETHER, Row
from cvae_jax.study.sweep import Study

# Told apart by shape and order of brightness as well as by colour.
MARKERS = "os^DvPX*"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
NAMES = {OWN: "each image a file of its own", TOGETHER: "all images together"}


def rate_distortion(study: Study, ours: Sequence[str]) -> Figure:
    """PSNR over bytes per image (logarithmic) of every codec, for both regimes."""
    rows = study.report["rows"]
    figure = Figure(figsize=(10, 4.6))
    panels = figure.subplots(1, 2, sharey=True)
    others = [r for r in rows if r["kind"] in ("lossy", "baseline")]
    for axes, regime in zip(panels, (TOGETHER, OWN), strict=True):
        for i, codec in enumerate(dict.fromkeys(r["codec"] for r in others)):
            curve = [r for r in others if (r["codec"], r["regime"]) == (codec, regime)]
            curve.sort(key=_bytes)
            axes.plot(
                *_curve(curve), ls="--", lw=1, marker=MARKERS[i], ms=4, label=codec,
                color=str(0.25 + 0.1 * i),
            )  # fmt: skip
        for i, name in enumerate(ours):
            for searched, style in ((False, "-"), (True, ":")):
                curve = [
                    r
                    for r in rows
                    if (r["codec"], r["regime"]) == (name, regime)
                    and ("effort" in r["setting"]) == searched
                ]
                label = f"cvae, {name}, searched" if searched else f"cvae, {name}"
                if curve:
                    axes.plot(
                        *_curve(sorted(curve, key=_bytes)), style, marker=MARKERS[i], ms=5,
                        lw=2, color=COLOURS[i % len(COLOURS)], label=label,
                    )  # fmt: skip
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xticks([t for t in TICKS if low <= t <= high])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(xlabel="bytes per image, everything in the file included", title=NAMES[regime])
        axes.grid(alpha=0.3)
        axes.set_ylim(10, 36)
    panels[0].set_ylabel("PSNR of the mean squared error, dB")
    panels[0].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    return figure


def side_by_side(
    study: Study, images: np.ndarray, ours: Sequence[str], at: str, value: float
) -> Figure:
    """Images as each codec decodes them, all together in one file, nearest to a rate or an error.

    at: "bytes_per_image", or "mse": equal bytes, or equal quality.
    """
    pairs = zip(study.report["rows"], study.shown, strict=True)
    rows = [(r, s) for r, s in pairs if r["regime"] == TOGETHER and r["kind"] != "lossless"]
    chosen: list[tuple[Row, np.ndarray]] = []
    for codec in dict.fromkeys(r["codec"] for r, _ in rows):
        own = [(r, s) for r, s in rows if r["codec"] == codec]
        best = min(own, key=lambda pair: abs(np.log(pair[0][at] / value)))
        if 0.6 < best[0][at] / value < 1.7:
            chosen.append(best)
    chosen.sort(key=lambda pair: pair[0]["mse" if at == "bytes_per_image" else "bytes_per_image"])
    strips = [("original", images[: len(chosen[0][1])])] if chosen else []
    for row, decoded in chosen:
        name = f"cvae, {row['codec']}" if row["codec"] in ours else row["codec"]
        label = f"{name}\n{row['bytes_per_image']:.1f} bytes, MSE {row['mse']:.4f}"
        strips.append((label, decoded))
    figure = Figure(figsize=(9, 0.72 * max(len(strips), 1)))
    panels = figure.subplots(max(len(strips), 1), 1, squeeze=False)[:, 0]
    for axes, (label, strip) in zip(panels, strips, strict=False):
        show(axes, tile(to_unit(strip), len(strip)), "")
        axes.text(-0.01, 0.5, label, ha="right", va="center", transform=axes.transAxes, fontsize=8)
    figure.subplots_adjust(left=0.24, hspace=0.05)
    return figure


def traversals(codec: Codec, image: np.ndarray, rows: int = 16) -> Figure:
    """One image with each of its most used latents moved from -3 to 3; a row each."""
    z = codec.encode(image[None])[0]
    spread = codec.tables.means.std(0) * codec.tables.unit
    used = spread.argsort()[::-1][:rows]
    values = np.linspace(-3, 3, 13)
    moved = np.repeat(z[None, None], len(used), 0).repeat(len(values), 1)
    for row, d in enumerate(used):
        moved[row, :, d] = values
    title = "One latent a row, from -3 to 3; the others as encoded"
    return grid(codec.decode(moved.reshape(-1, len(z))), title, len(values))


def bytes_per_dimension(codec: Codec, images: np.ndarray) -> Figure:
    """Where the bytes go: bits of each latent at the default quality, largest first."""
    bits = _bits_per_dimension(codec, codec.encode(images))
    figure = Figure(figsize=(8, 2.8))
    axes = figure.add_subplot()
    axes.bar(np.arange(len(bits)), np.sort(bits)[::-1], color=COLOURS[0])
    component = _component_bits(codec)
    axes.set(xlabel="latents, by what they cost", ylabel="bits per image")
    axes.set_title(f"{bits.sum() / 8:.2f} bytes for latents, {component / 8:.2f} for the component")
    axes.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    return figure


def interpolation(codec: Codec, pairs: np.ndarray) -> Figure:
    """From one image to another through the latents, a row for each pair, ``[R, 2, H, W, C]``."""
    steps = np.linspace(0, 1, 12)[:, None]
    rows = []
    for first, last in pairs:
        z = codec.encode(np.stack([first, last]))
        rows.append(codec.decode(((1 - steps) * z[0] + steps * z[1]).astype(np.float32)))
    return grid(np.concatenate(rows), "From one digit to another, through the latents", 12)


def samples(codec: Codec, n: int = 96) -> Figure:
    return grid(codec.sample(jax.random.key(0), n), "Decoded from the prior N(0, I)")


def _bits_per_dimension(codec: Codec, z: np.ndarray) -> np.ndarray:
    """Mean bits that each latent costs at the default quality, ``[D]``."""
    step = quantize.step(quantize.DEFAULT_QUALITY)
    tables = codec.tables
    symbols, book = quantize.quantize(z, tables, step), tables.book(step)
    rows, index = book.index(symbols, tables.assign(symbols, step))
    return book.prices(rows, index).mean(0)


def _component_bits(codec: Codec) -> float:
    p = codec.tables.weights / codec.tables.weights.sum(dtype=np.float64)
    return float(-(p * np.log2(p)).sum())


def _bytes(row: Row) -> float:
    return row["bytes_per_image"]


def _curve(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    inexact = [r for r in rows if r["psnr_of_mean_mse"] is not None]
    return [_bytes(r) for r in inexact], [r["psnr_of_mean_mse"] for r in inexact]
