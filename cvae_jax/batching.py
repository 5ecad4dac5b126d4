"""Many rows or chunks in blocks, and the blocks on all cores.

``mapped`` is the one way in which work is spread over cores: ``map`` with a thread for each of
them.  It helps wherever blocks do not depend on one another and what takes long in them lets go
of Python's lock, as NumPy, compiled functions, files and compression do.  Work inside such a thread
that would spread itself again runs in that thread: cores are given out once, at the outermost
``mapped``, where the blocks are largest.  Nothing here imports JAX: reading a file needs none.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Stopped(Exception):
    """Raised in a thread whose result nobody waits for any more."""


_this_thread = threading.local()


def _works_for_mapped() -> bool:
    return getattr(_this_thread, "works_for_mapped", False)


def _will_work_for_mapped() -> None:
    _this_thread.works_for_mapped = True


def cores() -> int:
    """How many threads run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mapped(
    f: Callable[[Any], Any],
    items: Iterable[Any],
    stop: threading.Event | None = None,
    at_once: int | None = None,
) -> Generator[Any]:
    """``map(f, items)``, as many at once as there are cores.

    Items are drawn in the caller's thread, one more than ``at_once`` ahead of the results.  What
    ``f`` or the items raise comes out in its place.  In a thread of another ``mapped`` it is
    ``map``.

    stop: set as soon as no more results are wanted, so that ``f`` can raise Stopped; at_once: how
    many, if not one for each core.
    """
    if _works_for_mapped():
        yield from map(f, items)
        return
    at_once = at_once or cores()
    pending: deque[Future] = deque()
    pool = ThreadPoolExecutor(at_once, initializer=_will_work_for_mapped)
    try:
        for item in items:
            pending.append(pool.submit(f, item))
            if len(pending) > at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        if stop:
            stop.set()
        pool.shutdown(cancel_futures=True)


def blocks(n: int, micro: int, most: int) -> Iterator[tuple[int, int, int]]:
    """``(start, stop, size)`` of each block: rows start..stop, filled up to ``size`` rows.

    Sizes are powers of two below ``micro``, or up to ``most`` times ``micro`` a power of two, so
    that a function is compiled for only a handful of sizes, whatever lengths occur.
    """
    start = 0
    while start < n:
        left = n - start
        if left < micro:
            size = 1 << (left - 1).bit_length()
        else:
            size = micro << min(left // micro, most).bit_length() - 1
        stop = min(start + size, n)
        yield start, stop, size
        start = stop
