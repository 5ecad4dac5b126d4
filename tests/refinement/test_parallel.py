"""``mapped`` is ``map``: in order, lazy, and the first error ends it."""

import itertools
import threading
import time

import pytest

from cvae_jax.refinement.parallel import cores, mapped


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
