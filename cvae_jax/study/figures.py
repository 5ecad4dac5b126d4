"""The pictures of the study: rate against distortion, images at equal bytes, inside the latents.

Each says in words what it shows, for readers who have not seen the code.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import jax
import numpy as np
from matplotlib.figure import Figure

from cvae_jax.codec import Codec
from cvae_jax.coding import quantize, streams
from cvae_jax.coding.maps.prior import MapPrior
from cvae_jax.pixels import to_unit
from cvae_jax.runs.plots import COLOURS, grid, show, spread, tile
from cvae_jax.study.compare import OWN, TOGETHER, Row, effort_of
from cvae_jax.study.sweep import Study

# Distinct by shape and brightness as well as by colour; ours share none with the others.
MARKERS = "s^DvP<X>p8H1234x+_"
OURS = "oh*d"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
NAMES = {OWN: "each image a file of its own", TOGETHER: "all images in one file"}
ABOVE = 6  # dB, what is lossless above what is not
NEAR = 1.7  # how many times a rate or an error still counts as about equal; less always does


def rate_distortion(study: Study, ours: Sequence[str]) -> Figure:
    """PSNR over bytes per image (logarithmic) of every codec, up to lossless, for both regimes."""
    rows = study.report["rows"]
    others = [r for r in rows if r["kind"] != "ours"]
    values = [r["psnr_of_mean_mse"] for r in rows if r["mse"]]
    top = max(values) + ABOVE
    figure = Figure(figsize=(10, 7))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, regime in zip(panels, (TOGETHER, OWN), strict=True):
        for i, codec in enumerate(dict.fromkeys(r["codec"] for r in others)):
            curve = _curve([r for r in others if r["codec"] == codec], regime, top)
            look = {"color": str(0.2 + 0.09 * (i % 6)), "marker": MARKERS[i % len(MARKERS)]}
            axes.plot(*curve, ls="--", lw=1, ms=5, label=codec, **look)
        for i, name in enumerate(ours):
            look = {"color": COLOURS[i % len(COLOURS)], "marker": OURS[i % len(OURS)]}
            for label, chosen, line in _series([r for r in rows if r["codec"] == name]):
                curve, label = _curve(chosen, regime, top), f"this codec, {name}{label}"
                axes.plot(*curve, lw=2.2, ms=7, label=label, **look, **line)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xticks([t for t in TICKS if low <= t <= high])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(xlabel="bytes per image (logarithmic)", title=_capital(NAMES[regime]))
        axes.axhspan(top - ABOVE / 2, top + ABOVE / 2, color="0.93", zorder=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylim(min(values) - 1, top + ABOVE / 2)
    decibels = range(10 * int(min(values) // 10 + 1), int(max(values)) + 1, 10)
    panels[0].set_yticks([*decibels, top], [*map(str, decibels), "lossless"])
    panels[0].set_ylabel("PSNR of the mean squared error, dB")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.19),
        ncols=4, fontsize=8,
    )  # fmt: skip
    note = (
        "Up and to the left is better; each point is a setting, and those in the grey band lose "
        "nothing. Everything in a file counts, but not the model that this codec and PCA need."
    )
    measured = [r for r in rows if r["kind"] == "ours"]
    if any(r["bound"] is not None for r in measured):
        note += " Bounded: no pixel is off by more than 8, 4, 2 or 1 grey levels."
    if effort := effort_of(measured):
        rounds = "two rounds" if effort == 2 else "a round"
        note += f" Effort {effort}: {rounds} of searching for better symbols when compressing."
    figure.text(0.5, 0.24, textwrap.fill(note, 140), ha="center", va="top", fontsize=8)
    figure.subplots_adjust(left=0.08, right=0.99, top=0.95, bottom=0.31, wspace=0.04)
    return figure


def _series(ours: Sequence[Row]) -> list[tuple[str, list[Row], dict[str, str]]]:
    """The curves of a checkpoint that have rows: what each is called, and its line."""
    lossy = [r for r in ours if r["bound"] is None]
    curves = [
        ("", [r for r in lossy if "effort" not in r["setting"]], {"ls": "-"}),
        (
            f", effort {effort_of(lossy)}",
            [r for r in lossy if "effort" in r["setting"]],
            {"ls": ":", "mfc": "white"},
        ),
        (", bounded, lossless", [r for r in ours if r["bound"] is not None], {"ls": "-."}),
    ]
    return [curve for curve in curves if curve[1]]


def equal_bytes(study: Study, images: np.ndarray) -> Figure:
    """Images as each codec decodes them, at about the bytes of this codec's default quality; where
    image formats do not get down to that, at the median of the formats' smallest files.
    """
    least: dict[str, float] = {}
    together = [row for row in study.report["rows"] if row["regime"] == TOGETHER]
    for row in together:
        if row["kind"] == "lossy":
            size = row["bytes_per_image"]
            least[row["codec"]] = min(size, least.get(row["codec"], size))
    fewest = float(np.median(list(least.values())))
    usual = next(row["bytes_per_image"] for row in together if _is_default(row, row["codec"]))
    if usual >= fewest:
        rate, what = usual, "what this codec takes at its default quality"
    else:
        rate = fewest
        what = "the median of what image formats go down to; this codec also at its default quality"
    title = (
        f"All {study.report['images']:,} images in one file, each codec at its setting (effort 0) "
        f"nearest to {rate:.1f} bytes per image, {what}"
    )
    return _side_by_side(study, images, "bytes_per_image", rate, title)


def equal_quality(study: Study, images: np.ndarray, error: float = 0.005) -> Figure:
    """Images as each codec decodes them, at about the same mean squared error."""
    title = (
        f"All {study.report['images']:,} images in one file, each codec at its setting (effort 0) "
        f"nearest to a mean squared error of {error:g}: the bytes per image differ; this codec "
        "also at its default quality"
    )
    return _side_by_side(study, images, "mse", error, title)


def _side_by_side(study: Study, images: np.ndarray, at: str, value: float, title: str) -> Figure:
    """A strip of images for each codec: ours always, others if they get down to the value."""
    pairs = zip(study.report["rows"], study.shown, strict=True)
    rows = [
        (r, s)
        for r, s in pairs
        if r["regime"] == TOGETHER and r["bound"] is None and "effort" not in r["setting"]
    ]
    chosen: list[tuple[Row, np.ndarray]] = []
    far: list[str] = []
    for codec in dict.fromkeys(r["codec"] for r, _ in rows):
        best = min(
            (pair for pair in rows if pair[0]["codec"] == codec),
            key=lambda pair: abs(np.log(pair[0][at] / value)),
        )
        if best[0]["kind"] == "ours":
            # Also what the default quality, of which the README speaks, looks like.
            chosen += [pair for pair in rows if _is_default(pair[0], codec) and pair is not best]
        if best[0]["kind"] == "ours" or best[0][at] < NEAR * value:
            chosen.append(best)
        else:
            far.append(f"{codec} ({_amount(best[0])})")
    chosen.sort(key=lambda pair: pair[0]["mse" if at == "bytes_per_image" else "bytes_per_image"])
    strips = [("original", spread(images, len(chosen[0][1])))]
    for row, decoded in chosen:
        name = f"this codec, {row['codec']}" if row["kind"] == "ours" else row["codec"]
        strips.append((f"{name}, {row['setting']}\n{_amount(row)}", decoded))
    figure = Figure(figsize=(10, 0.66 * len(strips)))
    for axes, (label, strip) in zip(
        figure.subplots(len(strips), 1, squeeze=False)[:, 0], strips, strict=True
    ):
        show(axes, tile(to_unit(strip), len(strip)), "")
        axes.text(-0.01, 0.5, label, ha="right", va="center", transform=axes.transAxes, fontsize=8)
    figure.subplots_adjust(left=0.24, right=0.99, hspace=0.06, top=0.99, bottom=0.01)
    figure.text(0.5, 1.01, textwrap.fill(title, 110), ha="center", va="bottom", fontsize=9)
    if far:
        note = f"Not shown, as no setting comes close: {', '.join(far)}."
        figure.text(0.5, -0.01, textwrap.fill(note, 125), ha="center", va="top", fontsize=8)
    return figure


def _is_default(row: Row, codec: str) -> bool:
    return row["codec"] == codec and row["setting"] == f"quality {quantize.DEFAULT_QUALITY}"


def _amount(row: Row) -> str:
    return f"{row['bytes_per_image']:.1f} bytes, MSE {row['mse']:.4f}"


def traversals(codec: Codec, images: np.ndarray, rows: int = 10) -> Figure:
    """The first image with each of its most spread-out latents moved from -3 to 3, a row each."""
    z = codec.encode(images)
    deviation = z.std(0)
    used = deviation.argsort()[::-1][:rows]
    values = np.arange(-3, 4)
    moved = np.tile(z[0], (len(used), len(values), 1))
    for row, d in enumerate(used):
        moved[row, :, d] = values
    pictures = codec.decode(moved.reshape(-1, z.shape[1]))
    title = (
        "What single latents do. In each row one latent of one image is set to the value above "
        "the column; all others stay as encoded. The latents are those whose values differ most "
        "from image to image (their spread, a standard deviation)."
    )
    height, width = codec.model.image_shape[:2]
    figure = Figure(figsize=(6, 5.2 * len(used) * height / (len(values) * width)))
    axes = figure.add_axes((0.13, 0, 0.86, 1))
    show(axes, tile(pictures, len(values)), "")
    for row, d in enumerate(used):
        axes.text(
            -3, (row + 0.5) * (height + 1), f"{_latent(codec, d)}\nspread {deviation[d]:.2f}",
            ha="right", va="center", fontsize=7,
        )  # fmt: skip
    for column, at in enumerate(values):
        axes.text(
            (column + 0.5) * (width + 1), -2, f"{at:+d}" if at else "0",
            ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
    figure.text(0.5, 1.04, textwrap.fill(title, 88), ha="center", va="bottom", fontsize=8)
    return figure


def _latent(codec: Codec, number: int) -> str:
    """What a latent is called."""
    if not codec.model.latent_map:
        return f"latent {number}"
    y, x, channel = np.unravel_index(number, codec.model.latent_map)
    return f"channel {channel}\nat row {y}, column {x}"


def bytes_per_dimension(codec: Codec, images: np.ndarray) -> Figure:
    """Where the bytes go: the bits of each latent at the default quality, largest first."""
    bits = _bits_per_dimension(codec, codec.encode(images))
    figure = Figure(figsize=(8, 3))
    axes = figure.add_subplot()
    # Gaps between very many bars would be a pattern of the picture's own.
    axes.bar(
        np.arange(1, len(bits) + 1), np.sort(bits)[::-1], 1 if codec.model.latent_map else 0.8,
        color=COLOURS[0],
    )  # fmt: skip
    free = int((bits < 0.01).sum())
    rest = f"; {free} of {len(bits)} take next to nothing" if free else ""
    axes.set(xlabel=f"latents, the most expensive first{rest}", ylabel="bits per image")
    axes.set_title(
        f"What an image's bytes are spent on at quality {quantize.DEFAULT_QUALITY}: "
        f"{bits.sum() / 8:.2f} bytes for its latents (the bars)" + _component_note(codec),
        fontsize=9,
    )
    axes.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    return figure


def interpolation(codec: Codec, images: np.ndarray) -> Figure:
    """From one image to another through the latents; a row for each pair of up to 12 images."""
    ends = codec.encode(spread(images, 12))
    half = max(1, len(ends) // 2)
    steps = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
    rows = [(1 - steps) * a + steps * b for a, b in zip(ends[:half], ends[-half:], strict=True)]
    title = "From one image (left) to another (right): decoded from mixtures of their latents"
    return grid(codec.decode(np.concatenate(rows)), title, len(steps))


def samples(codec: Codec, n: int = 64) -> Figure:
    drawn = "from what is expected of it after those before it"
    law = drawn if codec.model.latent_map else "from N(0, 1)"
    title = f"New images: decoded from random latents, each drawn {law}"
    return grid(codec.sample(jax.random.key(0), n), title)


def _bits_per_dimension(codec: Codec, z: np.ndarray) -> np.ndarray:
    """Mean bits that each latent costs at the default quality, ``[D]``."""
    step = quantize.step(quantize.DEFAULT_QUALITY)
    tables = codec.tables
    symbols = quantize.quantize(z, tables, step)
    return streams.prices(symbols, tables, step).mean(0)


def _component_note(codec: Codec) -> str:
    """What an image's component costs; nothing where there are none."""
    tables = codec.tables
    if isinstance(tables, MapPrior):
        return ""
    p = tables.weights / tables.weights.sum(dtype=np.float64)
    bits = float(-(p * np.log2(p)).sum())
    return (
        f",\nand {bits / 8:.2f} to say which of {tables.components} groups of similar images it "
        "belongs to, which narrows down its latents"
    )


def _curve(rows: Sequence[Row], regime: str, top: float) -> tuple[list[float], list[float]]:
    """Bytes and PSNR of settings, by increasing bytes; the smallest lossless one comes last, at
    ``top``, and no line leads there from settings that promise nothing."""
    here = [r for r in rows if r["regime"] == regime]
    points = sorted((r["bytes_per_image"], r["psnr_of_mean_mse"]) for r in here if r["mse"])
    exact = [r["bytes_per_image"] for r in here if not r["mse"]]
    if exact:
        if any(r["bound"] is None for r in here):
            points.append((math.nan, math.nan))
        points.append((min(exact), top))
    return [size for size, _ in points], [psnr for _, psnr in points]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
