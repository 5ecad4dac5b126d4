"""Many rows or chunks in blocks, and the blocks on all cores.

``mapped`` is the one way in which work is spread over cores: ``map`` with a thread for each of
them.  It helps wherever blocks do not depend on one another and what takes long in them lets go
of Python's lock, as NumPy, compiled functions, files and compression do.  Work inside such a thread
that would spread itself again runs in that thread: cores are given out once, at the outermost
``mapped``, where the blocks are largest.  Nothing here imports JAX: reading a file needs none.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from threadpoolctl import ThreadpoolController


class Stopped(Exception):
    """Raised in a thread whose result nobody waits for any more."""


_this_thread = threading.local()


def _will_work() -> None:
    _this_thread.works = True


# The environment's word for how many cores a process may take: a job's workers share a machine.
CORES = "CVAE_JAX_CORES"


def cores() -> int:
    """How many threads run at once."""
    given = os.environ.get(CORES, "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """One for each core, kept: starting two takes as long as encoding four images."""
    return ThreadPoolExecutor(cores(), "cvae_jax", _will_work)


if hasattr(os, "register_at_fork"):  # threads do not live on in a fork
    os.register_at_fork(after_in_child=_threads.cache_clear)


def mapped(
    f: Callable[[Any], Any],
    items: Iterable[Any],
    stop: threading.Event | None = None,
    at_once: int | None = None,
) -> Generator[Any]:
    """``map(f, items)``, as many at once as there are cores.

    Items are drawn in the caller's thread, only a little ahead of the results.  What ``f`` or the
    items raise comes out in its place.  In a thread that works for ``mapped`` it is ``map``; the
    items may come from another ``mapped``, and the two share the cores.  A single item is worked
    on in the caller's thread.

    stop: set as soon as no more results are wanted, so that ``f`` can raise Stopped; at_once: how
    many are under way at most, if not one more than there are cores.
    """
    if getattr(_this_thread, "works", False):
        yield from map(f, items)
        return
    items = iter(items)
    first = list(itertools.islice(items, 2))
    if len(first) < 2:  # alone, it may spread what it does itself
        yield from map(f, first)
        return
    items = itertools.chain(first, items)
    most, process = at_once or cores() + 1, os.getpid()
    pending: deque[Future] = deque()
    fault: Exception | None = None
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:  # what came before it comes out first
                fault = error
                break
            if len(pending) >= most:
                yield pending.popleft().result()
            pending.append(_threads().submit(f, item))
        while pending:
            yield pending.popleft().result()
        if fault is not None:
            raise fault
    finally:
        if stop:
            stop.set()
        if os.getpid() == process:  # in a fork there is nobody to wait for
            for future in pending:
                future.cancel()
            wait(pending)


class _Products:
    """How many threads NumPy's products of matrices take, in the whole process."""

    def __init__(self) -> None:
        self._lock, self._asked = threading.Lock(), 0
        self._limited: contextlib.AbstractContextManager[Any] | None = None

    @functools.cached_property
    def _libraries(self) -> ThreadpoolController:
        return ThreadpoolController()

    def limit(self) -> None:
        with self._lock:
            if not self._asked:
                self._limited = self._libraries.limit(limits=1, user_api="blas")
                self._limited.__enter__()
            self._asked += 1

    def restore(self) -> None:
        with self._lock:
            self._asked -= 1
            if not self._asked and self._limited:
                self._limited.__exit__(None, None, None)


_products = _Products()


@contextlib.contextmanager
def products_in_one_thread() -> Iterator[None]:
    """While this is open, NumPy multiplies matrices in the thread that asks for it.

    To share a small product between threads takes longer than to compute it, and ten times as long
    where several threads do so.
    """
    _products.limit()
    try:
        yield
    finally:
        _products.restore()


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
