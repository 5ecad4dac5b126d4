"""Compares the rows of a sweep: sizes at equal error, and Bjøntegaard's deltas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cvae_jax import metrics
from cvae_jax.coding.quantize import DEFAULT_QUALITY

# The regimes, see ``sweep``.
OWN, PAYLOAD, TOGETHER, WITH_MODEL = "own file", "payload", "together", "with its model"
LOSSY = f"quality {DEFAULT_QUALITY}"  # of ours, where nothing is promised
# Over which BD-rates are measured, by the number of channels: of the digits, and of photographs.
MSE_RANGES = {1: (0.005, 0.0015), 3: (0.006, 0.0022)}
EFFORT = 2  # of the rows that are searched

LEAST_OVERLAP = 0.5  # dB; with less, a delta means nothing
SAMPLES = 1000  # of curves, for their deltas

Row = dict[str, Any]  # a setting and its measurements

Curve = list[tuple[float, float]]  # (bytes per image, PSNR), both increasing


def effort_of(rows: Iterable[Row]) -> int:
    """That of the rows that are searched, 0 if none is."""
    found = (re.search(r"effort (\d)", row["setting"]) for row in rows if row["kind"] == "ours")
    return max((int(match[1]) for match in found if match), default=0)


def compare(
    rows: Sequence[Row], ours: Sequence[str], mse_range: tuple[float, float] = MSE_RANGES[1]
) -> dict[str, Any]:
    """What the README reports: sizes at equal error or under the same bound, the model's cost,
    Bjøntegaard's deltas, against image formats and PCA and against the formats alone.

    mse_range: of the deltas, see ``bjontegaard``.
    """
    linear = [r for r in rows if r["kind"] == "baseline"]
    formats = [r for r in rows if r["kind"] != "baseline"]
    out = {}
    for name in ours:
        default = _find(rows, name, LOSSY, TOGETHER)
        single = _find(rows, name, LOSSY, OWN)
        own, together = (_smallest(_as_good(rows, default), at) for at in (OWN, TOGETHER))
        assert own  # lossless ones always qualify
        assert together
        out[name] = {
            "default": {"bytes_per_image": default["bytes_per_image"], "mse": default["mse"]},
            "single": {"bytes_per_image": single["bytes_per_image"], "mse": single["mse"]},
            "smallest_own_file": own,
            "smallest_together": together,
            "smallest_pca": {
                at: _smallest([r for r in linear if r["mse"] <= default["mse"]], at)
                for at in (TOGETHER, OWN)
            },
            "single_times_smaller_than_own_files": own["bytes_per_image"]
            / single["bytes_per_image"],
            "archive_times_smaller_than_together": together["bytes_per_image"]
            / default["bytes_per_image"],
            "with_model": with_model(rows, name),
            "bounded": [
                bounded(rows, row)
                for row in rows
                if (row["codec"], row["regime"]) == (name, TOGETHER) and row["bound"] is not None
            ],
            "bjontegaard": deltas(rows, name, mse_range),
            "bjontegaard_formats": deltas(formats, name, mse_range),
        }
    return out


def deltas(rows: Sequence[Row], name: str, mse_range: tuple[float, float]) -> dict[str, list[Row]]:
    """What there is of ``bjontegaard``, by regime: without a search, and with one."""
    effort = effort_of(r for r in rows if r["codec"] == name)
    return {
        regime: [
            delta
            for at in sorted({0, effort})
            if (delta := bjontegaard(rows, name, regime, at, mse_range)) is not None
        ]
        for regime in (TOGETHER, OWN)
    }


def bounded(rows: Sequence[Row], ours: Row) -> dict[str, Any]:
    """An archive of ours that bounds the error of every pixel, or is lossless: its size, and the
    smallest of another codec's files whose pixels are off by no more; likewise with its model, and
    in files of single images, where there are such rows."""
    name, setting = ours["codec"], ours["setting"]
    others = _as_good(rows, ours)
    out = {**_short(ours), "bound": ours["bound"], "other": _smallest(others, TOGETHER)}
    regimes = {r["regime"] for r in rows if (r["codec"], r["setting"]) == (name, setting)}
    if OWN in regimes:
        out["single"] = _short(_find(rows, name, setting, OWN))
        out["other_own_file"] = _smallest(others, OWN)
    if WITH_MODEL in regimes:
        out["with_model"] = with_model(rows, name, setting)
    return out


def with_model(rows: Sequence[Row], name: str, setting: str = LOSSY) -> dict[str, Any]:
    """What a codec's archive takes with its decoder inside, and for how many images that is less
    than the best image format takes with no more error; nor a pixel that is off by more, if this
    setting bounds that.

    ``pays_from`` assumes that both keep taking the same bytes per image; None: never.
    """
    whole = _find(rows, name, setting, WITH_MODEL)
    bare = _find(rows, name, setting, TOGETHER)["bytes_per_image"]
    other = _smallest(_as_good(rows, whole), TOGETHER)
    assert other  # lossless ones always qualify
    images, each = whole["images"], other["bytes_per_image"]
    model = (whole["bytes_per_image"] - bare) * images
    return {
        "images": images,
        "bytes": round(whole["bytes_per_image"] * images),
        "model_bytes": round(model),
        "mse": whole["mse"],
        "other": other,
        "other_bytes": round(each * images),
        "pays_from": int(model // (each - bare)) + 1 if each > bare else None,
    }


def bjontegaard(
    rows: Sequence[Row],
    name: str,
    regime: str,
    effort: int,
    mse_range: tuple[float, float] = MSE_RANGES[1],
) -> Row | None:
    """BD-rate in % and BD-PSNR in dB against the best of the other codecs, and of PCA where rows
    have it, at every rate: their ``envelope``.

    BD-rate is over the part of ``mse_range``, from the highest MSE to the lowest, that both curves
    cover, and BD-PSNR over the bytes that both cover; the ranges are returned too, and which codecs
    the envelope consists of where BD-rate is measured.  None if the curves hardly overlap.
    (G. Bjøntegaard, VCEG-M33, with the monotone interpolation that is usual today.)
    """
    import bjontegaard as bd

    lossy: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] in ("lossy", "baseline") and row["regime"] == regime:
            lossy.setdefault(row["codec"], []).append(row)
    others = {codec: points for codec, some in lossy.items() if (points := curve(some))}
    test = curve(
        [r for r in rows if r["codec"] == name and r["regime"] == regime
         and r["bound"] is None and ("effort" in r["setting"]) == bool(effort)]
    )  # fmt: skip
    if not others or len(test) < 2:
        return None
    ends = [float(metrics.psnr(mse)) for mse in mse_range]
    low = max(ends[0], min(points[0][1] for points in others.values()), test[0][1])
    high = min(ends[1], max(points[-1][1] for points in others.values()), test[-1][1])
    if high - low < LEAST_OVERLAP:
        return None
    psnr = np.linspace(low, high, SAMPLES)
    anchor, chosen = envelope(list(others.values()), psnr)
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    found = {
        "effort": effort,
        "mse_range": [10 ** (-low / 10), 10 ** (-high / 10)],
        "of": [codec for i, codec in enumerate(others) if i in chosen],
        "bd_rate_percent": float(
            bd.bd_rate(anchor, psnr, envelope([test], psnr)[0], psnr, **options)
        ),
    }
    # At equal bytes, other parts of the curves overlap, and perhaps none do.
    fewest = max(min(points[0][0] for points in others.values()), test[0][0])
    most = min(max(points[-1][0] for points in others.values()), test[-1][0])
    if fewest < most:
        sizes = np.geomspace(fewest, most, SAMPLES)
        best, own = highest(list(others.values()), sizes), highest([test], sizes)
        found["bytes_range"] = [fewest, most]
        found["bd_psnr_db"] = float(bd.bd_psnr(sizes, best, sizes, own, **options))
    return found


def curve(rows: Sequence[Row]) -> Curve:
    """The rows that no other row beats in both bytes and PSNR, by increasing rate."""
    out: Curve = []
    for row in sorted(rows, key=lambda r: (r["bytes_per_image"], r["mse"])):
        psnr = row["psnr_of_mean_mse"]
        if psnr is not None and (not out or psnr > out[-1][1]):
            out.append((row["bytes_per_image"], psnr))
    return out


def envelope(curves: Sequence[Curve], psnr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest bytes with which any of several codecs reaches each PSNR, ``[P]``, and whose curve
    that is, ``[P]``: the lower envelope of their curves.

    It is the minimum, PSNR by PSNR, of the curves' bytes, each interpolated by itself (its
    logarithm over PSNR, monotonically), and not the line through the best points of all, which may
    be above a curve between its points.  A codec also reaches what is below its lowest PSNR, with
    its smallest files, and nothing above its highest: there its bytes are infinite.
    """
    found = []
    for points in curves:
        size, of = np.array(points).T
        bytes_ = np.exp(_interpolated(of, np.log(size), psnr))
        found.append(np.where(psnr <= of[-1], bytes_, np.inf))
    return np.min(found, axis=0), np.argmin(found, axis=0)


