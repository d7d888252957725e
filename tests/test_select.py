"""Selection without sorting against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.select import kth_largest, smallest_of_sum


@cpu_kernel
def _kth(values, count, largest, k):
    return kth_largest(values, count, largest, k)


@cpu_kernel
def _of_sum(values, count, largest, target):
    return smallest_of_sum(values, count, largest, target)


def room(values):
    out = np.full(len(values) + 15, np.nan, np.float32)
    out[: len(values)] = values
    return out


def kth(values, k):
    return _kth(room(values), len(values), values.max(), k)


numbers = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, np.inf, -np.inf, 1e-45, -3e38]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=120), st.data())
def test_the_kth_largest_of_any_numbers(values, data):
    values = np.array(values, np.float32)
    k = data.draw(st.integers(1, len(values)))
    assert kth(values, k) == np.sort(values)[-k]


@pytest.mark.parametrize("k", [1, 2, 24, 25, 500, 4999, 5000])
@pytest.mark.parametrize("kind", ["normal", "few", "equal", "huge"])
def test_the_kth_largest_of_many(k, kind):
    rng = np.random.default_rng(k)
    values = {
        "normal": rng.standard_normal(5000) * 3 + 5,
        "few": rng.integers(0, 4, 5000),
        "equal": np.full(5000, -7.5),
        "huge": np.exp(rng.uniform(-80, 80, 5000)) * rng.choice([-1, 1], 5000),
    }[kind].astype(np.float32)
    assert kth(values, k) == np.sort(values)[-k]


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.9, 0.999, 1.0, 2.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("count", [1, 20, 30, 3001])
def test_the_smallest_that_a_sum_needs(share, spread, count):
    rng = np.random.default_rng(count)
    weights = np.exp(rng.standard_normal(count) * spread).astype(np.float32)
    weights[rng.random(count) < 0.1] = 0
    weights[0] = 1
    target = share * weights.astype(np.float64).sum()
    found = _of_sum(room(weights), count, weights.max(), target)
    down = np.sort(weights)[::-1].astype(np.float64)
    exact = down[min(np.searchsorted(np.cumsum(down), target), count - 1)]
    if found != exact:  # the sums are added up in another order: only a hair may decide
        kept = weights[weights >= found].astype(np.float64).sum()
        assert abs(kept - weights[weights >= exact].sum()) < 2e-6 * down.sum()
    else:
        assert found == exact
