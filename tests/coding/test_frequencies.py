"""Pushing symbols by their sums and frequencies onto an ANS stream."""

import constriction
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvae_jax.coding.integers.frequencies import TOTAL, push

INTERVAL = st.one_of(
    st.tuples(st.integers(0, TOTAL - 1), st.integers(1, TOTAL - 1)),
    # At the ends, and where nothing is left beside a symbol but a frequency of 1.
    st.sampled_from([(0, 1), (0, TOTAL - 1), (1, TOTAL - 1), (0, TOTAL - 2), (TOTAL - 1, 1)]),
)


def plainly_pushed(start, frequency):
    """As docs/FORMAT.md has it."""
    x, words = 0, []
    for c, f in reversed(list(zip(start, frequency, strict=True))):
        if x >> 40 >= f:
            words.append(x & 0xFFFFFFFF)
            x >>= 32
        x = (x // f) << 24 | (x % f + c)
    while x:
        words.append(x & 0xFFFFFFFF)
        x >>= 32
    return words


@settings(max_examples=100, deadline=None)
@given(intervals=st.lists(INTERVAL, max_size=40))
@example(intervals=[(0, TOTAL - 1)] * 3 + [(5, 7), (1, TOTAL - 1)])
def test_any_intervals_make_the_stream_of_the_format(intervals):
    start = [c for c, _ in intervals]
    frequency = [min(f, TOTAL - c) for c, f in intervals]
    coder = constriction.stream.stack.AnsCoder()
    push(coder, np.array(start, np.float64), np.array(frequency, np.float64))
    assert coder.get_compressed().tolist() == plainly_pushed(start, frequency)