def highest(curves: Sequence[Curve], sizes: np.ndarray) -> np.ndarray:
    """The highest PSNR that any of several codecs reaches with each number of bytes, ``[S]``; as
    ``envelope``, with PSNR interpolated over the logarithm of bytes."""
    found = []
    for points in curves:
        size, psnr = np.array(points).T
        value = _interpolated(np.log(size), psnr, np.log(sizes))
        found.append(np.where(sizes >= size[0], value, -np.inf))
    return np.max(found, axis=0)


def _interpolated(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """``y`` over increasing ``x``, monotonically (PCHIP); beyond the ends, the values there."""
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(x, y)(np.clip(at, x[0], x[-1])) if len(x) > 1 else np.full(len(at), y)


def _find(rows: Sequence[Row], codec: str, setting: str, regime: str) -> Row:
    return next(
        r for r in rows if (r["codec"], r["setting"], r["regime"]) == (codec, setting, regime)
    )


def _as_good(rows: Sequence[Row], ours: Row) -> list[Row]:
    """The rows of codecs that need no model (all but ours and PCA) with no higher an error; and, if
    ours promises a bound, with no pixel that is off by more than that."""
    others = [r for r in rows if r["kind"] in ("lossy", "lossless", "bounded")]
    if ours["bound"] is None:
        return [r for r in others if r["mse"] <= ours["mse"]]
    # Rows of an earlier study may lack the largest error.
    return [r for r in others if r["max_error"] is not None and r["max_error"] <= ours["bound"]]


def _smallest(rows: Sequence[Row], regime: str) -> Row | None:
    """The smallest row of a regime, or None if there is none."""
    good = [r for r in rows if r["regime"] == regime]
    return _short(min(good, key=lambda r: r["bytes_per_image"])) if good else None


def _short(row: Row) -> Row:
    return {k: row[k] for k in ("codec", "setting", "bytes_per_image", "mse", "max_error")}
