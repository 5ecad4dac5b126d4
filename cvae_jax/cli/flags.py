"""Flags in two spellings (``--data-dir`` and ``--data_dir``), the numbers in them, and those that
several commands have."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cvae_jax.config import PRESETS
from cvae_jax.errors import ConfigError

CHECKPOINT = "checkpoint: a workdir, a step in it, a released one or its name"
# What --ckpt means to a command that makes files, and to those that read them.
MAKES = f"{CHECKPOINT} (default: mnist)"
READS = f"{CHECKPOINT}, or a model file (default: the file's own, or the released one that made it)"


class Parser(argparse.ArgumentParser):
    """A parser whose flags are declared with hyphens and may be given with underscores."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([_hyphenated(word) for word in words], namespace)

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError, so that wrong use is reported as every other error is."""
        raise ConfigError(f"{message}; see {self.prog} --help")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._command(found)._refuse(unknown)
        return found

    def _command(self, found: argparse.Namespace) -> Parser:
        """The parser of the command that was given."""
        for action in self._actions:
            if action.dest == "command" and isinstance(action.choices, Mapping):
                return action.choices[found.command]
        return self

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        flag = unknown[0].partition("=")[0]
        close = difflib.get_close_matches(flag, self._option_string_actions, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")


def finite(text: str) -> float:
    """A number, for ``type=``: neither NaN nor infinite, which every comparison would let pass."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, not {text}")
    return number


finite.__name__ = "number"  # as argparse names it: "invalid number value: 'x'"


def positive(text: str) -> float:
    """A finite number above 0, for ``type=``."""
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text}")
    return number


positive.__name__ = "number"


def whole(text: str) -> int:
    """A whole number above 0, for ``type=``."""
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text}")
    return number


whole.__name__ = "whole number"


def size(text: str) -> tuple[int, int]:
    """A height and a width, for ``type=``."""
    found = re.fullmatch("([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected HxW, as 32x32, not {text}")
    return int(found[1]), int(found[2])


def add_reporting(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-j", "--json", action="store_true", help="report as JSON")
    sub.add_argument("-v", "--verbose", action="store_true", help="report more")


def add_output(sub: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
    sub.add_argument("-o", "--output", metavar="OUT", help=text, required=required)
    sub.add_argument("-f", "--force", action="store_true", help="overwrite what exists")


def add_fit(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--minutes",
        type=positive,
        default=15.0,
        metavar="M",
        help="time for the model, on this machine (default: 15)",
    )
    sub.add_argument("--preset", choices=PRESETS, help="settings (default: by the images)")
    sub.add_argument("--resize", type=size, metavar="HxW", help="stretch image files to this size")
    sub.add_argument(
        "--archive",
        metavar="OUT.cvae",
        help="then compress all images, with the decoder inside, and compare with PNG, WebP, AVIF",
    )
    sub.add_argument("-q", "--quality", type=finite, help="of the archive, 0 to 100 (default: 50)")
    sub.add_argument(
        "--workdir", type=Path, help="where the run is kept (default: OUT.fit, removed at the end)"
    )
    sub.add_argument("--data-dir", help="where prepared datasets are, and downloads go")


def add_max_cost(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--max-cost",
        type=positive,
        default=1.0,
        metavar="FACTOR",
        help="times the memory and work that reading a file may cost; for files that you trust",
    )


def add_jobs(sub: argparse.ArgumentParser, otherwise: str = "1") -> None:
    sub.add_argument(
        "--jobs",
        type=whole,
        metavar="N",
        help="of a set of archives, work on so many at once, each in a process of its own with its "
        f"share of the cores (default: {otherwise})",
    )


def add_fitting(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--resize",
        action="store_true",
        help="stretch images to the model's size; without it, a model of a map of latents takes "
        "them as they are, those of one size after each other",
    )
    sub.add_argument("--grayscale", action="store_true", help="make coloured images grey")


def add_quality(sub: argparse.ArgumentParser, *, of_all: bool) -> None:
    """How images are compressed; of_all: also what is only known once all have been."""
    bound = sub.add_mutually_exclusive_group()
    bound.add_argument("--lossless", action="store_true", help="every pixel as it was")
    bound.add_argument(
        "--max-error", type=int, metavar="E", help="every pixel within E grey levels, 0 to 63"
    )
    how = sub.add_mutually_exclusive_group()
    how.add_argument(
        "-q",
        "--quality",
        type=finite,
        help="0 to 100 (default: 50; with --lossless or --max-error what calibration "
        "found smallest): bytes and fidelity",
    )
    if of_all:
        how.add_argument(
            "--target-bytes", type=positive, metavar="B", help="at most so many bytes per image"
        )
        how.add_argument(
            "--target-psnr",
            type=positive,
            metavar="DB",
            help="at least so many dB, of the mean error",
        )
        sub.add_argument(
            "--min-psnr",
            type=positive,
            metavar="DB",
            help="write nothing if an image comes out below so many dB",
        )
    sub.add_argument(
        "--quiet",
        action="store_true",
        help="report nothing: images are then not all decoded, and of their pixels the file "
        "vouches for the first 64 of every 4096",
    )
    sub.add_argument(
        "--effort",
        type=int,
        default=0,
        help="0 to 9 (default: 0): rounds of searching for better symbols, of which the first is "
        "quick; decoding stays as fast",
    )
    add_fitting(sub)
    sub.add_argument("--no-names", action="store_true", help="leave out the files' names")
    sub.add_argument(
        "--embed-model",
        action="store_true",
        help="put the decoder into the archive, so that it decodes alone",
    )


def _hyphenated(word: str) -> str:
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else word
