"""``cvae job``: work on collections, by Apache Beam or by processes of this machine."""

from __future__ import annotations

import argparse
import math
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from cvae_jax.cli import flags
from cvae_jax.cli.reports import Report, counted
from cvae_jax.errors import ConfigError
from cvae_jax.shards import Shards, parse, present

_BEAM = "Beam, and its options after -- say how"


def add_parser(commands: Any) -> None:
    top = commands.add_parser(
        "job",
        help="compress, decompress, verify or calibrate on collections, by Apache Beam",
        description="Works on collections, by Apache Beam: on all cores of this machine, or with "
        "Beam's own options, which follow --, wherever it runs.  On several machines all must see "
        "the same files.  A set of archives is named with their number: all@8.cvae means "
        "all-00000-of-00008.cvae to all-00007-of-00008.cvae.  A job that was stopped goes on with "
        "the same command.",
    )
    jobs = top.add_subparsers(dest="job", required=True, metavar="JOB")

    def command(name: str, text: str, example: str) -> argparse.ArgumentParser:
        told = f"{text[0].upper()}{text[1:]}.  Example: cvae job {name} {example}"
        sub = jobs.add_parser(name, help=text, description=told)
        flags.add_reporting(sub)
        flags.add_jobs(sub, _BEAM)
        return sub

    inputs = "an .npy, ArrayRecord, IDX, tar or zip file, a folder of images, or a pattern of those"
    sub = command(
        "compress", "compress a collection into a set of archives", "'parts/*.npy' -o all@8.cvae"
    )
    sub.add_argument("inputs", nargs="+", metavar="INPUT", help=inputs)
    sub.add_argument("--ckpt", help=flags.MAKES)
    flags.add_output(sub, "the set, NAME@8.cvae for 8 archives", required=True)
    flags.add_quality(sub, of_all=False)

    sub = command(
        "decompress",
        "decompress a set of archives into a set of .npy files",
        "all@8.cvae -o all@8.npy",
    )
    sub.add_argument("input", metavar="NAME@S.cvae", help="the set, NAME@8.cvae for 8 archives")
    sub.add_argument("--ckpt", help=flags.READS)
    flags.add_output(sub, "the set, as many files as archives: OUT@8.npy for 8", required=True)
    flags.add_max_cost(sub)

    sub = command("verify", "decode all of a set of archives and compare every check", "all@8.cvae")
    sub.add_argument(
        "inputs", nargs="+", metavar="NAME@S.cvae", help="a set, NAME@8.cvae for 8 archives"
    )
    sub.add_argument("--ckpt", help=flags.READS)
    flags.add_max_cost(sub)

    sub = command(
        "calibrate",
        "make what files need of a checkpoint, from all of a collection",
        "runs/mine 'parts/*.npy'",
    )
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("inputs", nargs="+", metavar="INPUT", help=inputs)
    flags.add_fitting(sub)
    sub.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="where workers leave what they measured; the same command goes on with it (default: a "
        "temporary folder)",
    )
    sub.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace what is there; files made with it can then no longer be read",
    )


def job(args: Namespace) -> Report:
    from cvae_jax.cli.commands import decompress, verify

    if args.job == "compress":
        return compress(args, set_of(args.output))
    if args.job == "verify":
        return verify.verify(args)
    if args.job == "decompress":
        return decompress.job(args, _there(args.input), set_of(args.output))
    return calibrate(args)


def _there(pattern: str) -> Shards:
    """The set that a pattern means, which is read.  Raises as ``set_of`` and ``present``."""
    return present(pattern) or set_of(pattern)


def set_of(pattern: str) -> Shards:
    """The set that a job's word means.  Raises ConfigError if it means none."""
    shards = parse(pattern)
    if shards is None:
        raise ConfigError(f"{pattern}: expected a set of archives, as NAME@8.cvae for 8 of them")
    return shards


def compress(args: Namespace, shards: Shards) -> Report:
    """A collection into a set, for ``cvae compress`` too."""
    from cvae_jax.cli import jobs
    from cvae_jax.jobs import compress as work
    from cvae_jax.jobs import plan

    settings = work.Settings(
        args.quality,
        args.effort,
        0 if args.lossless else args.max_error,
        args.embed_model,
        not args.no_names,
        not args.quiet,
    )
    if args.quiet and (args.json or args.verbose):
        raise ConfigError("--quiet reports nothing; leave it out, or --json and --verbose")
    with work.begun(
        args.inputs,
        shards,
        args.ckpt,
        settings,
        resize=args.resize,
        grayscale=args.grayscale,
        force=args.force,
    ) as task:
        results, peak = jobs.carried_out(args, task, shards.count, len(task.collection), "compress")
        work.check_images(task, results)

    def total(what: str) -> int:
        return sum(result[what] for result in results)

    images, size = total("images"), total("bytes")
    each = size / images if images else math.nan
    values = {
        "output": str(shards),
        "shards": shards.count,
        "images": images,
        "bytes": size,
        "bytes_per_image": each if images else None,
        "made": total("made"),
        "skipped": total("skipped"),
        "unlike_training_data": total("far"),
        "peak_bytes": peak,
    }
    lines = [
        f"{shards}: {counted(images, 'image')} in {counted(shards.count, 'shard')}"
        f"{jobs.there_already(results)}, {size} bytes, {each:.2f} per image"
    ]
    if args.verbose:
        lines.append(jobs.peak_line(peak))
    warnings = []
    if skipped := total("skipped"):
        warnings.append(
            f"{counted(skipped, 'image')} could not be decoded and left out; "
            f"{plan.reports(shards)} names each"
        )
    if far := total("far"):
        warnings.append(
            f"{counted(far, 'image')} unlike what this model was trained on: far worse than its "
            "worst image; another --ckpt may fit"
        )
    return Report({} if args.quiet else values, [] if args.quiet else lines, warnings=warnings)


def calibrate(args: Namespace) -> Report:
    from cvae_jax.cli import jobs
    from cvae_jax.jobs import calibrate as work
    from cvae_jax.runs.find import file_model, find

    made_before = file_model(find(args.checkpoint))
    if made_before is not None and not args.force:
        raise ConfigError(
            f"{args.checkpoint} has coding tables; -f replaces them, and what was compressed with "
            "them can then no longer be decompressed"
        )
    with tempfile.TemporaryDirectory(prefix="cvae-job-") as temporary:
        place = args.work or Path(temporary)
        with work.begun(
            args.checkpoint, args.inputs, place, resize=args.resize, grayscale=args.grayscale
        ) as task:
            images, parts = len(task.collection), task.output.shards.count
            _, peak = jobs.carried_out(args, task, parts, images, "calibrate")
            made, used = work.finish(task)
    values = {
        "checkpoint": args.checkpoint,
        "images": used,
        "skipped": images - used,
        "kind": made.tables.kind,
        "tables": made.tables.digest[:16].hex(),
        "decoder": made.decoder.digest[:16].hex(),
        "peak_bytes": peak,
    }
    lines = [
        f"{args.checkpoint}: tables {values['tables']} of {made.tables.kind} "
        f"from {counted(used, 'image')}"
    ]
    if args.verbose:
        lines.append(jobs.peak_line(peak))
    skipped = images - used
    warnings = [f"{counted(skipped, 'image')} could not be decoded"] if skipped else []
    if made_before is not None and made_before.context is not None:
        warnings.append("its context model is that of the old tables; cvae calibrate -f makes one")
    return Report(values, lines, warnings=warnings)
