"""The command ``cvae``: compress, decompress, info, verify, concat, calibrate, and train,
evaluate, release, import-keras, which have modules of their own.

Parses, calls, reports; exit status 0: done, 1: failed, 2: wrong use, 3: damaged file,
4: file of a newer format, 5: file of another model.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import Any

from cvae_jax import __version__, errors
from cvae_jax.cli import evaluate, release, train
from cvae_jax.cli.flags import Parser


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="cvae", description="A learned codec for small images.")
    top.add_argument("-V", "--version", action="version", version=f"cvae_jax {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, ckpt: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if ckpt:
            sub.add_argument(
                "--ckpt",
                help="the checkpoint (default: the archive's own, else the released mnist)",
            )
        sub.add_argument("-j", "--json", action="store_true", help="report as JSON")
        sub.add_argument("-v", "--verbose", action="store_true", help="report more")
        return sub

    def output(sub: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
        sub.add_argument("-o", "--output", metavar="OUT", help=text, required=required)
        sub.add_argument("-f", "--force", action="store_true", help="overwrite what exists")

    sub = command("compress", "compress images")
    sub.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image files, folders of them, globs, .npy/.npz or IDX files, or - for standard input",
    )
    output(sub, "file to write, - for standard output (default: the input's name with .cvae)")
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "-q", "--quality", type=float, help="0 to 100 (default: 50): bytes and fidelity"
    )
    how.add_argument(
        "--target-bytes", type=float, metavar="B", help="at most so many bytes per image"
    )
    how.add_argument(
        "--target-psnr", type=float, metavar="DB", help="at least so many dB, of the mean error"
    )
    sub.add_argument(
        "--effort",
        type=int,
        default=0,
        help="0 to 9 (default: 0): rounds of searching for better symbols; decoding stays as fast",
    )
    sub.add_argument("--resize", action="store_true", help="stretch images to the model's size")
    sub.add_argument("--grayscale", action="store_true", help="make coloured images grey")
    sub.add_argument("--no-names", action="store_true", help="leave out the files' names")
    sub.add_argument("--labels", metavar="FILE", help="an .npy or IDX file of one label per image")
    sub.add_argument(
        "--embed-model",
        nargs="?",
        const="float16",
        choices=("float16", "float32"),
        help="put the decoder into the archive (float16 if not said), so that it decodes alone",
    )

    sub = command("decompress", "decompress an archive or a single image")
    sub.add_argument("input", metavar="FILE", help="or - for standard input")
    output(
        sub,
        "folder, .npy file, image file (of a single image), or - for standard output: .npy, or "
        "PNG of a single image (default: the input's name without its suffix)",
    )
    sub.add_argument("--labels", metavar="FILE", help="write the labels to this .npy file")
    sub.add_argument(
        "--keep-going",
        action="store_true",
        help="recover the intact chunks of a damaged archive, and say which images are lost",
    )

    sub = command("info", "say what a file holds and what its bytes are spent on")
    sub.add_argument("input", metavar="FILE")

    sub = command("verify", "decode everything and compare every check")
    sub.add_argument("inputs", nargs="+", metavar="FILE")

    sub = command("concat", "join archives of the same model without coding again", ckpt=False)
    sub.add_argument("inputs", nargs="+", metavar="FILE")
    output(sub, "archive to write; it may be one of the inputs if -f is given", required=True)

    sub = command("calibrate", "make the coding tables of a checkpoint that has none", ckpt=False)
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("--dataset", help="training images (default: what it was trained on)")
    sub.add_argument("--data-dir", help="where prepared datasets are, and downloads go")
    sub.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="replace tables; files made with the old ones can then no longer be read",
    )

    train.add_parser(commands)
    evaluate.add_parser(commands)
    release.add_parsers(commands)
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # Slow to import: after the arguments.
    from cvae_jax import backend
    from cvae_jax.cli import commands

    signal.signal(signal.SIGTERM, _stop)
    backend.use_compilation_cache()
    if "program" in args:
        return args.program(args)
    started = time.monotonic()
    report = getattr(commands, args.command)(args)
    if args.verbose:
        seconds = round(time.monotonic() - started, 2)
        report.values["seconds"] = seconds
        report.lines.append(f"{seconds} s")
    # What is reported must not be mixed with a file that goes to standard output.
    to = sys.stderr if report.values.get("output") == "-" else sys.stdout
    print(json.dumps(report.values, indent=2) if args.json else "\n".join(report.lines), file=to)
    return report.status


def _stop(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)  # so that temporaries are removed on the way out


def run(argv: list[str] | None = None) -> None:
    """The console script."""
    sys.exit(errors.run(lambda: main(argv)))
