"""Batches of images in a given order, for training: from memory, or read ahead from files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import connection

import numpy as np

from cvae_jax.data.sources import Source
from cvae_jax.errors import CvaeError, DataError, needs

THREADS = 4  # that read and decode, in this process or in each worker
AHEAD = 8  # batches that they may be ahead of the step, in a process's own memory
SHARED = 2  # batches of each worker in shared memory, of which a container may have 64 MB


def batches(
    images: Source, order: Sequence[np.ndarray], start: int = 0, workers: int = 0
) -> Iterator[np.ndarray]:
    """Yields ``images[order[k]]`` for each k from ``start`` on: uint8 ``[b, H, W, C]``.

    What is yielded depends on neither the kind of source nor the number of workers.

    Args:
      images: an array in memory is indexed; of other sources Grain reads the next batches while
        one is used.
      order: the numbers of the images of each step, int ``[b]``.
      workers: processes that read and decode; 0: threads of this one do.  They end with the
        iterator, however that ends.

    Raises:
      DataError: an image cannot be read, or a worker was killed.
      InstallError: Grain is missing.
    """
    if isinstance(images, np.ndarray):
        return (images[order[k]] for k in range(start, len(order)))
    return _read_ahead(images, order, start, workers)


def _read_ahead(
    images: Source, order: Sequence[np.ndarray], start: int, workers: int
) -> Iterator[np.ndarray]:
    with needs("grain", "training on images that do not fit into memory"):
        import grain
        from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain reads its own, which only some programs let absl parse
        flags.FLAGS.mark_as_parsed()
    if start >= len(order):
        return
    steps = grain.MapDataset.source(order).slice(slice(start, None)).map(images.__getitem__)
    # Without an end, at which each worker of Grain 0.2.18 leaves a batch in shared memory.
    reads = steps.repeat().to_iter_dataset(grain.ReadOptions(THREADS, AHEAD))
    if workers:
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=SHARED)
        reads = reads.mp_prefetch(options, worker_init_fn=_start_worker)
    found = iter(reads)
    try:
        for _ in range(start, len(order)):
            yield np.array(_next(found))  # a copy: shared memory is given back at once
    finally:
        found.close()


def _next(found: Iterator[np.ndarray]) -> np.ndarray:
    try:
        return next(found)
    except CvaeError as error:
        raise type(error)(str(error)) from None  # without what a worker's traceback adds
    except RuntimeError as error:
        raise DataError(f"a process that reads images ended ({error})") from error


def _start_worker(number: int, count: int) -> None:
    """Leaves Ctrl-C to the process that trains, and ends with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=[parent.sentinel], daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
