"""What it takes to lose nothing, or little:  python -m benchmarks.lossless --data-dir DIR

On MNIST's test images and a checkpoint that has a context model: bytes of lossless archives and of
those with a bound on the error of every pixel, beside the codecs that promise the same; images that
the model does not know; models of other images; speeds; the pixels in processes of different
settings.  Everything is decompressed again, archives by another process.  Writes
results/lossless.json, where ``bars`` says what was to be reached and what was.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression import ROOT
from cvae_jax import backend, codec, data
from cvae_jax.bitstream.records import ALONE, BASED, RAW
from cvae_jax.codec import Codec
from cvae_jax.data.image_files import sheet
from cvae_jax.metrics import largest_error
from cvae_jax.refinement import encoder
from cvae_jax.runs.plots import spread
from cvae_jax.study import classical, lossless
from examples import patches

BOUND = 4
REPEATS = 3
OTHERS = 1000  # images of each kind that the model does not know
BATCHES = (1000, 10_000)
EXACT = 1000  # images that are decoded in all settings
CHUNKS = {1: 20, 7: 100, 100: EXACT, 1000: EXACT}  # images in a chunk: images to try that with
MODES = {"with a base": BASED, "without": ALONE, "raw": RAW}
WITHOUT_JAX = "import sys; sys.modules['jax'] = None; from cvae_jax.cli.parser import run; run()"
CORES = ("Nehalem", "Sandybridge", "Haswell", "SkylakeX", "Zen")
# Environment, and what Python runs.
SETTINGS: dict[str, tuple[dict[str, str], list[str]]] = {
    "as it is": ({}, ["-m", "cvae_jax"]),
    **{core: ({"OPENBLAS_CORETYPE": core}, ["-m", "cvae_jax"]) for core in CORES},
    **{
        f"{n} BLAS threads": (
            {"OPENBLAS_NUM_THREADS": str(n), "OMP_NUM_THREADS": str(n)},
            ["-m", "cvae_jax"],
        )
        for n in (1, 2, 4)
    },
    "SSE4.2": (
        {"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2", "OPENBLAS_CORETYPE": "Nehalem"},
        ["-m", "cvae_jax"],
    ),
    "without JAX": ({}, ["-c", WITHOUT_JAX]),
    "without JAX, Haswell": ({"OPENBLAS_CORETYPE": "Haswell"}, ["-c", WITHOUT_JAX]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", "--data_dir")
    parser.add_argument("--json", type=Path, default=ROOT / "results" / "lossless.json")
    parser.add_argument("--ckpt", type=Path, default=ROOT / "checkpoints" / "mnist")
    parser.add_argument("--images", type=int, default=10_000, help="fewer, for a try")
    parser.add_argument(
        "--digits", type=Path, help="a model of scikit-learn's digits; without it, one is trained"
    )
    parser.add_argument("--patches", type=Path, help="a model of examples/patches.py's patches")
    args = parser.parse_args()
    backend.use_compilation_cache()
    c = codec.load(args.ckpt)
    images = spread(data.load("mnist", "test", args.data_dir), args.images)
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "images": len(images),
            "checkpoint": args.ckpt.name,
            "context_bytes": len(c.file_model.context.packed),
            "speeds": {str(n): speeds(c, images, n) for n in BATCHES if n <= len(images)},
            "archives": {str(e): archive(c, args.ckpt, images, e) for e in (0, BOUND)},
            "others": {str(e): list(others(images, e)) for e in (0, BOUND)},
            "unknown": {
                name: told(f"unknown {name}", exactly(c, args.ckpt, some))
                for name, some in unknown(min(OTHERS, args.images)).items()
            },
            "own_models": own_models(args, Path(folder)),
            "sha256": hashes(c, args.ckpt, spread(images, EXACT)),
        }
    report["bars"] = bars(report)
    args.json.write_text(json.dumps(report, indent=2) + "\n")
    for bar in report["bars"]:
        print("met   " if bar["met"] else "MISSED", bar["what"], bar["measured"])


def archive(c: Codec, checkpoint: Path, images: np.ndarray, bound: int) -> dict[str, Any]:
    """Sizes of one archive, without and with its model, both decompressed by other processes."""
    chunks = [coded.chunk for coded in c.chunks(images, max_error=bound)]
    bare = c.file_model.archive(chunks)
    whole = c.file_model.archive(chunks, embed_model=True, refined=True)
    decoded = [_elsewhere(bare, checkpoint), _elsewhere(whole, None)]
    modes = np.concatenate([chunk.refinement.modes for chunk in chunks])
    found = {
        "bytes": len(bare),
        "bytes_per_image": len(bare) / len(images),
        "bits_per_pixel": 8 * len(bare) / images.size,
        "bytes_with_model": len(whole),
        "largest_error": max(largest_error(x, images) for x in decoded),
        "images_by_mode": {name: int((modes == mode).sum()) for name, mode in MODES.items()},
    }
    return told(f"max error {bound}", found)


def others(images: np.ndarray, bound: int) -> Iterator[dict[str, Any]]:
    """What the codecs that promise no less take for all images, as one sheet or stream."""
    whole = sheet(images)
    for setting in lossless.settings(images.shape[3]):
        if setting.bound in (0, bound):
            content = setting.encode(whole)
            decoded = classical.cut(setting.decode(content), images.shape)
            yield _other(f"{setting.codec}, {setting.label}", content, decoded, images)
    for name, stream in lossless.streams().items():
        packed = stream.compress(images.tobytes())
        decoded = np.frombuffer(stream.decompress(packed), np.uint8).reshape(images.shape)
        yield _other(name, packed, decoded, images)


def _other(name: str, content: bytes, decoded: np.ndarray, images: np.ndarray) -> dict[str, Any]:
    error = largest_error(decoded, images)
    return told(name, {"codec": name, "bytes": len(content), "largest_error": error})


def unknown(n: int) -> dict[str, np.ndarray]:
    """n images of MNIST's size of each kind that its model does not know, ``[n, 28, 28, 1]``."""
    names = patches.PHOTOGRAPHS + patches.TEST
    photographs = [patches.patches(patches.photograph(name), patches.SIZE) for name in names]
    shape = (n, 28, 28, 1)
    squares = (np.add.outer(np.arange(28), np.arange(28)) % 2 * 255).astype(np.uint8)
    return {
        "patches": spread(np.concatenate(photographs), n)[:, 2:-2, 2:-2, None],
        "noise": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "checkerboard": np.broadcast_to(squares[..., None], shape),
    }


