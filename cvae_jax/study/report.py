"""The study as files: JSON, CompressAI's layout, pictures, and tables in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.codec import Codec
from cvae_jax.runs import plots
from cvae_jax.study import figures
from cvae_jax.study.compare import OWN, PAYLOAD, TOGETHER, WITH_MODEL, Row
from cvae_jax.study.sweep import Study

GLOSSARY = """What the words mean:

- **latents**: the numbers that the model turns an image into, and back into an image.
- **quality** (0 to 100): how finely the latents are rounded to **symbols**, the whole numbers in
  a file, which trades bytes for error; 50 is the default. The other codecs' settings have the
  names that those codecs give them.
- **effort** (0 to 9): rounds of searching, the first a quick one, when compressing, for symbols
  that decode to a better image for their bytes; "searched" means with effort. Where it is not
  mentioned, it is 0.
- **tables**: the probabilities that symbols are coded with, part of a checkpoint. They divide
  images into up to 256 groups of similar ones, their **components**.
- **together**: all images in one file: this codec's archive, a sheet of all images side by side for
  the image formats, one stream of all pixels for xz, bzip2 and gzip. **own file**: each image in a
  file of its own. **payload**: such files without what a reader could put back (it was put back
  and compared). **with its model**: an archive that carries its decoder. It **pays off** above the
  number of images at which it becomes smaller than the best image format's sheet, if both keep
  taking the same bytes per image.
- **PCA**: principal components of the training images, coded into the same kind of files as the
  latents; as many components as a model has latents (192 and 512 beside a map), and 16. Its model
  is not counted, nor is this codec's.

Every row was measured on real files that were decoded again; MSE and PSNR are of pixels in [0, 1],
of colour images over red, green and blue. PSNR "in luma" is that of their brightness, Y = 0.299 R +
0.587 G + 0.114 B; 4:4:4 and 4:2:0 are colours at full and at half resolution, each way.

