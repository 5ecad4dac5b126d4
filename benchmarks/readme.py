"""Puts the measured figures into the README and the releases:  python -m benchmarks.readme

Each table stands between two comments, ``<!-- name -->`` and ``<!-- /name -->``, and comes from
files in the repository; ``tests/test_readme.py`` checks that the README is up to date.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import throughput
from cvae_jax.runs import checkpoint
from cvae_jax.runs.record import Record
from cvae_jax.study import report
from cvae_jax.study.compare import OWN, TOGETHER
from cvae_jax.study.sweep import SINGLES

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "checkpoints" / "mnist" / "config.json"
ORIGINAL = ROOT / "results" / "original.json"  # evaluate.py --json, of the imported Keras weights
THROUGHPUT = ROOT / "results" / "throughput.json"
STUDY = ROOT / "results" / "mnist.json"  # evaluate.py --rate-distortion
PHOTOGRAPHS = ROOT / "results" / "photos32.json"  # likewise
PATCHES = ROOT / "results" / "patches.json"
COMPRESSION = ROOT / "results" / "compression.json"
TIME_TO_QUALITY = ROOT / "results" / "time_to_quality.json"
# These are left out where they have not been measured.
SEARCH = ROOT / "results" / "search.json"
FILES = ROOT / "results" / "files.json"
STARTUP = ROOT / "results" / "startup.json"

# What the README shows of the longer tables.
QUALITIES = (0, 100)
EFFORTS = (1, 9)
SPEED = ("train 128", "train 512", "encode 128", "encode 1024", "encode 4096")

REGIMES = {TOGETHER: "in one file", OWN: "each in its own"}

# Label, section and name of the number, and digits.
NUMBERS = (
    ("−ELBO {} nats", "sampled", "negative_elbo", 2),
    ("MSE of decode(z_mean) {}", "deterministic", "mse", 5),
    ("SSIM (Gaussian 11, σ 1.5) {}", "deterministic", "ssim", 4),
)


def results() -> str:
    released = json.loads(RELEASED.read_text())["test"]
    original = json.loads(ORIGINAL.read_text())["summary"]
    parts = []
    for label, section, name, digits in NUMBERS:
        ours, theirs = (f"{s[section][name]:.{digits}f}" for s in (released, original))
        parts.append(f"{label.format(ours)}, {theirs}")
    return f"{'; '.join(parts)}."


def time_to_quality() -> str:
    measured = json.loads(TIME_TO_QUALITY.read_text())
    ours, theirs = measured["default_preset"], measured["original_recipe_in_pytorch"]
    return (
        f"From nothing to a test −ELBO of {measured['target_negative_elbo']:.0f} nats, the default "
        f"preset takes {ours['seconds']:.0f} s, the original's recipe in PyTorch "
        f"{theirs['seconds_extrapolated']:,} s, extrapolated "
        "(`python -m benchmarks.time_to_quality`)."
    )


def console() -> str:
    """What compressing MNIST's test images and back looks like."""
    measured = json.loads(COMPRESSION.read_text())
    default, count = measured["default"], measured["images"]
    each, psnr = default["bytes_per_image"], -10 * math.log10(default["mse"])
    return f"""```console
$ cvae compress t10k-images-idx3-ubyte.gz -o t10k.cvae
t10k.cvae: {count} images, {round(each * count)} bytes, {each:.2f} per image, PSNR {psnr:.2f} dB
{28 * 28 / each:.1f} times smaller than raw, \
{measured["png_bytes_per_image"] / each:.1f} times smaller than PNG
$ cvae decompress t10k.cvae -o back
back: {count} images
```"""


def compression() -> str:
    """Other qualities, and searching; the lead has the default and single images."""
    measured = json.loads(COMPRESSION.read_text())
    curve = {row["quality"]: row for row in measured["curve"]}
    if SEARCH.is_file():
        searched = _quickest(json.loads(SEARCH.read_text())["mnist"]["rows"])
    else:
        searched = [row for row in measured["searched"] if row["effort"] in EFFORTS]
    shown = [(f"quality {q}", curve[q]) for q in QUALITIES]
    shown += [(f"effort {row['effort']}", row) for row in searched]
    return f"Bytes per image: {'; '.join(_setting(name, row) for name, row in shown)}."


