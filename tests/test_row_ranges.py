"""Which rows each thread works on."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbatch.batching.row_ranges import APART, BLOCK, GRAIN, KEY_COST, RowSplitter
from numbatch.kernels.scoring.activations import BFLOAT16, FLOAT32, INT8

WIDTH, HEADS, SIZE = 576, 9, 64
ROW_COST, KEY = 7 * WIDTH * WIDTH, 2 * HEADS * SIZE


def splitter(compute, threads):
    weight = SimpleNamespace(weight=SimpleNamespace(rows=WIDTH, columns=WIDTH))
    names = ("query", "key", "value", "output", "gate", "up", "down")
    layer = SimpleNamespace(**dict.fromkeys(names, weight))
    config = SimpleNamespace(heads=HEADS, head_size=SIZE)
    return RowSplitter(SimpleNamespace(config=config, layers=[layer]), compute, threads)


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=12),
    st.sampled_from([FLOAT32, BFLOAT16, INT8]),
    st.integers(1, 5),
)
def test_every_row_belongs_to_one_thread_and_one_block(lengths, compute, threads):
    positions = np.concatenate([np.arange(n) for n in lengths])
    shares = splitter(compute, threads).split(positions)
    rows = len(positions)
    if not shares.apart:
        assert threads > 1
        assert rows < threads * APART
        assert np.all(shares.ranges == [0, rows])
        assert shares.block >= rows
        return
    assert shares.ranges[0, 0] == 0
    assert shares.ranges[-1, 1] == rows
    np.testing.assert_array_equal(shares.ranges[1:, 0], shares.ranges[:-1, 1])
    assert np.all(shares.ranges[:, 0] <= shares.ranges[:, 1])
    inner = shares.ranges[1:, 0]
    assert np.all((inner % GRAIN[compute] == 0) | (inner == rows))
    assert 0 < shares.block <= BLOCK
    starts = [row for low, high in shares.ranges for row in range(low, high, shares.block)]
    np.testing.assert_array_equal(shares.breaks, starts)


@pytest.mark.parametrize("compute", [FLOAT32, BFLOAT16, INT8])
def test_threads_get_equal_work(compute):
    positions = np.arange(2048)
    shares = splitter(compute, 2).split(positions)
    costs = ROW_COST + positions * KEY * KEY_COST[compute]
    parts = [costs[low:high].sum() for low, high in shares.ranges]
    assert abs(parts[0] - parts[1]) <= GRAIN[compute] * costs.max()


def test_blocks_of_a_thread_are_about_equal():
    shares = splitter(INT8, 1).split(np.zeros(2 * BLOCK + 6, np.int64))
    assert np.diff([*shares.breaks, 2 * BLOCK + 6]).min() >= BLOCK // 3
