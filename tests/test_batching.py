"""``mapped`` is ``map``: in order, lazy, and the first error ends it; blocks cover every row."""

import itertools
import os
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from threadpoolctl import threadpool_info

from cvae_jax.batching import blocks, cores, mapped, products_in_one_thread


def test_results_come_in_order():
    def slower_first(k):
        time.sleep(0.02 / (k + 1))
        return k

    assert list(mapped(slower_first, range(20))) == list(range(20))
    assert list(mapped(slower_first, [])) == []


def test_items_are_drawn_only_a_little_ahead():
    drawn = itertools.count()
    results = mapped(lambda k: k, drawn)
    for k in range(10):
        assert next(results) == k
    assert next(drawn) <= 10 + cores() + 1
    results.close()


def test_items_are_drawn_in_the_callers_thread_and_mapped_in_others():
    def items():
        for _ in range(4):
            yield threading.get_ident()

    both = list(mapped(lambda drawn: (drawn, threading.get_ident()), items()))
    assert {drawn for drawn, _ in both} == {threading.get_ident()}
    assert threading.get_ident() not in {ran for _, ran in both}


def test_an_error_ends_it_in_its_place():
    def odd_ones(k):
        if k == 5:
            raise ValueError("five")
        return k

    done = []
    with pytest.raises(ValueError, match="five"):
        done.extend(mapped(odd_ones, range(1000)))
    results = mapped(odd_ones, range(1000))
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_an_error_in_the_items_is_the_callers():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(mapped(lambda k: k, items()))


def test_who_stops_early_waits_for_no_more_than_what_runs():
    started = []

    def slow(k):
        started.append(k)
        time.sleep(0.05)
        return k

    results = mapped(slow, range(1000))
    assert next(results) == 0
    results.close()
    count = len(started)
    assert count <= cores() + 2
    time.sleep(0.15)
    assert len(started) == count


def test_inside_another_it_is_map():
    """No deadlock and no more threads, however deep."""

    def nested(depth):
        inner = list(mapped(nested, [depth - 1] * 3)) if depth else []
        return {threading.get_ident()}.union(*inner)

    threads = list(mapped(nested, [3] * 20))
    assert all(len(of_one) == 1 for of_one in threads)
    assert len(set.union(*threads)) <= cores()


def test_no_more_at_once_than_asked_for():
    now = []

    def alone(k):
        now.append(k)
        time.sleep(0.001)
        assert now == [k]
        now.clear()
        return k

    assert list(mapped(alone, range(20), at_once=1)) == list(range(20))


def test_items_may_come_from_another():
    """Both share the same threads, and neither waits for the other for ever."""
    items = range(50)
    for _ in range(5):
        items = mapped(lambda k: k + 1, items)
    assert list(items) == list(range(5, 55))


def twice_each(n):
    return list(mapped(lambda k: 2 * k, range(n)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_has_threads_of_its_own():
    assert twice_each(5) == [0, 2, 4, 6, 8]
    code = (
        "import os, sys; sys.path.insert(0, 'tests'); from test_batching import twice_each\n"
        "twice_each(5); child = os.fork()\n"
        "if not child: os._exit(twice_each(5) != [0, 2, 4, 6, 8])\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_an_interrupt_ends_it():
    """As Ctrl-C does: raised in the caller's thread while it waits."""
    stop = threading.Event()

    def items():
        yield from range(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(mapped(lambda k: k, items(), stop))
    assert stop.is_set()


def test_blocks_cover_every_row_once_in_few_sizes():
    sizes = set()
    for n in range(2500):
        stop = 0
        for start, end, size in blocks(n, 32, 8):
            assert start == stop
            assert 0 < end - start <= size
            stop = end
            sizes.add(size)
        assert stop == n
    assert sizes == {1, 2, 4, 8, 16, 32, 64, 128, 256}


def test_products_in_one_thread_until_the_last_who_asked_is_done():
    def threads():
        # NumPy's: another library may have been loaded since, and is not asked.
        blas = [each for each in threadpool_info() if each["user_api"] == "blas"]
        return [each["num_threads"] for each in blas if "numpy" in each["filepath"]]

    before = threads()
    if set(before) <= {1}:
        pytest.skip("NumPy multiplies matrices in one thread anyway, or with what nobody can limit")
    first, second = products_in_one_thread(), products_in_one_thread()
    with first:
        second.__enter__()
        assert set(threads()) == {1}
    assert set(threads()) == {1}
    second.__exit__(None, None, None)
    assert threads() == before


def test_one_item_is_worked_on_by_the_caller():
    assert list(mapped(lambda _: threading.current_thread(), [0])) == [threading.current_thread()]
    workers = set(mapped(lambda _: threading.current_thread(), [0, 1]))
    assert threading.current_thread() not in workers


def test_what_came_before_an_error_of_the_items_comes_out_first():
    def items():
        yield from range(5)
        raise ValueError("the sixth")

    found = []

    def collect():
        for each in mapped(lambda x: x, items()):
            found.append(each)

    with pytest.raises(ValueError, match="the sixth"):
        collect()
    assert found == [0, 1, 2, 3, 4]