def _quickest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of ``benchmarks.search``: effort 1, and the fastest that gains what a full round gains."""
    whole = [row for row in rows if row["share_of_gain"] >= 1]
    best = max(whole, key=lambda row: row["images_per_second"], default=rows[-1])
    return [row for row in rows if row["effort"] == 1 or row is best]


def _setting(name: str, row: dict[str, Any]) -> str:
    found = f"at {name} {row['bytes_per_image']:.2f}, MSE {row['mse']:.4f}"
    if "images_per_second" in row:  # of benchmarks.search
        rate, share = row["images_per_second"], row["share_of_gain"]
        found += f" ({rate:,.0f} images/s, {share:.0%} of a full round's gain)"
    return found


def lead() -> str:
    """What it comes to, like with like, and what the models cost."""
    digits, photographs = (json.loads(path.read_text()) for path in (STUDY, PHOTOGRAPHS))
    lines = [
        "| | this codec | best that needs no model | |",
        "|---|---:|---:|---|",
        *_rows(f"**{digits['images']:,} digits**, MNIST's test images", digits, "mnist"),
        *_rows(
            f"**{photographs['images']:,} photographs** of 32x32 pixels, of CIFAR-10's test images",
            photographs,
            "photos32",
        ),
    ]
    found, fine = (digits["comparisons"][name] for name in ("mnist", "mnist-hq"))
    whole, finer = found["with_model"], fine["smallest_together"]
    lines += [
        "",
        f"The digits are `checkpoints/mnist`'s, at an error (MSE) of "
        f"{found['default']['mse']:.4f} ({whole['other']['codec']}'s is lower: "
        f"{whole['other']['mse']:.4f}); counting its decoder ({whole['model_bytes']:,} bytes, "
        f"needed once), {report.pays(whole['pays_from'])}. "
        f"{_lossless(digits, _bounded(found))}The finer `checkpoints/mnist-hq` takes "
        f"{fine['default']['bytes_per_image']:.1f} bytes at {fine['default']['mse']:.4f} "
        f"({finer['codec']}: {finer['bytes_per_image']:.1f}).",
        "",
        _photographs(photographs),
    ]
    return "\n".join(lines)


def _rows(of: str, study: dict[str, Any], name: str) -> list[str]:
    """A released checkpoint's part of the lead's table; each at its default quality."""
    found = study["comparisons"][name]
    together, own = found["smallest_together"], found["smallest_own_file"]
    lines = [_against(f"{of}, all in one file", found["default"], together)]
    bounded = _bounded(found)
    if 0 in bounded:
        lines.append(_against("lossless", bounded[0], bounded[0]["other"]))
    lines += [
        _whole("all in one file, the decoder inside", found["with_model"]),
        _against(f"each a file of its own ({SINGLES:,} of them)", found["single"], own),
    ]
    return lines


def _bounded(found: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """By their largest error; none of a checkpoint without a context model."""
    return {row["bound"]: row for row in found.get("bounded", ())}


def _photographs(study: dict[str, Any]) -> str:
    found = study["comparisons"]["photos32"]
    default, whole, other = found["default"], found["with_model"], found["smallest_together"]
    rates = _rates(found, "bjontegaard_formats")
    return (
        f"The photographs are `checkpoints/photos32`'s, at {default['mse']:.4f} "
        f"({other['codec']}'s is {other['mse']:.4f}). Bytes at equal error, against the best image "
        f"format: {', '.join(f'{rate:+.0f} % {of}' for of, rate in rates.items())}. Its decoder "
        f"and prior are {whole['model_bytes']:,} bytes. CIFAR-10 was stored as JPEG, which "
        "flatters JPEG's kin at high rates."
    )


def _against(label: str, ours: dict[str, Any], other: dict[str, Any]) -> str:
    size, theirs = ours["bytes_per_image"], other["bytes_per_image"]
    digits = 1 if theirs > 2 * size else 2
    return (
        f"| {label} | {size:.1f} bytes each | {theirs:.1f} ({other['codec']}) "
        f"| {report.times(theirs / size, digits)} |"
    )


def _whole(label: str, whole: dict[str, Any]) -> str:
    return (
        f"| {label} | {whole['bytes']:,} bytes "
        f"| {whole['other_bytes']:,} ({whole['other']['codec']}) "
        f"| {report.times(whole['other_bytes'] / whole['bytes'], 2)} |"
    )


def _lossless(study: dict[str, Any], bounded: dict[int, dict[str, Any]]) -> str:
    """Bits per pixel beside what is published, and what the context model costs."""
    if 0 not in bounded:
        return ""
    bits = 8 * bounded[0]["bytes_per_image"] / math.prod(study["image_shape"])
    name, best, _ = report.PUBLISHED["mnist"][0]
    whole = bounded[0]["with_model"]
    return (
        f"Lossless is {bits:.2f} bits per pixel (best published likelihood, {name}: {best}); with "
        f"decoder and context model ({whole['model_bytes']:,} bytes), "
        f"{report.pays(whole['pays_from'])}. "
    )


def study() -> str:
    """Bytes at equal error of the models whose curves meet those of others."""
    studies = (("mnist-hq", STUDY), ("photos32", PHOTOGRAPHS), ("patches", PATCHES))
    lines = [
        "| bytes at equal error | in one file | with `--effort` | each in its own |",
        "|---|---:|---:|---:|",
    ]
    for name, path in studies:
        found = json.loads(path.read_text())["comparisons"][name]
        formats, both = (_rates(found, key) for key in report.OTHERS)
        cells = [f"{rate:+.0f} % ({both[of]:+.0f} %)" for of, rate in formats.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rates(found: dict[str, Any], key: str) -> dict[str, float]:
    """BD-rates of a comparison in %, by what they are of."""
    rates = {}
    for regime, deltas in found[key].items():
        for delta in deltas:
            searched = f", `--effort {delta['effort']}`" if delta["effort"] else ""
            rates[REGIMES[regime] + searched] = delta["bd_rate_percent"]
    return rates


def speed() -> str:
    measured = json.loads(THROUGHPUT.read_text())
    lines = [
        f"{throughput.conditions(measured)}.",
        "",
        "| task, batch | images/s | fastest other | ratio |",
        "|---|---:|---:|---:|",
    ]
    for line in SPEED:
        rate = measured["lines"][line]["cvae_jax"]["images_per_second"]
        theirs = " | ".join(throughput.fastest_other(measured, line))
        lines.append(f"| {line} | {rate:,.0f} | {theirs} |")
    return "\n".join(lines)


def whole_speed() -> str:
    """The network, whole files, start-up and training, as far as they have been measured."""
    parts = [speed()]
    if FILES.is_file():
        parts.append(through_files(json.loads(FILES.read_text())))
    if STARTUP.is_file():
        parts.append(start_up(json.loads(STARTUP.read_text())))
    return "\n\n".join([*parts, time_to_quality()])


def through_files(measured: dict[str, Any]) -> str:
    """Rows of ``benchmarks.files``: from file to file, and others from memory to memory."""
    rows = {int(count): row for count, row in measured["files"].items()}
    fewest, most = min(rows), max(rows)
    ours, names = rows[fewest], ("compress", "decompress")
    rates = {name: ours[name]["images_per_second"] for name in names}
    lines = [
        f"| {fewest:,} images | bytes each | compress, images/s | decompress |",
        "|---|---:|---:|---:|",
    ]
    for label, row in [
        ("`cvae`", {**ours, **rates}),
        *((r["codec"], r) for r in measured["others"]),
    ]:
        error = f"MSE {row['mse']:.4f}" if row["mse"] else "lossless"
        lines.append(
            f"| {label}, {error} | {row['bytes_per_image']:.1f} "
            f"| {row['compress']:,.0f} | {row['decompress']:,.0f} |"
        )
    peaks = {count: max(rows[count][name]["peak_mb"] for name in names) for count in rows}
    memory = f"{peaks[fewest]:.0f} MB"
    if most > fewest:
        memory += f" ({most:,} images: {peaks[most]:.0f})"
    lines += [
        "",
        "`cvae` from file to file without start-up (`python -m benchmarks.files`), in at most "
        f"{memory}; others in memory. The decoder alone makes {ours['decoder']:,.0f} images/s.",
    ]
    return "\n".join(lines)


def start_up(measured: dict[str, Any]) -> str:
    """One row of ``benchmarks.startup``."""
    seconds = measured["rows"]["compress"]["seconds"]
    return f"`cvae compress one.png` takes {seconds:.1f} s (`python -m benchmarks.startup`)."


def filled(text: str) -> str:
    """The README with every table as the files have it now."""
    tables = {
        "results": results(),
        "speed": whole_speed(),
        "console": console(),
        "compression": compression(),
        "lead": lead(),
        "study": study(),
    }
    for name, table in tables.items():
        pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda _, t=table: f"\n{t}\n\n", text, flags=re.DOTALL)
        assert count == 1, f"the README has no place for {name}"
    return text


# The released checkpoints, the studies that they are in, and what those are of.
RELEASES = {
    "mnist": (STUDY, "mnist, test split"),
    "mnist-hq": (STUDY, "mnist, test split"),
    "photos32": (PHOTOGRAPHS, "cifar10, images spread over the test split"),
}


def best_sheet(name: str) -> dict[str, Any]:
    """What the study found of the sheet to beat, as a released checkpoint's record keeps it."""
    path, dataset = RELEASES[name]
    whole = json.loads(path.read_text())["comparisons"][name]["with_model"]
    return {**whole["other"], "images": whole["images"], "dataset": dataset}


def record_best_sheets() -> None:
    """Puts the sheets to beat into the released checkpoints, for ``cvae info``."""
    for name in RELEASES:
        path = ROOT / "checkpoints" / name
        record = Record.from_dict(checkpoint.read_config(path))
        if record.best_sheet == best_sheet(name):  # or it would be written with new defaults
            continue
        record = dataclasses.replace(record, best_sheet=best_sheet(name))
        text = json.dumps(record.to_dict(), indent=2, allow_nan=False) + "\n"
        checkpoint.attach(path, {checkpoint.CONFIG: text.encode()})


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
    record_best_sheets()
