"""Puts the measured figures into the README:  python -m benchmarks.readme

Each table stands between two comments, ``<!-- name -->`` and ``<!-- /name -->``, and comes from
files in the repository; ``tests/test_readme.py`` checks that the README is up to date.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from benchmarks import throughput
from cvae_jax.study import report

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "checkpoints" / "mnist" / "config.json"
ORIGINAL = ROOT / "results" / "original.json"  # evaluate.py --json, of the imported Keras weights
THROUGHPUT = ROOT / "results" / "throughput.json"
STUDY = ROOT / "results" / "mnist.json"  # evaluate.py --rate-distortion
COMPRESSION = ROOT / "results" / "compression.json"
TIME_TO_QUALITY = ROOT / "results" / "time_to_quality.json"

# Label, section and name of the number, digits, and which way is better.
ROWS = (
    ("−ELBO, nats (sampled z)", "sampled", "negative_elbo", 2),
    ("−ELBO, bits per pixel (sampled z)", "sampled", "bits_per_dim", 4),
    ("KL, nats", "sampled", "kl", 2),
    ("MSE of decode(z_mean)", "deterministic", "mse", 5),
    ("PSNR of that MSE, dB", "deterministic", "psnr_of_mean_mse", 2),
    ("SSIM, Gaussian 11, σ 1.5", "deterministic", "ssim", 4),
    ("SSIM, uniform 7x7", "deterministic", "ssim_uniform", 4),
    ("active latent units of 16", "deterministic", "active_units", 0),
)


def results() -> str:
    released = json.loads(RELEASED.read_text())["test"]
    original = json.loads(ORIGINAL.read_text())["summary"]
    lines = ["| | `checkpoints/mnist` | original weights |", "|---|---:|---:|"]
    for label, section, name, digits in ROWS:
        cells = (f"{summary[section][name]:.{digits}f}" for summary in (released, original))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def time_to_quality() -> str:
    measured = json.loads(TIME_TO_QUALITY.read_text())
    ours, theirs = measured["default_preset"], measured["original_recipe_in_pytorch"]
    return (
        f"From nothing to a test −ELBO of {measured['target_negative_elbo']:.0f} nats, about where "
        f"the original's 50 epochs end, the default preset takes {ours['seconds']:.0f} s "
        f"({ours['epochs']} epochs, {ours['negative_elbo']:.1f} nats, compilation included). The "
        f"original's recipe in PyTorch would take {theirs['seconds_extrapolated']:,} s, "
        f"extrapolated from {theirs['images_per_second_measured']:,} images/s "
        "(`python -m benchmarks.time_to_quality`)."
    )


def compression() -> str:
    measured = json.loads(COMPRESSION.read_text())
    lines = [
        "| quality | effort | bytes per image | MSE | PSNR, dB |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in [*measured["curve"], *measured["searched"]]:
        psnr = -10 * math.log10(row["mse"])
        lines.append(
            f"| {row['quality']} | {row['effort']} | {row['bytes_per_image']:.2f} "
            f"| {row['mse']:.5f} | {psnr:.2f} |"
        )
    single, seconds = measured["single_image"], measured["seconds"]
    lines += [
        "",
        f"A single image's file takes {single['mean_bytes']:.1f} bytes on average "
        f"({single['images']:,} images, {single['largest']} at most). The archive's streams are "
        f"{100 * (measured['stream_over_ideal'] - 1):.3f} % above what the tables' probabilities "
        f"ask for, and quantising and coding, both ways, take "
        f"{100 * seconds['coding_over_network']:.1f} % of the network's time.",
    ]
    return "\n".join(lines)


def lead() -> str:
    study = json.loads(STUDY.read_text())
    found, fine = (study["comparisons"][name] for name in ("mnist", "mnist-hq"))
    rate = fine["bjontegaard"]["together"][-1]
    high, low = rate["mse_range"]
    own, together = found["smallest_own_file"], found["smallest_together"]
    return (
        f"On MNIST's {study['images']:,} test images, an archive takes "
        f"**{found['default']['bytes_per_image']:.1f} bytes per image** at an MSE of "
        f"{found['default']['mse']:.4f}. The smallest files of another codec that are as good take "
        f"{own['bytes_per_image']:.0f} bytes each ({own['codec']}), or "
        f"{together['bytes_per_image']:.0f} with all images in one ({together['codec']}): "
        f"**{found['archive_times_smaller_than_own_files']:.0f} and "
        f"{found['archive_times_smaller_than_together']:.1f} times as many**. For fidelity there "
        "is `checkpoints/mnist-hq`, whose archives are "
        f"**{-rate['bd_rate_percent']:.0f} % smaller** "
        f"than the best of the others' at the same MSE ({high:.4f} to {low:.4f}, BD-rate, effort "
        f"{rate['effort']})."
    )


def study() -> str:
    original = json.loads(ORIGINAL.read_text())["summary"]["deterministic"]["mse"]
    return (
        report.summary(json.loads(STUDY.read_text()))
        + f"\n- The Keras weights that this project started from: 64 bytes, MSE {original:.5f}."
    )


def filled(text: str) -> str:
    """The README with every table as the files have it now."""
    tables = {
        "results": results(),
        "throughput": throughput.markdown(json.loads(THROUGHPUT.read_text())),
        "time-to-quality": time_to_quality(),
        "compression": compression(),
        "lead": lead(),
        "study": study(),
    }
    for name, table in tables.items():
        pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda _, t=table: f"\n{t}\n\n", text, flags=re.DOTALL)
        assert count == 1, f"the README has no place for {name}"
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
