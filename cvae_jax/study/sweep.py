"""Every setting of every codec on the same images, from the fewest bytes to lossless: bytes, error,
time.

All files are real, and decoded again.  There are four regimes: ``own file`` (each image alone),
``payload`` (own files without what a reader could put back), ``together`` (all images as one sheet,
stream or archive) and ``with its model`` (an archive that carries its decoder).
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from cvae_jax import metrics
from cvae_jax.backend import microbatched, stream
from cvae_jax.codec import Codec, load
from cvae_jax.coding.quantize import DEFAULT_QUALITY
from cvae_jax.data.image_files import sheet
from cvae_jax.pixels import to_unit
from cvae_jax.runs.plots import spread
from cvae_jax.study import classical, lossless, pca
from cvae_jax.study.classical import Setting
from cvae_jax.study.compare import (
    EFFORT,
    MSE_RANGES,
    OWN,
    PAYLOAD,
    TOGETHER,
    WITH_MODEL,
    Row,
    compare,
)

QUALITIES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
SEARCHED = (0, 15, 30, 50, 80)  # qualities that are also tried with a search
SEARCHED_OF_MAPS = (25, 35, 45, 55, 100)
SINGLES_OF_MAPS = (20, 30, 40, 50, 70)  # qualities; a file takes them a tenth of a second or more
SINGLES = 1000  # evenly spread images of which the slow codecs and this one make single files
FEW_SINGLES = 100  # of files with a bound, each of which takes this one as long as hundreds at once
SELF_CONTAINED = (0, 4)  # bounds of archives that are also made with their model
COMPONENTS = 16  # of the PCA that is always tried; the others have as many as a model has latents
COMPONENTS_BESIDE_MAPS = (192, 512)  # of which the latents are as many as there are pixels
PCA_STEPS = {"2": 2, "1": 1, "1/2": 1 / 2, "1/4": 1 / 4, "1/8": 1 / 8}  # of a pixel's range
SHOWN = 12  # evenly spread images that are kept as each setting decodes them, for pictures
SSIM_SIZE = 11
KINDS = {None: "lossy", 0: "lossless"}  # of a codec, by what it promises; else "bounded"

Say = Callable[[str], None]


class Study(NamedTuple):
    report: dict[str, Any]  # images, image_shape, rows and comparisons, all JSON-serialisable
    shown: list[np.ndarray]  # for each row, SHOWN of its images as decoded


def run(codecs: dict[str, Codec], images: np.ndarray, training: np.ndarray, say: Say) -> Study:
    """The whole study on uint8 ``[N, H, W, C]`` images; PCA is fitted to ``training``.

    say: called with a line about each setting as soon as it is measured.
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
        if codec.file_model.context is not None:
            add(_ours_bounded(name, codec, images))
    wanted = {COMPONENTS}
    for codec in codecs.values():
        wanted |= {*(COMPONENTS_BESIDE_MAPS if codec.model.latent_map else [codec.latent_dim])}
    for components in sorted({min(n, images[0].size) for n in wanted}):
        add(_principal_components(images, training, components))
    settings = [f(images.shape[3]) for f in (classical.settings, lossless.settings)]
    add(_classical(images, [setting for some in settings for setting in some]))
    add(_streams(images))
    report = {
        "images": len(images),
        "image_shape": list(images.shape[1:]),
        "rows": rows,
        "comparisons": compare(rows, list(codecs), MSE_RANGES[images.shape[3]]),
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
    encode: float | None = None,
    decode: float | None = None,
    kind: str = "lossy",
    bound: int | None = None,
) -> tuple[Row, np.ndarray]:
    """sizes: bytes of all images together; encode, decode: seconds for all of them; bound: the
    largest error of a pixel that the setting promises."""
    row = {
        "codec": codec,
        "setting": setting,
        "kind": kind,
        "bound": bound,
        "regime": regime,
        "images": len(images),
        "bytes_per_image": sizes / len(images),
        **quality(images, decoded),
        "encode_ms_per_image": None if encode is None else 1e3 * encode / len(images),
        "decode_ms_per_image": None if decode is None else 1e3 * decode / len(images),
    }
    return row, spread(decoded, SHOWN)


