"""Arrays of integers as bytes: they come back, they are few, and damage is noticed or harmless."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvae_jax.coding.integers import packing
from cvae_jax.errors import FormatError

INTEGERS = st.lists(
    st.one_of(st.integers(-20, 20), st.integers(-(2**30), 2**30 - 1)), min_size=1, max_size=60
)


@settings(max_examples=100, deadline=None)
@given(values=INTEGERS)
def test_any_integers_come_back(values):
    packed = packing.pack(np.array(values))
    back, end = packing.unpack(b"before" + packed + b"after", 6, len(values))
    assert back.tolist() == values
    assert end == 6 + len(packed)


@pytest.mark.parametrize("values", [[], [7], [5] * 1000, [-(2**30)] * 3])
def test_what_is_all_the_same_takes_a_header(values):
    packed = packing.pack(np.array(values, int))
    assert len(packed) <= 16
    assert packing.unpack(packed, 0, len(values))[0].tolist() == values


def test_near_the_entropy_of_the_values():
    values = np.rint(np.random.default_rng(0).normal(size=50_000) * 12).astype(int)
    shares = np.unique(values, return_counts=True)[1] / len(values)
    ideal = -(shares * np.log2(shares)).sum() * len(values) / 8
    assert len(packing.pack(values)) < 1.01 * ideal + 200


def test_integers_that_lie_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="too far apart"):
        packing.pack(np.array([0, 1 << 40]))


def test_damaged_bytes_give_integers_or_a_format_error():
    rng = np.random.default_rng(1)
    packed = packing.pack(rng.integers(-50, 50, 300))
    refused = 0
    for _ in range(500):
        damaged = bytearray(packed[: rng.integers(1, len(packed) + 1)])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            assert len(packing.unpack(bytes(damaged), 0, 300)[0]) == 300
        except FormatError:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("low", [-(2**31), 1 - 2**31, -5, 2**31 - 300, 2**31 - 200])
def test_integers_take_no_more_memory_than_they_need(low):
    """int32 wherever the size of each fits one too, which that of -2**31 does not."""
    values = np.arange(low, low + 200)
    packed = packing.pack(values)
    back, _ = packing.unpack(packed, 0, 200)
    assert back.tolist() == values.tolist()
    entries, plain = struct.unpack_from("<HB", packed, 4)
    fits = low > -(2**31) and low + (entries << plain) <= 2**31
    assert back.dtype == (np.int32 if fits else np.int64)
