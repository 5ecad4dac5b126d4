"""Rate against distortion, for this codec and for those a person would pick instead.

Real files, decoded again; three regimes: ``own file`` (each image alone), ``payload`` (own files
less what a reader could put back) and ``together`` (all images as one sheet, stream or archive).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae_jax import classical, metrics, pca
from cvae_jax.batching import chunked, stream
from cvae_jax.codec import Codec

OWN, PAYLOAD, TOGETHER = "own file", "payload", "together"
QUALITIES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
SEARCHED = (0, 15, 30, 50, 80)  # qualities that are also tried with a search
EFFORT = 1
SINGLES = 1000  # images, evenly spread, of which the slow codecs and this one make own files
SHOWN = 12  # images that are kept as each setting decodes them, for pictures
SSIM_SIZE = 11

Row = dict[str, Any]
Say = Callable[[str], None]


class Study(NamedTuple):
    report: dict[str, Any]  # images, image_shape, rows, comparisons: as JSON can hold it
    shown: list[np.ndarray]  # for each row the first SHOWN images as they were decoded


def run(codecs: dict[str, Codec], images: np.ndarray, training: np.ndarray, say: Say) -> Study:
    """The whole study on uint8 ``[N, H, W, C]`` images; ``training`` is what PCA is fitted to.

    say: gets a line about each setting as soon as it is measured.
    """
    rows: list[Row] = []
    shown: list[np.ndarray] = []

    def add(found: Iterable[tuple[Row, np.ndarray]]) -> None:
        for row, decoded in found:
            rows.append(row)
            shown.append(decoded)
            say(
                f"{row['codec']}, {row['setting']}, {row['regime']}: "
                f"{row['bytes_per_image']:.2f} bytes, MSE {row['mse']:.5f}"
            )

    for name, codec in codecs.items():
        add(_ours(name, codec, images))
    add(_principal_components(images, training))
    add(_classical(images))
    add(_streams(images))
    report = {
        "images": len(images),
        "image_shape": list(images.shape[1:]),
        "rows": rows,
        "comparisons": compare(rows, list(codecs)),
    }
    return Study(report, shown)


def _row(
    codec: str,
    setting: str,
    regime: str,
    sizes: float,
    images: np.ndarray,
    decoded: np.ndarray,
    *,
    encode: float | None,
    decode: float | None,
    kind: str = "lossy",
) -> tuple[Row, np.ndarray]:
    """sizes: bytes of all images together; encode, decode: seconds for them."""
    row = {
        "codec": codec,
        "setting": setting,
        "kind": kind,
        "regime": regime,
        "images": len(images),
        "bytes_per_image": sizes / len(images),
        **quality(images, decoded),
        "encode_ms_per_image": None if encode is None else 1e3 * encode / len(images),
        "decode_ms_per_image": None if decode is None else 1e3 * decode / len(images),
    }
    return row, decoded[:SHOWN]


def quality(images: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """MSE, PSNR of the mean MSE, mean PSNR (of images not exact, in dB), SSIM; of uint8 images."""
    mse, ssim = stream(_measure, images, decoded)
    inexact = mse[mse > 0]
    mean = float(mse.mean(dtype=np.float64))
    return {
        "mse": mean,
        "psnr_of_mean_mse": float(metrics.psnr(mean)) if mean else None,
        "mean_psnr": float(metrics.psnr(inexact).mean()) if len(inexact) else None,
        "ssim": float(ssim.mean(dtype=np.float64)) if min(images.shape[1:3]) >= SSIM_SIZE else None,
    }


@jax.jit
@chunked
def _measure(images: Array, decoded: Array) -> tuple[Array, Array]:
    x, y = images / 255.0, decoded / 255.0
    small = min(x.shape[1:3]) < SSIM_SIZE
    return metrics.mse(x, y), jnp.zeros(len(x)) if small else metrics.ssim(x, y)


def _timed(f: Callable) -> tuple[Any, float]:
    started = time.perf_counter()
    out = f()
    return out, time.perf_counter() - started


def _ours(name: str, codec: Codec, images: np.ndarray) -> Iterable[tuple[Row, np.ndarray]]:
    codec.decompress(codec.compress(images[:4096]))  # compiled before it is timed
    for effort, qualities in ((0, QUALITIES), (EFFORT, SEARCHED)):
        for quality in qualities:
            content, encode = _timed(functools.partial(codec.compress, images, quality, effort))
            decoded, decode = _timed(functools.partial(codec.decompress, content))
            setting = f"quality {quality}" + f", effort {effort}" * bool(effort)
            times = {"encode": encode, "decode": decode, "kind": "ours"}
            yield _row(name, setting, TOGETHER, len(content), images, decoded, **times)
            if not effort:
                symbols, step = codec.symbols(_some(images), quality)
                sizes = sum(len(codec.pack_single(one, step)) for one in symbols)
                times = {"encode": None, "decode": None, "kind": "ours"}
                yield _row(name, setting, OWN, sizes, _some(images), _some(decoded), **times)


def _some(images: np.ndarray) -> np.ndarray:
    """About SINGLES of the images, spread over all of them: a test set's start may be easier."""
    return images[:: max(1, len(images) // SINGLES)]


def _principal_components(
    images: np.ndarray, training: np.ndarray
) -> Iterable[tuple[Row, np.ndarray]]:
    model = pca.fit(training, components=16)
    for bits in (0, 1, 2, 3, 4):
        content, decoded = model.code(images, bits)
        yield _row(
            "PCA, 16 components", f"step 1/{2**bits}", TOGETHER, content, images, decoded,
            encode=None, decode=None, kind="baseline",
        )  # fmt: skip


def _classical(images: np.ndarray) -> Iterable[tuple[Row, np.ndarray]]:
    whole = classical.sheet(images)
    for setting in classical.settings(images.shape[3]):
        kind = "lossless" if setting.lossless else "lossy"
        alone = _some(images) if setting.slow else images
        files, encode = _timed(lambda s=setting, x=alone: [s.encode(image) for image in x])
        decoded, decode = _timed(lambda s=setting, f=files: np.stack([s.decode(x) for x in f]))
        times = {"encode": encode, "decode": decode, "kind": kind}
        names = (setting.codec, setting.label)
        yield _row(*names, OWN, sum(map(len, files)), alone, decoded, **times)
        payload = None if setting.lossless else classical.payload_sizes(setting.codec, files)
        if payload:
            yield _row(*names, PAYLOAD, sum(payload), alone, decoded, **times)
        file, encode = _timed(lambda s=setting: s.encode(whole))
        decoded, decode = _timed(lambda s=setting, f=file: classical.cut(s.decode(f), images.shape))
        times = {"encode": encode, "decode": decode, "kind": kind}
        yield _row(*names, TOGETHER, len(file), images, decoded, **times)


def _streams(images: np.ndarray) -> Iterable[tuple[Row, np.ndarray]]:
    raw = images.tobytes()
    for name, compress in classical.STREAMS.items():
        content, encode = _timed(functools.partial(compress, raw))
        yield _row(
            name, "best", TOGETHER, len(content), images, images,
            encode=encode, decode=None, kind="lossless",
        )  # fmt: skip


# Comparisons


def compare(rows: Sequence[Row], ours: Sequence[str]) -> dict[str, Any]:
    """What the README says: sizes at equal error, and Bjøntegaard's deltas."""
    out = {}
    for name in ours:
        default = _find(rows, name, "quality 50", TOGETHER)
        single = _find(rows, name, "quality 50", OWN)
        own, together = (
            _smallest(
                [r for r in rows if r["kind"] in ("lossy", "lossless")], regime, default["mse"]
            )
            for regime in (OWN, TOGETHER)
        )
        out[name] = {
            "default": {"bytes_per_image": default["bytes_per_image"], "mse": default["mse"]},
            "single": {"bytes_per_image": single["bytes_per_image"], "mse": single["mse"]},
            "smallest_own_file": own,
            "smallest_together": together,
            "archive_times_smaller_than_own_files": own["bytes_per_image"]
            / default["bytes_per_image"],
            "single_times_smaller_than_own_files": own["bytes_per_image"]
            / single["bytes_per_image"],
            "archive_times_smaller_than_together": together["bytes_per_image"]
            / default["bytes_per_image"],
            "bjontegaard": {
                regime: [
                    delta
                    for searched in (False, True)
                    if (delta := bjontegaard(rows, name, regime, searched)) is not None
                ]
                for regime in (TOGETHER, OWN)
            },
        }
    return out


MSE_RANGE = (0.005, 0.0015)
LEAST_OVERLAP = 0.5  # dB, below which a delta says nothing


def bjontegaard(rows: Sequence[Row], name: str, regime: str, searched: bool) -> Row | None:
    """BD-rate in % and BD-PSNR in dB against the best of the classical codecs at every rate.

    BD-rate over the part of MSE_RANGE that both curves cover, BD-PSNR over the bytes that both
    cover; the ranges are stated, and None returned where they hardly meet.  (G. Bjøntegaard,
    VCEG-M33, with the monotone interpolation that is usual today.)
    """
    import bjontegaard as bd

    anchor = _envelope([r for r in rows if r["kind"] == "lossy" and r["regime"] == regime])
    test = _envelope(
        [r for r in rows if r["codec"] == name and r["regime"] == regime
         and ("effort" in r["setting"]) == searched]
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
        "effort": EFFORT if searched else 0,
        "mse_range": [10 ** (-low / 10), 10 ** (-high / 10)],
        "bd_rate_percent": float(bd.bd_rate(*clipped, **options)),
    }
    # At equal bytes, other parts of the curves face each other, and possibly none.
    fewest, most = max(anchor[0][0], test[0][0]), min(anchor[-1][0], test[-1][0])
    if fewest < most:
        whole = (np.array(x) for curve in (anchor, test) for x in zip(*curve, strict=True))
        found["bytes_range"] = [fewest, most]
        found["bd_psnr_db"] = float(bd.bd_psnr(*whole, **options))
    return found


def _envelope(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """``(bytes, PSNR)`` of the rows that no other beats in both, by rising rate."""
    out: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda r: (r["bytes_per_image"], r["mse"])):
        psnr = row["psnr_of_mean_mse"]
        if psnr is not None and (not out or psnr > out[-1][1]):
            out.append((row["bytes_per_image"], psnr))
    return out


def _clipped(
    curve: list[tuple[float, float]], low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """The curve between two PSNRs: its points, and interpolated ends; never beyond its own."""
    from scipy.interpolate import PchipInterpolator

    rate, psnr = np.array(curve).T
    at = np.concatenate([[low], psnr[(psnr > low) & (psnr < high)], [high]])
    return np.exp(PchipInterpolator(psnr, np.log(rate))(at)), at


def _find(rows: Sequence[Row], codec: str, setting: str, regime: str) -> Row:
    return next(
        r for r in rows if (r["codec"], r["setting"], r["regime"]) == (codec, setting, regime)
    )


def _smallest(rows: Sequence[Row], regime: str, mse: float) -> Row:
    """The fewest bytes of a regime at an error no higher than this."""
    good = [r for r in rows if r["regime"] == regime and r["mse"] <= mse]
    best = min(good, key=lambda r: r["bytes_per_image"])
    return {k: best[k] for k in ("codec", "setting", "bytes_per_image", "mse")}
