"""Chunks in parallel, in order: what takes long in them lets go of Python's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def mapped(f: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``map(f, items)``, as many at once as there are cores.

    Items are drawn in the caller's thread, one more than there are cores ahead of the results.
    """
    workers = cores()
    pending: deque[Future] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            pending.append(pool.submit(f, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many threads run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
