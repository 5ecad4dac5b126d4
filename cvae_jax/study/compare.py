"""Compares the rows of a sweep: sizes at equal error, and Bjøntegaard's deltas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvae_jax import metrics
from cvae_jax.coding.quantize import DEFAULT_QUALITY

# The regimes, see ``sweep``.
OWN, PAYLOAD, TOGETHER, WITH_MODEL = "own file", "payload", "together", "with its model"
LOSSY = f"quality {DEFAULT_QUALITY}"  # of ours, where nothing is promised
MSE_RANGE = (0.005, 0.0015)
EFFORT = 2  # of the rows that are searched
LEAST_OVERLAP = 0.5  # dB; with less, a delta means nothing

Row = dict[str, Any]  # a setting and its measurements


def compare(rows: Sequence[Row], ours: Sequence[str], effort: int) -> dict[str, Any]:
    """What the README reports: sizes at equal error or under the same bound, the model's cost,
    Bjøntegaard's deltas.

    effort: that of the rows with a search.
    """
    linear = [r for r in rows if r["kind"] == "baseline"]
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
            "bjontegaard": {
                regime: [
                    delta
                    for at in (0, effort)
                    if (delta := bjontegaard(rows, name, regime, at)) is not None
                ]
                for regime in (TOGETHER, OWN)
            },
        }
    return out


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


def bjontegaard(rows: Sequence[Row], name: str, regime: str, effort: int) -> Row | None:
    """BD-rate in % and BD-PSNR in dB against the best of the other codecs and PCA at every rate.

    BD-rate is over the part of MSE_RANGE that both curves cover, and BD-PSNR over the bytes that
    both cover; the ranges are returned too.  None if the curves hardly overlap.  (G. Bjøntegaard,
    VCEG-M33, with the monotone interpolation that is usual today.)
    """
    import bjontegaard as bd

    lossy = [r for r in rows if r["kind"] in ("lossy", "baseline")]
    anchor = _envelope([r for r in lossy if r["regime"] == regime])
    test = _envelope(
        [r for r in rows if r["codec"] == name and r["regime"] == regime
         and r["bound"] is None and ("effort" in r["setting"]) == bool(effort)]
    )  # fmt: skip
    if len(anchor) < 2 or len(test) < 2:
        return None
    ends = [float(metrics.psnr(mse)) for mse in MSE_RANGE]
    low = max(ends[0], anchor[0][1], test[0][1])
    high = min(ends[1], anchor[-1][1], test[-1][1])
    if high - low < LEAST_OVERLAP:
        return None
    clipped = (x for curve in (anchor, test) for x in _clipped(curve, low, high))
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    found = {
        "effort": effort,
        "mse_range": [10 ** (-low / 10), 10 ** (-high / 10)],
        "bd_rate_percent": float(bd.bd_rate(*clipped, **options)),
    }
    # At equal bytes, other parts of the curves overlap, and perhaps none do.
    fewest, most = max(anchor[0][0], test[0][0]), min(anchor[-1][0], test[-1][0])
    if fewest < most:
        whole = (np.array(x) for curve in (anchor, test) for x in zip(*curve, strict=True))
        found["bytes_range"] = [fewest, most]
        found["bd_psnr_db"] = float(bd.bd_psnr(*whole, **options))
    return found


def _envelope(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """``(bytes, PSNR)`` of the rows that no other row beats in both, by increasing rate."""
    out: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda r: (r["bytes_per_image"], r["mse"])):
        psnr = row["psnr_of_mean_mse"]
        if psnr is not None and (not out or psnr > out[-1][1]):
            out.append((row["bytes_per_image"], psnr))
    return out


def _clipped(
    curve: list[tuple[float, float]], low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """The curve between two PSNRs: its points and interpolated ends, never extrapolated."""
    from scipy.interpolate import PchipInterpolator

    rate, psnr = np.array(curve).T
    at = np.concatenate([[low], psnr[(psnr > low) & (psnr < high)], [high]])
    return np.exp(PchipInterpolator(psnr, np.log(rate))(at)), at


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