**BD-rate** is how many more bytes (on average over the range of MSE that is given) this codec takes
for the same MSE than the best of the others, which at each MSE is the one whose curve, interpolated
between its settings, takes the fewest: of the image formats, and then of these and PCA.
"""
# By their place in a comparison, whom BD-rates are against.
OTHERS = {"bjontegaard_formats": "the image formats", "bjontegaard": "the image formats and PCA"}
FROM_JPEG = (
    "These images come from JPEG files{}. What JPEG made of an image is cheap to code once more "
    "for codecs with a DCT of their own: at high rates this flatters JPEG, WebP, AVIF and JPEG XL."
)
# How those files had been made, where that is known.
JPEG_FILES = {"cifar10": " of quality 75 with colours at half resolution (4:2:0)"}
# Bits per pixel of the same test images, as their authors give them.
PUBLISHED = {
    "mnist": (
        ("probabilistic circuits", "1.20", "a likelihood"),
        ("Bit-Swap", "1.27 to 1.29", "a likelihood, and bytes"),
        ("PixelVAE", "1.39", "a likelihood"),
        ("bits-back with ANS", "1.41", "bytes"),
    )
}

# The caption of each picture; those of a single checkpoint's pictures leave out its name.
CAPTIONS = {
    "rate_distortion": "Error against size at every setting",
    "equal_bytes": "Test images at about equal bytes",
    "equal_quality": "Test images at about equal error",
    "bytes_per_dimension": "what the bytes are spent on",
    "interpolation": "from one image to another",
    "samples": "new images from random latents; a model with a light KL term, like `hq`, is made "
    "to compress and draws poorly",
    "traversals": "what single latents do",
}
VECTORS = ("rate_distortion", "bytes_per_dimension")  # lines and bars, so also saved as .svg


def write(
    found: Study,
    codecs: dict[str, Codec],
    images: np.ndarray,
    out: Path,
    name: str,
    command: str,
    *,
    from_jpeg: bool = False,
) -> list[Path]:
    """Writes ``out/NAME.json``, ``out/NAME/*`` and ``out/README.md``; returns the files written.

    from_jpeg: whether the images had been JPEG files, which the text then says.
    """
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    report = {"command": command, "dataset": name, "from_jpeg": from_jpeg, **found.report}
    written = [out / f"{name}.json"]
    written[0].write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    for codec_name in codecs:
        path = folder / f"{codec_name}.compressai.json"
        path.write_text(json.dumps(compressai(found.report, codec_name, name), indent=2) + "\n")
        written.append(path)
    pictures = {
        "rate_distortion": figures.rate_distortion(found, list(codecs)),
        "equal_bytes": figures.equal_bytes(found, images),
        "equal_quality": figures.equal_quality(found, images),
    }
    some = plots.spread(images, 2000)
    for codec_name, codec in codecs.items():
        pictures |= {
            f"{codec_name}_traversals": figures.traversals(codec, some),
            f"{codec_name}_bytes_per_dimension": figures.bytes_per_dimension(codec, some),
            f"{codec_name}_samples": figures.samples(codec),
            f"{codec_name}_interpolation": figures.interpolation(codec, some),
        }
    for title, figure in pictures.items():
        for suffix in (".png", ".svg") if title.endswith(VECTORS) else (".png",):
            plots.save(figure, folder / f"{title}{suffix}")
            written.append(folder / f"{title}{suffix}")
    (out / "README.md").write_text(overview(out))
    return [*written, out / "README.md"]


def compressai(report: dict[str, Any], codec: str, dataset: str) -> dict[str, Any]:
    """A codec's archive curve in the layout that CompressAI's plot tool reads."""
    rows = sorted(
        _rows(report, codec, TOGETHER, searched=False), key=lambda r: r["bytes_per_image"]
    )
    pixels = report["image_shape"][0] * report["image_shape"][1]
    return {
        "name": f"cvae-{codec}",
        "description": f"cvae_jax archive on {dataset}, {report['images']} images",
        "results": {
            "bpp": [8 * row["bytes_per_image"] / pixels for row in rows],
            "psnr-rgb": [row["psnr_of_mean_mse"] for row in rows],
        },
    }


def overview(out: Path) -> str:
    """``results/README.md``: a section for each study in the folder."""
    text = ["# Results", "", "Generated by the commands below; do not edit.", "", GLOSSARY]
    for path in sorted(out.glob("*.json")):
        report = json.loads(path.read_text())
        if "comparisons" not in report:
            continue
        name = report["dataset"]
        shape = "x".join(map(str, report["image_shape"]))
        text += [f"## {name}, {report['images']} images of {shape}", ""]
        text += [f"    {report['command']}", ""]
        if not all("bounded" in found for found in report["comparisons"].values()):
            text += ["This was measured with an earlier version: run the command again.", ""]
            continue
        if report.get("from_jpeg"):
            text += [FROM_JPEG.format(JPEG_FILES.get(name, "")), ""]
        text += [summary(report), "", lossless(report), ""]
        for title, caption in captions(report["comparisons"]).items():
            text += [f"{caption}:", "", f"![{caption}]({name}/{title}.png)", ""]
        text += ["Every setting that was measured:", "", table(report["rows"]), ""]
    return "\n".join(text)


def captions(ours: Iterable[str]) -> dict[str, str]:
    """The pictures of a study, in order, with their captions."""
    found = {}
    for title, caption in CAPTIONS.items():
        if caption[0].isupper():
            found[title] = caption
        else:
            found |= {f"{codec}_{title}": f"{codec}, {caption}" for codec in ours}
    return found


def summary(report: dict[str, Any]) -> str:
    """What a study says about each checkpoint, in sentences; like is compared with like."""
    lines = []
    for name, found in report["comparisons"].items():
        default, single, whole = found["default"], found["single"], found["with_model"]
        lines += [
            f"- **{name}**, default quality, MSE {default['mse']:.5f}, against "
            "the smallest files of an image format with no more error:",
            f"  - all images in one file: {default['bytes_per_image']:.2f} bytes per image against "
            f"{_named(found['smallest_together'])}, "
            f"{times(found['archive_times_smaller_than_together'])}",
            f"  - each image in its own file: {single['bytes_per_image']:.1f} bytes against "
            f"{_named(found['smallest_own_file'])}, "
            f"{times(found['single_times_smaller_than_own_files'])}",
            f"  - all in one file that carries its decoder ({whole['model_bytes']:,} bytes), "
            f"{whole['images']:,} images: {whole['bytes']:,} bytes against "
            f"{whole['other_bytes']:,} ({whole['other']['codec']}, MSE "
            f"{whole['other']['mse']:.5f}); {pays(whole['pays_from'])}",
            f"  - PCA: {linear(found)}",
        ]
        lines += [f"  - {_bounded(bounded)}" for bounded in found["bounded"]]
        for key, others in OTHERS.items():
            for regime, deltas in found[key].items():
                lines += [f"  - {_delta(regime, delta, others)}" for delta in deltas]
    return "\n".join(lines)


def lossless(report: dict[str, Any]) -> str:
    """Bits per pixel of all images in one file that loses nothing, beside what is published."""
    values = math.prod(report["image_shape"])
    rows = [r for r in report["rows"] if r["regime"] == TOGETHER and r["bound"] == 0]
    lines = [
        "Lossless, all images in one file, bits per pixel"
        f"{'' if report['image_shape'][2] == 1 else ' and channel'}:",
        "",
        "| | bits per pixel | |",
        "|---|---:|---|",
    ]
    for row in sorted(rows, key=lambda r: r["bytes_per_image"]):
        name = f"this codec, {row['codec']}" if row["kind"] == "ours" else row["codec"]
        setting = row["setting"].removeprefix("lossless").removeprefix(", ")
        if setting and row["kind"] != "ours":
            name += f", {setting}"
        lines.append(f"| {name} | {8 * row['bytes_per_image'] / values:.3f} | bytes, measured |")
    lines += [
        f"| {name} | {bits} | published: {what} |"
        for name, bits, what in PUBLISHED.get(report["dataset"], ())
    ]
    return "\n".join(lines)


def _named(row: Row) -> str:
    return f"{row['bytes_per_image']:.1f} ({row['codec']}, {row['setting']}, MSE {row['mse']:.5f})"


def promise(bound: int) -> str:
    """What a bound on the error of pixels means, in words."""
    return (
        f"every pixel within {bound} grey level{'s' if bound > 1 else ''}" if bound else "lossless"
    )


def _bounded(found: dict[str, Any]) -> str:
    """What files with a bound take, in words."""
    ours, other = found["bytes_per_image"], found["other"]
    line = (
        f"{promise(found['bound'])}, all images in one file: {ours:.1f} bytes per image (MSE "
        f"{found['mse']:.5f}) against {_named(other)}, {times(other['bytes_per_image'] / ours, 2)}"
    )
    if "with_model" in found:
        whole = found["with_model"]
        line += (
            f"; with decoder and context model ({whole['model_bytes']:,} bytes) {whole['bytes']:,} "
            f"bytes against {whole['other_bytes']:,}, {pays(whole['pays_from'])}"
        )
    if "single" in found:
        line += (
            f"; each in its own file {found['single']['bytes_per_image']:.1f} against "
            f"{_named(found['other_own_file'])}"
        )
    return line


def times(smaller: float, digits: int = 1) -> str:
    """A ratio of sizes in words."""
    if smaller >= 1:
        return f"{smaller:.{digits}f} times smaller"
    return f"{1 / smaller:.{digits}f} times larger"


def pays(images: int | None) -> str:
    """Above how many images a model is worth its bytes, in words."""
    if images is None:
        return "it never pays off"
    return f"it pays off above about {about(images):,} images"


def about(count: int) -> int:
    """Rounded to three digits."""
    return round(count, 3 - len(str(count)))


def linear(found: dict[str, Any]) -> str:
    """How PCA does at a codec's error, in words."""
    parts = []
    for regime, of_ours in ((TOGETHER, found["default"]), (OWN, found["single"])):
        if best := found["smallest_pca"][regime]:
            wins = " and so wins" if best["bytes_per_image"] < of_ours["bytes_per_image"] else ""
            words = f"{best['codec'].removeprefix('PCA, ')}, {figures.NAMES[regime]}"
            parts.append(f"{best['bytes_per_image']:.1f} bytes ({words}){wins}")
    if not parts:
        return "no setting is as good"
    return "; ".join(parts)


def _delta(regime: str, delta: dict[str, Any], others: str) -> str:
    high, low = delta["mse_range"]
    effort = f" with effort {delta['effort']}" if delta["effort"] else ""
    line = (
        f"{figures.NAMES[regime]}{effort}, against the best of {others} at every rate "
        f"({', '.join(delta['of'])}): BD-rate {delta['bd_rate_percent']:+.1f} % "
        f"(MSE {high:.4f} to {low:.4f})"
    )
    if "bd_psnr_db" in delta:
        fewest, most = delta["bytes_range"]
        line += f", BD-PSNR {delta['bd_psnr_db']:+.2f} dB ({fewest:.0f} to {most:.0f} bytes)"
    return line


def table(rows: Sequence[Row]) -> str:
    """All rows, by regime and codec."""
    columns = [
        ("bytes_per_image", "bytes per image", 2),
        ("mse", "MSE", 5),
        ("max_error", "largest error", 0),
        ("psnr_of_mean_mse", "PSNR of the mean", 2),
        ("psnr_of_mean_mse_luma", "in luma", 2),
        ("mean_psnr", "mean PSNR", 2),
        ("ssim", "SSIM", 4),
    ]
    columns = [column for column in columns if any(column[0] in row for row in rows)]
    head = ["regime", "codec", "setting", "images", *(title for _, title, _ in columns)]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---:|" + "---:|" * len(columns)]
    order = (TOGETHER, OWN, PAYLOAD, WITH_MODEL)
    for row in sorted(
        rows, key=lambda r: (order.index(r["regime"]), r["codec"], r["bytes_per_image"])
    ):
        cells = [row["regime"], row["codec"], row["setting"], str(row["images"])]
        for name, _, digits in columns:
            cells.append("" if row[name] is None else f"{row[name]:.{digits}f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(report: dict[str, Any], codec: str, regime: str, searched: bool) -> list[Row]:
    """Rows of ours without a bound."""
    return [
        row
        for row in report["rows"]
        if (row["codec"], row["regime"]) == (codec, regime)
        and row["bound"] is None
        and ("effort" in row["setting"]) == searched
    ]
