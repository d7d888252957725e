"""Lines of keys, and the partition that is made of them, against NumPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd_keys import keys_below, keys_in_line, load_keys, store_keys_where
from numbatch.kernels.statistics.partition import LINE, partition

KINDS = [np.uint32, np.uint64]


@cpu_kernel
def split_line(keys, at, bound, low, high):
    line = load_keys(keys, at)
    mask = keys_below(line, bound)
    store_keys_where(low, 1, line, mask)
    store_keys_where(high, 1, line, ~mask)
    return mask, keys_in_line(keys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_is_split(kind):
    top = np.iinfo(kind).max
    keys = np.random.default_rng(0).integers(0, top, 40, kind, endpoint=True)
    keys[3:6] = 0, top, top // 2
    for bound in (kind(0), kind(1), keys[9], kind(top)):
        low, high = np.zeros(20, kind), np.zeros(20, kind)
        mask, size = split_line(keys, 2, bound, low, high)
        assert size == 64 // keys.itemsize
        line = keys[2 : 2 + size]
        below = line < bound
        assert mask == sum(1 << i for i in np.flatnonzero(below))
        assert np.array_equal(low[1 : 1 + below.sum()], line[below])
        assert np.array_equal(high[1 : 1 + size - below.sum()], line[~below])
        assert low[0] == high[0] == low[1 + size] == high[1 + size] == 0


def orders(size, kind):
    rng = np.random.default_rng(size)
    top = np.iinfo(kind).max
    keys = rng.integers(0, top, size, kind, endpoint=True)
    yield from (keys, np.sort(keys), np.sort(keys)[::-1])
    yield np.concatenate([np.sort(keys[::2]), np.sort(keys[1::2])[::-1]])
    for distinct in (1, 2, 3, 40):
        yield rng.choice(np.array([0, top, *keys[:38]], kind)[:distinct], size)
    yield np.full(size, top, kind)
    yield np.where(rng.random(size) < 0.9, top, keys).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 15, 30, 31, 32, 33, 100, 1000, 5003])
def test_a_partition_puts_a_rank_in_its_place(size, kind):
    scratch = np.empty(size + LINE, kind)
    for keys in orders(size, kind):
        ordered = np.sort(keys)
        for place in {0, size // 100, size // 3, size // 2, size - 1 - size // 50, size - 1}:
            parted = keys.copy()
            partition(parted, place, scratch)
            assert parted[place] == ordered[place]
            assert (parted[:place] <= parted[place]).all()
            assert (parted[place:] >= parted[place]).all()
            assert np.array_equal(np.sort(parted), ordered)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 1), min_size=1, max_size=200), st.data())
def test_any_keys_are_partitioned(listed, data):
    keys = np.array(listed, np.uint32)
    place = data.draw(st.integers(0, len(keys) - 1))
    partition(keys, place, np.empty(len(keys) + LINE, np.uint32))
    assert keys[place] == sorted(listed)[place]
    assert sorted(keys.tolist()) == sorted(listed)
