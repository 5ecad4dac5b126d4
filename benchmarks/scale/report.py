"""Puts what was measured into docs/SCALE.md:  python -m benchmarks.scale.report"""

from __future__ import annotations

import json
import re
from typing import Any

from benchmarks.compression import ROOT

RESULTS, TEXT = ROOT / "results", ROOT / "docs" / "SCALE.md"
BILLION = 10**9
# A machine that can be rented by the hour, and what it cost an hour in 2024.
MACHINE, CORES, DOLLARS = "c7a.8xlarge (32 cores of AMD EPYC)", 32, 1.64


def layouts(found: dict[str, Any]) -> str:
    """Rows of ``benchmarks.scale.layouts``."""
    lines = [
        "| batch | processes x devices | same layout twice | against one device | images/s |",
        "|---:|---|---|---|---:|",
    ]
    for batch, rows in found["batches"].items():
        for name, row in rows.items():
            twice = "same bits" if row["twice_equal"] else "DIFFERS"
            alike = (
                "same bits"
                if row["equal_to_1"]
                else f"{row['relative_difference']:.0e} relative, at most "
                f"{row['largest_difference']:.0e}"
            )
            shown = name if "x" in name else f"1 x {name}"
            lines.append(
                f"| {batch} | {shown} | {twice} | {alike} | {row['images_per_second']:,.0f} |"
            )
    return "\n".join(lines)


def large(found: dict[str, Any]) -> str:
    """Rows of ``benchmarks.scale.large``."""
    lines = ["| command | images/s | resident memory, MB |", "|---|---:|---:|"]
    for name, row in found["rows"].items():
        rate = row.get("images_per_second")
        lines.append(f"| {name} | {f'{rate:,.0f}' if rate else ''} | {row['peak_mb']:,.0f} |")
    return "\n".join(lines)


def jobs(found: dict[str, Any]) -> str:
    """Rows of ``benchmarks.scale.jobs``."""
    lines = [
        "| run | seconds | images/s | memory of the largest process, MB |",
        "|---|---:|---:|---:|",
    ]
    for name, row in found["runs"].items():
        rate = row.get("images_per_second")
        lines.append(
            f"| {name} | {row['seconds']:,.0f} | {f'{rate:,}' if rate else ''} | {row['peak_mb']} |"
        )
    same = len({row["sha256"] for row in found["runs"].values()}) == 1
    each = next(iter(found["runs"].values()))["bytes"] / found["images"]
    lines += [
        "",
        f"All sets are {'the same bytes' if same else 'DIFFERENT'}, {each:.2f} bytes an image. "
        '"killed" is the time of the second start, after `kill -9` of a worker in the first.',
    ]
    return "\n".join(lines)


def billion(found: dict[str, Any]) -> str:
    """What a billion images would take, by what one worker does on one core."""
    row = found["runs"]["beam 1"]
    rate = row["images_per_second"]
    hours = BILLION / rate / 3600
    each = row["bytes"] / found["images"]
    return (
        f"**A billion images of 28x28**, at {rate:,} images a second and core, would take "
        f"{hours:,.0f} core-hours: {hours / CORES:.1f} hours of one {MACHINE}, about "
        f"{hours / CORES * DOLLARS:,.0f} dollars at {DOLLARS} an hour (list price of 2024; a "
        f"core there is taken to be as fast as one here). It reads 784 GB and writes "
        f"{each * BILLION / 1e9:.1f} GB; each core reads {rate * 784 / 1e6:.1f} MB/s and writes "
        f"{rate * each / 1e3:.0f} kB/s, {CORES} cores {rate * 784 * CORES / 1e6:,.0f} MB/s, which "
        "one network disk gives. Every image is decoded and compared on the way; with `--quiet`, "
        "which checks 64 of 4,096, a core does about three times as much."
    )


def filled(text: str) -> str:
    """The document with every table as the files have it now."""
    tables = {"layouts": layouts, "large": large, "jobs": jobs, "billion": billion}
    for name, table in tables.items():
        file = RESULTS / f"{'jobs' if name == 'billion' else name}.json"
        pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"
        told = table(json.loads(file.read_text()))
        text, count = re.subn(pattern, lambda _, t=told: f"\n{t}\n\n", text, flags=re.DOTALL)
        assert count == 1, f"{TEXT.name} has no place for {name}"
    return text


if __name__ == "__main__":
    TEXT.write_text(filled(TEXT.read_text()))
