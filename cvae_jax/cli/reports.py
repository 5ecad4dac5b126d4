"""What a command says: its report, and its progress while it works."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cvae_jax.bitstream.archive import unwatched


class Report(NamedTuple):
    values: dict[str, Any]  # for --json
    lines: list[str]  # for people
    status: int = 0
    warnings: Sequence[str] = ()  # for standard error, in either case


def counted(n: int, thing: str) -> str:
    """ "1 image", "2 images"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if np.isfinite(value) else None


def db(psnr: float) -> str:
    return f"{psnr:.2f} dB" if np.isfinite(psnr) else "infinite"


@contextlib.contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, for what takes longer than a second; yields what is to be told."""
    if not sys.stderr.isatty():
        yield unwatched
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="image", delay=1) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance
