"""Compares the rows of a sweep: sizes at equal error, and Bjøntegaard's deltas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvae_jax import metrics

# The regimes, see ``sweep``.
OWN, PAYLOAD, TOGETHER, WITH_MODEL = "own file", "payload", "together", "with its model"
MSE_RANGE = (0.005, 0.0015)
LEAST_OVERLAP = 0.5  # dB; with less, a delta means nothing

Row = dict[str, Any]  # a setting and its measurements


def compare(rows: Sequence[Row], ours: Sequence[str], effort: int) -> dict[str, Any]:
    """What the README reports: sizes at equal error, the model's cost, Bjøntegaard's deltas.

    effort: that of the rows with a search.
    """
    formats, linear = _without_model(rows), [r for r in rows if r["kind"] == "baseline"]
    out = {}
    for name in ours:
        default = _find(rows, name, "quality 50", TOGETHER)
        single = _find(rows, name, "quality 50", OWN)
        own, together = (_smallest(formats, at, default["mse"]) for at in (OWN, TOGETHER))
        assert own  # lossless ones always qualify
        assert together
        out[name] = {
            "default": {"bytes_per_image": default["bytes_per_image"], "mse": default["mse"]},
            "single": {"bytes_per_image": single["bytes_per_image"], "mse": single["mse"]},
            "smallest_own_file": own,
            "smallest_together": together,
            "smallest_pca": {at: _smallest(linear, at, default["mse"]) for at in (TOGETHER, OWN)},
            "single_times_smaller_than_own_files": own["bytes_per_image"]
            / single["bytes_per_image"],
            "archive_times_smaller_than_together": together["bytes_per_image"]
            / default["bytes_per_image"],
            "with_model": with_model(rows, name),
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


def with_model(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """What a codec's archive takes with its decoder inside, and for how many images that is less
    than the best image format takes with no more error.

    ``pays_from`` assumes that both keep taking the same bytes per image; None: never.
    """
    whole = _find(rows, name, "quality 50", WITH_MODEL)
    bare = _find(rows, name, "quality 50", TOGETHER)["bytes_per_image"]
    other = _smallest(_without_model(rows), TOGETHER, whole["mse"])
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
         and ("effort" in r["setting"]) == bool(effort)]
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


def _without_model(rows: Sequence[Row]) -> list[Row]:
    """The rows of codecs that need no model: all but ours and PCA."""
    return [r for r in rows if r["kind"] in ("lossy", "lossless")]


def _smallest(rows: Sequence[Row], regime: str, mse: float) -> Row | None:
    """The smallest row of a regime with an error no higher than this; None if all are worse."""
    good = [r for r in rows if r["regime"] == regime and r["mse"] <= mse]
    if not good:
        return None
    best = min(good, key=lambda r: r["bytes_per_image"])
    return {k: best[k] for k in ("codec", "setting", "bytes_per_image", "mse")}
