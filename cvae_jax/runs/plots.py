"""Figures, built without pyplot and without a display."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from cvae_jax.data.sources import Source, spread_numbers
from cvae_jax.pixels import to_unit

COLUMNS = 16
# Okabe & Ito's palette: distinct to the colour-blind, and by brightness when printed in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure).print_figure(path, dpi=200, bbox_inches="tight")


def spread(images: Source, n: int) -> np.ndarray:
    """``n`` evenly spread images, or all if there are fewer; the images may be sorted by class."""
    return images[spread_numbers(len(images), n)]


def grid(images: np.ndarray, title: str, columns: int = COLUMNS) -> Figure:
    """Images ``[N, H, W, C]`` in [0, 1], ``columns`` per row."""
    figure = Figure(figsize=(8, 0.55 * -(-len(images) // columns) + 0.4))
    show(figure.add_subplot(), tile(np.asarray(images), columns), title)
    return figure


def pairs(originals: np.ndarray, decoded: np.ndarray, title: str, columns: int = COLUMNS) -> Figure:
    """Each row of originals above a row of their reconstructions; both ``[N, H, W, C]``."""
    originals, decoded = np.asarray(originals), np.asarray(decoded)
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, decoded):
            rows.append(_filled(images[start : start + columns], columns))
    return grid(np.concatenate(rows), title, columns)


def worst_and_best(
    images: Source, reconstruct: Callable[[np.ndarray], np.ndarray], errors: np.ndarray
) -> Figure:
    """Originals above reconstructions: evenly spread ones, and the worst and best by ``errors``.

    reconstruct: from uint8 images ``[n, H, W, C]`` to the same.
    """
    order = np.argsort(errors, kind="stable")
    choices = {
        "Evenly spread images": spread(np.arange(len(errors)), COLUMNS),
        "The worst images": order[::-1][:COLUMNS],
        "The best images": order[:COLUMNS],
    }
    figure = Figure(figsize=(8, 4.2))
    for i, (title, chosen) in enumerate(choices.items()):
        originals = images[chosen]
        both = np.concatenate(
            [_filled(to_unit(a), COLUMNS) for a in (originals, reconstruct(originals))]
        )
        low, high = errors[chosen].min(), errors[chosen].max()
        show(
            figure.add_subplot(3, 1, i + 1),
            tile(both, COLUMNS),
            f"{title} (above) and their reconstructions (below), MSE {low:.4f} to {high:.4f}",
        )
    return figure


def loss_curves(rows: list[dict[str, Any]], reconstruction: str) -> Figure:
    """Training and validation loss, and its terms, ``reconstruction`` and KL, over epochs."""
    figure = Figure(figsize=(8, 3.2))
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for name, label, colour, style in (
        ("loss", "training", COLOURS[0], "-"),
        ("validation_loss", "validation (averaged weights)", COLOURS[1], "--"),
    ):
        left.plot(epochs, [row[name] for row in rows], style, color=colour, label=label)
    left.set(xlabel="epoch", ylabel="mean per image", title="Loss")
    label = f"reconstruction ({reconstruction})"
    right.plot(epochs, [r[reconstruction] for r in rows], color=COLOURS[2], label=label)
    right.plot(
        epochs, [r["kl"] for r in rows], "--", color=COLOURS[3], label="KL, before its weight"
    )
    right.set(xlabel="epoch", title="Its two terms (training)")
    for axes in (left, right):
        lines = np.concatenate([line.get_ydata() for line in axes.lines] or [[]])
        if (
            len(lines) and lines.min() > 0
        ):  # else the first epoch, far above, would flatten the rest
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def _filled(images: np.ndarray, count: int) -> np.ndarray:
    """The images, with blank ones appended to make ``count``."""
    missing = count - len(images)
    return np.concatenate([images, np.ones((missing, *images.shape[1:]), images.dtype)])


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """``[N, H, W, C]`` -> one image of rows of ``columns``, a white pixel between them."""
    images = _filled(images, -(-len(images) // columns) * columns)
    n, h, w, c = images.shape
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1.0)
    tiled = padded.reshape(n // columns, columns, h + 1, w + 1, c).transpose(0, 2, 1, 3, 4)
    return tiled.reshape(n // columns * (h + 1), columns * (w + 1), c)


def show(axes: Any, image: np.ndarray, title: str) -> None:
    grey = image.shape[-1] not in (3, 4)
    axes.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