def quality(images: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
    """MSE, PSNR of the mean MSE, mean PSNR (over inexact images, in dB), SSIM, largest error of a
    pixel in levels; of uint8 images.  Of colour, over all channels, and the PSNR of the mean MSE of
    luma too."""
    mse, of_each = metrics.mse_of_each(images, decoded), stream(_measured, images, decoded)
    inexact = mse[mse > 0]
    mean = float(mse.mean())
    found = {
        "mse": mean,
        "psnr_of_mean_mse": float(metrics.psnr(mean)) if mean else None,
        "mean_psnr": float(metrics.psnr(inexact).mean()) if len(inexact) else None,
        "ssim": float(of_each["ssim"].mean(dtype=np.float64)) if "ssim" in of_each else None,
        "max_error": metrics.largest_error(images, decoded),
    }
    if "luma" in of_each:
        luma = metrics.psnr(of_each["luma"].mean(dtype=np.float64))
        # Equal images may differ here by rounding.
        found["psnr_of_mean_mse_luma"] = float(luma) if mean and np.isfinite(luma) else None
    return found


@jax.jit
@microbatched
def _measured(images: Array, decoded: Array) -> dict[str, Array]:
    """SSIM of images of at least SSIM_SIZE, and MSE in luma of colour ones, ``[B]`` each."""
    found = {}
    if min(images.shape[1:3]) >= SSIM_SIZE:
        found["ssim"] = metrics.ssim(to_unit(images), to_unit(decoded))
    if images.shape[3] == 3:
        found["luma"] = metrics.mse(metrics.luma(images), metrics.luma(decoded))
    return found


def _timed(f: Callable) -> tuple[Any, float]:
    started = time.perf_counter()
    out = f()
    return out, time.perf_counter() - started


def _ours(name: str, codec: Codec, images: np.ndarray) -> Iterable[tuple[Row, np.ndarray]]:
    codec.decompress(codec.compress(images[:4096]))  # compiled before it is timed
    maps = codec.model.latent_map is not None
    for effort, qualities in ((0, QUALITIES), (EFFORT, SEARCHED_OF_MAPS if maps else SEARCHED)):
        for quality in qualities:
            content, encode = _timed(functools.partial(codec.compress, images, quality, effort))
            decoded, decode = _timed(functools.partial(codec.decompress, content))
            setting = f"quality {quality}, effort {effort}" if effort else f"quality {quality}"
            yield _row(
                name, setting, TOGETHER, len(content), images, decoded,
                encode=encode, decode=decode, kind="ours",
            )  # fmt: skip
            if not effort and (not maps or quality in SINGLES_OF_MAPS):
                alone = spread(images, SINGLES)
                symbols, step = codec.encode_symbols(alone, quality)
                files = [codec.pack(one, step) for one in symbols]
                yield _row(
                    name, setting, OWN, sum(map(len, files)), alone,
                    np.concatenate([codec.decompress(file) for file in files]), kind="ours",
                )  # fmt: skip
    content = codec.compress(images, embed_model=True)
    yield _row(
        name, f"quality {DEFAULT_QUALITY}", WITH_MODEL, len(content), images,
        _decoded_by_itself(content), kind="ours",
    )  # fmt: skip


def _ours_bounded(name: str, codec: Codec, images: np.ndarray) -> Iterable[tuple[Row, np.ndarray]]:
    """Files that are lossless, or whose pixels are off by no more than a bound."""
    alone = spread(images, FEW_SINGLES)
    for bound in sorted(lossless.BOUNDS, reverse=True):
        setting = f"max error {bound}" if bound else "lossless"
        row = functools.partial(_row, name, setting, kind="ours", bound=bound)
        coded, encode = _timed(lambda e=bound: list(codec.chunks(images, max_error=e)))
        chunks = [each.chunk for each in coded]
        content = codec.file_model.archive(chunks)
        decoded, decode = _timed(functools.partial(codec.decompress, content))
        yield row(TOGETHER, len(content), images, decoded, encode=encode, decode=decode)
        if bound in SELF_CONTAINED:
            content = codec.file_model.archive(chunks, embed_model=True, refined=True)
            yield row(WITH_MODEL, len(content), images, _decoded_by_itself(content))
        files = [codec.compress(image, max_error=bound) for image in alone]
        decoded = np.concatenate([codec.decompress(file) for file in files])
        yield row(OWN, sum(map(len, files)), alone, decoded)


def _decoded_by_itself(archive: bytes) -> np.ndarray:
    """The images of an archive, decoded by the model that it carries."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.cvae")
        path.write_bytes(archive)
        return load(path).decompress(archive)


def _principal_components(
    images: np.ndarray, training: np.ndarray, components: int
) -> Iterable[tuple[Row, np.ndarray]]:
    model = pca.fit(training, components)
    alone = spread(images, SINGLES)
    for label, step in PCA_STEPS.items():
        row = functools.partial(
            _row,
            f"PCA, {model.basis.shape[1]} components",
            f"step {label}",
            kind="baseline",
        )
        archive = model.archive(images, step)
        yield row(TOGETHER, len(archive), images, model.read(archive))
        files = model.singles(alone, step)
        yield row(OWN, sum(map(len, files)), alone, model.read_singles(files))


def _classical(images: np.ndarray, settings: Iterable[Setting]) -> Iterable[tuple[Row, np.ndarray]]:
    whole = sheet(images)
    for setting in settings:
        alone = spread(images, SINGLES) if setting.slow else images
        files, encode = _timed(lambda s=setting, x=alone: [s.encode(image) for image in x])
        decoded, decode = _timed(lambda s=setting, f=files: np.stack([s.decode(x) for x in f]))
        row = functools.partial(
            _row,
            setting.codec,
            setting.label,
            encode=encode,
            decode=decode,
            kind=KINDS.get(setting.bound, "bounded"),
            bound=setting.bound,
        )
        yield row(OWN, sum(map(len, files)), alone, decoded)
        payload = None
        if setting.bound is None:
            payload = classical.payload_sizes(setting.codec, files)
        if payload:
            yield row(PAYLOAD, sum(payload), alone, decoded)
        file, encode = _timed(lambda s=setting: s.encode(whole))
        decoded, decode = _timed(lambda s=setting, f=file: classical.cut(s.decode(f), images.shape))
        yield row(TOGETHER, len(file), images, decoded, encode=encode, decode=decode)


def _streams(images: np.ndarray) -> Iterable[tuple[Row, np.ndarray]]:
    raw = images.tobytes()
    for name, coder in lossless.streams().items():
        content, encode = _timed(functools.partial(coder.compress, raw))
        again, decode = _timed(functools.partial(coder.decompress, content))
        decoded = np.frombuffer(again, np.uint8).reshape(images.shape)
        yield _row(
            name, "best", TOGETHER, len(content), images, decoded,
            encode=encode, decode=decode, kind="lossless", bound=0,
        )  # fmt: skip
