"""Chunks in parallel, in order: what takes long in them lets go of Python's lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cvae_jax.exact.by_numpy import cores


class Stopped(Exception):
    """Raised in a thread whose result nobody waits for any more."""


def mapped(
    f: Callable[[Any], Any], items: Iterable[Any], stop: threading.Event | None = None
) -> Iterator[Any]:
    """``map(f, items)``, as many at once as there are cores.

    Items are drawn in the caller's thread, one more than there are cores ahead of the results.

    stop: set as soon as no more results are wanted, so that ``f`` can raise Stopped.
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
        if stop:
            stop.set()
        pool.shutdown(cancel_futures=True)