def exactly(c: Codec, checkpoint: Path, images: np.ndarray) -> dict[str, Any]:
    """A lossless archive of any images."""
    content = c.compress(images, max_error=0)
    decoded = _elsewhere(content, checkpoint)
    return {
        "images": len(images),
        "bytes_per_image": len(content) / len(images),
        "share_of_raw": len(content) / images.size,
        "identical": int((decoded == images).all((1, 2, 3)).sum()),
    }


def own_models(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Test images of other data, with a model of their own and as sheets."""
    if args.digits is None:
        args.digits = folder / "digits"
        words = ["train", "--workdir", args.digits, "--dataset", "digits", "--preset", "digits"]
        _run(["-m", "cvae_jax", *words])
    found = {"digits": (args.digits, data.load("digits", "test"))}
    if args.patches is not None:
        found["patches"] = (args.patches, patches.test_patches()[..., None])
    return {
        name: {
            **told(f"own model, {name}", exactly(codec.load(path), path, images)),
            "others": list(others(images, 0)),
        }
        for name, (path, images) in found.items()
    }


def speeds(c: Codec, images: np.ndarray, n: int) -> dict[str, float]:
    """Images per second in batches of n: medians."""
    batch = spread(images, n)
    content = c.compress(batch, max_error=0)
    found = {
        "encode": n / _median(functools.partial(c.compress, batch, max_error=0)),
        "decode": n / _median(functools.partial(c.decompress, content)),
    }
    return told(f"batches of {n}, images/s", found)


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def hashes(c: Codec, checkpoint: Path, images: np.ndarray) -> dict[str, Any]:
    """SHA-256 of pixels: as they were; of one archive, decompressed in every setting; of archives
    that were compressed in every setting; and of chunks of several sizes."""
    content = c.compress(images, max_error=0)
    out: dict[str, Any] = {"pixels": _sha(images), "decompressed": {}, "compressed": {}}
    for setting in SETTINGS:
        out["decompressed"][setting] = _sha(_elsewhere(content, checkpoint, setting))
        if "without JAX" not in setting:
            out["compressed"][setting] = _sha(c.decompress(_made(images, checkpoint, setting)))
    out["chunks"] = {}
    usual = encoder.CHUNK_VALUES
    for size, n in CHUNKS.items():
        some = spread(images, n)
        encoder.CHUNK_VALUES = size * some[0].size
        content = c.compress(some, max_error=0)
        same = _sha(_elsewhere(content, checkpoint)) == _sha(some)
        out["chunks"][str(size)] = {"images": len(some), "bytes": len(content), "identical": same}
    encoder.CHUNK_VALUES = usual
    return told("SHA-256", out)


def bars(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, what was measured, and whether it is enough."""
    archives, unknown, own = report["archives"], report["unknown"], report["own_models"]
    exact, bounded, sha = archives["0"], archives[str(BOUND)], report["sha256"]
    smallest = {e: min(r["bytes"] for r in rows) for e, rows in report["others"].items()}
    near = _bytes_of(report["others"][str(BOUND)], f"JPEG-LS, NEAR {BOUND}")
    images = report["images"]

    def at_most(what: str, measured: float, limit: float) -> dict[str, Any]:
        return {"what": what, "measured": measured, "at_most": limit, "met": measured <= limit}

    def at_least(what: str, measured: float, limit: float) -> dict[str, Any]:
        return {"what": what, "measured": measured, "at_least": limit, "met": measured >= limit}

    differ = sum(
        found != sha["pixels"]
        for part in ("decompressed", "compressed")
        for found in sha[part].values()
    ) + sum(not chunk["identical"] for chunk in sha["chunks"].values())
    rows = [
        at_most("lossless, bits per pixel", exact["bits_per_pixel"], 1.1),
        at_most("lossless, largest error", exact["largest_error"], 0),
        at_most(
            "lossless with the models inside, against the smallest of all others",
            exact["bytes_with_model"] / smallest["0"],
            1,
        ),
        at_most(f"max error {BOUND}, largest error", bounded["largest_error"], BOUND),
        at_most(
            f"max error {BOUND}, share of the lossless bytes",
            bounded["bytes"] / exact["bytes"],
            0.6,
        ),
        at_most(f"max error {BOUND}, against JPEG-LS's sheet", bounded["bytes"] / near, 0.5),
        at_most("weights of the context model, bytes", report["context_bytes"], 60_000),
        at_most("settings and chunks with other pixels", differ, 0),
    ]
    rows += [
        at_least(f"identical after the round trip, {name}", found["identical"] / found["images"], 1)
        for name, found in [*unknown.items(), *((f"own model, {n}", f) for n, f in own.items())]
    ]
    rows.append(at_most("patches, share of raw", unknown["patches"]["share_of_raw"], 1))
    rows.append(at_most("noise, share of raw", unknown["noise"]["share_of_raw"], 1.02))
    if "patches" in own:
        total = own["patches"]["bytes_per_image"] * own["patches"]["images"]
        sheet_bytes = _bytes_of(own["patches"]["others"], "JPEG-LS, lossless")
        rows.append(at_most("patches with their model, against JPEG-LS", total / sheet_bytes, 1))
    for n, found in report["speeds"].items():
        rows.append(at_least(f"encode, batches of {n}, images/s", found["encode"], 1500))
        rows.append(at_least(f"decode, batches of {n}, images/s", found["decode"], 1000))
    return [row | {"images": images} for row in rows]


def _bytes_of(rows: Sequence[dict[str, Any]], codec_name: str) -> int:
    return next(row["bytes"] for row in rows if row["codec"] == codec_name)


def _elsewhere(content: bytes, checkpoint: Path | None, setting: str = "as it is") -> np.ndarray:
    """The images of an archive, decompressed by a process of its own; with the model that the
    archive carries, if no checkpoint is named."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.cvae")
        path.write_bytes(content)
        named = [] if checkpoint is None else ["--ckpt", checkpoint]
        environment, start = SETTINGS[setting]
        _run([*start, "decompress", path, "-o", f"{path}.npy", *named], environment)
        return np.load(f"{path}.npy")


def _made(images: np.ndarray, checkpoint: Path, setting: str) -> bytes:
    """A lossless archive that is made by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        np.save(path, images)
        environment, start = SETTINGS[setting]
        words = ["compress", path, "--lossless", "--ckpt", checkpoint, "-o", f"{path}.cvae"]
        _run([*start, *words], environment)
        return Path(f"{path}.cvae").read_bytes()


def _run(words: Sequence[Any], environment: dict[str, str] | None = None) -> None:
    subprocess.run(
        [sys.executable, *map(str, words)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip


def _sha(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def told(what: str, found: dict[str, Any]) -> dict[str, Any]:
    """What was found, after saying so."""
    print(what, json.dumps(found), flush=True)
    return found


if __name__ == "__main__":
    main()
