"""The command ``cvae``: compress, decompress, info, verify, concat, fit, calibrate, model, web,
and train, evaluate, release, import-keras, job, which have modules of their own.

Parses, calls, reports; exit status 0: done, 1: failed, 2: wrong use, 3: damaged file,
4: file of a newer format, 5: file of another model.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from cvae_jax import __version__, errors
from cvae_jax.cli import flags, start
from cvae_jax.cli.commands import evaluate, job
from cvae_jax.cli.commands.making import release, train
from cvae_jax.cli.files import paths
from cvae_jax.cli.flags import MAKES, READS, Parser, whole
from cvae_jax.errors import ConfigError

READING = ("decompress", "info", "verify", "concat", "model")  # commands that need no JAX
MAKING = ("calibrate", "fit")  # their modules are in commands.making


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="cvae", description="A learned codec for small images.")
    top.add_argument("-V", "--version", action="version", version=f"cvae_jax {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, ckpt: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if ckpt:
            sub.add_argument("--ckpt", help=ckpt)
        flags.add_reporting(sub)
        return sub

    sub = command("compress", "compress images", ckpt=MAKES)
    sub.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image files of one frame each, folders of them, globs, .npy/.npz or IDX files, or "
        "- for standard input",
    )
    flags.add_output(
        sub,
        "file to write, - for standard output (default: beside the input, if it "
        "is one: its name with .cvae)",
    )
    flags.add_quality(sub, of_all=True)
    sub.add_argument("--labels", metavar="FILE", help="an .npy or IDX file of one label per image")
    sub.add_argument(
        "--shards",
        type=whole,
        metavar="S",
        help="write so many archives, OUT-00000-of-0000S.cvae and so on (-o OUT@S.cvae says the "
        "same); the same command goes on where it was stopped",
    )
    flags.add_jobs(sub)

    sub = command("decompress", "decompress an archive or a single image", ckpt=READS)
    sub.add_argument(
        "input", metavar="FILE", help="or - for standard input, or a set of archives, NAME@S.cvae"
    )
    flags.add_output(
        sub,
        "folder (ends in /, is there, or has no suffix of a file), .npy file, image file (of a "
        "single image), or - for standard output: .npy, or PNG of a single image (default: "
        "beside the input: its name without its suffix); of a set, also a set, OUT@S.npy",
    )
    flags.add_jobs(sub)
    sub.add_argument("--labels", metavar="FILE", help="write the labels to this .npy file")
    sub.add_argument(
        "--preview",
        action="store_true",
        help="of a lossless or bounded file, what its base alone decodes to, which is quicker",
    )
    sub.add_argument(
        "--keep-going",
        action="store_true",
        help="recover the intact chunks of a damaged archive, and say which images are lost",
    )
    flags.add_max_cost(sub)

    sub = command("info", "say what a file holds and what its bytes are spent on", ckpt=READS)
    sub.add_argument("input", metavar="FILE", help="or a set of archives, NAME@S.cvae")
    flags.add_max_cost(sub)

    sub = command("verify", "decode everything and compare every check", ckpt=READS)
    sub.add_argument("inputs", nargs="+", metavar="FILE", help="or a set of archives, NAME@S.cvae")
    flags.add_jobs(sub)
    flags.add_max_cost(sub)

    sub = command(
        "concat",
        "join archives of the same model without coding again; a model that one carries is kept",
    )
    sub.add_argument("inputs", nargs="+", metavar="FILE", help="or a set of archives, NAME@S.cvae")
    flags.add_max_cost(sub)
    flags.add_output(
        sub, "archive to write; it may be one of the inputs if -f is given", required=True
    )

    sub = command("fit", "make a model of your own images in a given time, or go on with it")
    sub.add_argument(
        "dataset", metavar="IMAGES", help="a folder, or whatever cvae train --dataset takes"
    )
    flags.add_output(sub, "folder of the checkpoint to write", required=True)
    flags.add_fit(sub)

    sub = command(
        "calibrate",
        "make what files need of a checkpoint: coding tables, integer decoder, context model",
    )
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("--dataset", help="training images (default: what it was trained on)")
    sub.add_argument("--data-dir", help="where prepared datasets are, and downloads go")
    sub.add_argument(
        "--context-steps",
        type=int,
        metavar="N",
        help="train the context model, which lossless files need, for so many steps (default: "
        "none, or the checkpoint's own setting where tables are made too)",
    )
    sub.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace what is there; files made with it can then no longer be read",
    )

    sub = command("model", "write a model file: all that reading needs of a checkpoint")
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    flags.add_output(sub, "file to write; --ckpt takes it for decompressing", required=True)

    sub = command("web", "write a page that opens archives and makes single images", ckpt=MAKES)
    sub.add_argument("output", metavar="OUT.html", help="file to write, - for standard output")
    sub.add_argument("-f", "--force", action="store_true", help="overwrite what exists")
    sub.add_argument("--archive", metavar="FILE", help="an archive that the page shows first")

    train.add_parser(commands)
    evaluate.add_parser(commands)
    release.add_parsers(commands)
    job.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    to = sys.stdout
    as_json = bool({"-j", "--json"} & set(words))  # also where the words cannot be parsed
    as_json &= words[:1] != ["evaluate"]  # whose --json names a file
    try:
        _check_not_empty(words)
        words, beam = _without_beam(words)
        args = parser().parse_args(words)
        args.beam = beam
        as_json = getattr(args, "json", False) is True
        # What is reported must not be mixed with a file that goes to standard output.
        to = sys.stderr if _writes_to_stdout(args) else sys.stdout
        _check_text(args)
        return _call(args, to)
    except BaseException as error:
        if as_json and (failure := errors.failure(error)):
            told = {"error": failure.line, "exit_code": failure.exit_code}
            print(json.dumps(told, indent=2), file=to)
        raise


def _call(args: argparse.Namespace, to: TextIO) -> int:
    signal.signal(signal.SIGTERM, errors.leave)
    if args.command not in READING:
        with errors.needs(_extra(args), f"cvae {args.command}"):
            from cvae_jax import backend
        backend.use_compilation_cache()
    if "program" in args:
        start.imported()
        return args.program(args)
    started = time.monotonic()
    # Imported after the arguments, and no other command's: reading needs no JAX.
    room = "making." if args.command in MAKING else ""
    command = importlib.import_module(f"cvae_jax.cli.commands.{room}{args.command}")
    start.imported()
    report = getattr(command, args.command)(args)
    if args.verbose:
        seconds = round(time.monotonic() - started, 2)
        report.values["seconds"] = seconds
        report.lines.append(f"{seconds} s")
    for warning in report.warnings:
        print(f"warning: {errors.one_line(warning)}", file=sys.stderr)
    lines = "\n".join(errors.one_line(line) for text in report.lines for line in text.split("\n"))
    if report.lines:
        print(json.dumps(report.values, indent=2) if args.json else lines, file=to)
    return report.status


def _extra(args: argparse.Namespace) -> str:
    """The extra of this package that installs what a command takes."""
    if args.command == "evaluate" and args.rate_distortion:
        return "bench"
    others = {"compress": "codec", "job": "codec", "web": "codec", "import-keras": "keras"}
    return others.get(args.command, "train")


def _writes_to_stdout(args: argparse.Namespace) -> bool:
    output = getattr(args, "output", "")
    inputs = getattr(args, "inputs", [getattr(args, "input", None)])
    written = [output, args.labels] if args.command == "decompress" else [output]
    return any(paths.is_stdout(name) for name in written if name) or (
        output is None and inputs == ["-"]
    )


def _without_beam(words: list[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and Beam's options, which follow ``--`` in a job's."""
    at = words.index("--") if words[:1] == ["job"] and "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _check_not_empty(words: Sequence[str]) -> None:
    """Refuses arguments that say nothing, as unset variables of a script leave them."""
    for before, word in zip(["cvae", *words], words, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            raise ConfigError(f"nothing is given after {word or before}; name something or omit it")


def _check_text(args: argparse.Namespace) -> None:
    """Refuses names of files that are no text: they could be neither shown nor stored."""
    for value in vars(args).values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise ConfigError(f"the name {text!r} is not UTF-8; rename it") from error


def run(argv: list[str] | None = None) -> None:
    """Runs the command and leaves with its exit status (``start`` is the console script)."""
    sys.exit(errors.run(lambda: main(argv)))
