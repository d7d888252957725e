"""Moments, sums and the block tree under them."""

import math
import re
from itertools import pairwise

import naive_statistics as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.errors import InputError
from numbatch.kernels import statistics
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.correlation import Correlation
from numbatch.kernels.statistics.likelihood import LogSumExp
from numbatch.kernels.statistics.moments import Moments
from numbatch.kernels.statistics.sums import RunningSum

TYPES = [np.float32, np.float64]


def results(state):
    """Everything a state says, as bits."""
    if isinstance(state, Correlation):
        numbers = [state.count, state.nans, state.pearson, state.covariance]
    elif isinstance(state, LogSumExp):
        numbers = [state.count, state.nans, state.value]
    elif isinstance(state, RunningSum):
        numbers = [state.count, state.nans, state.sum, state.mean]
    else:
        numbers = [state.count, state.nans, state.sum, state.mean, state.min, state.max]
        numbers += [state.variance(), state.std(1), state.skewness, state.kurtosis]
    return np.array(numbers, np.float64).tobytes()


def sample(size, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(0.3, 1, size) * np.exp(rng.normal(0, 3, size))).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 31, 33, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_moments_are_those_of_exact_arithmetic(size, dtype):
    values = sample(size, dtype)
    mean, m2, m3, m4 = naive.exact_moments(values)
    moments = Moments().update(values)
    assert moments.count == size
    assert moments.nans == 0
    assert moments.mean == pytest.approx(mean, rel=1e-13, abs=1e-14)
    assert moments.sum == pytest.approx(math.fsum(values.tolist()), rel=1e-13)
    assert moments.variance() == pytest.approx(m2 / size, rel=1e-13)
    assert (moments.min, moments.max) == (values.min(), values.max())
    if size > 2:
        assert moments.variance(ddof=1) == pytest.approx(m2 / (size - 1), rel=1e-13)
        assert moments.skewness == pytest.approx(math.sqrt(size) * m3 / m2**1.5, rel=1e-11)
        assert moments.kurtosis == pytest.approx(size * m4 / m2**2 - 3, rel=1e-11)


def test_nothing_cancels_where_the_mean_is_large():
    values = 1e9 + np.random.default_rng(0).normal(0, 1, 10_000)
    _, m2, m3, m4 = naive.exact_moments(values)
    moments = Moments().update(values)
    assert moments.variance() == pytest.approx(m2 / 10_000, rel=1e-9)
    assert moments.skewness == pytest.approx(100 * m3 / m2**1.5, rel=1e-6)
    assert moments.kurtosis == pytest.approx(10_000 * m4 / m2**2 - 3, rel=1e-6)


@pytest.mark.parametrize("size", [2, 5000, 2 * BLOCK, 37 * BLOCK, 45 * BLOCK + 3])
def test_functions_give_the_bits_of_the_states(size):
    values = sample(size, np.float32)
    moments = Moments().update(values)
    assert statistics.mean(values) == moments.mean == RunningSum().update(values).mean
    assert statistics.total(values) == moments.sum
    assert statistics.variance(values, 1) == moments.variance(1)
    assert statistics.std(values) == moments.std()
    assert statistics.skewness(values) == moments.skewness
    assert statistics.kurtosis(values, threads=2) == moments.kurtosis
    assert statistics.extremes(values) == (moments.min, moments.max)
    assert statistics.logsumexp(values, threads=3) == LogSumExp().update(values).value


STATES = [Moments, RunningSum, LogSumExp]
cuts = st.lists(st.integers(0, 9 * BLOCK), max_size=8)


@settings(deadline=None, max_examples=60)
@given(cuts, st.sampled_from(STATES), st.sampled_from(TYPES), st.integers(1, 9 * BLOCK))
def test_pieces_give_the_bits_of_one_piece(places, kind, dtype, size):
    values = sample(size, dtype)
    if size % 3 == 0:
        values[:: max(1, size // 7)] = np.nan
    bounds = [0, *sorted(min(place, size) for place in places), size]
    whole = kind("omit").update(values)
    pieces = kind("omit")
    parts = kind("omit")
    for low, high in pairwise(bounds):
        pieces.update(values[low:high])
        parts.merge(kind("omit", start=low).update(values[low:high]))
    assert results(pieces) == results(whole)
    assert results(parts) == results(whole)


@settings(deadline=None, max_examples=30)
@given(cuts, st.integers(2, 9 * BLOCK), st.integers(0, 3 * BLOCK))
def test_parts_merge_in_any_grouping(places, size, start):
    """((a b) c) and (a (b c)), at any place of a longer stream."""
    values = sample(size)
    bounds = [0, *sorted(min(place, size) for place in places), size]
    parts = [Moments(start=start + low).update(values[low:high]) for low, high in pairwise(bounds)]
    backwards = parts[-1]
    for part in reversed(parts[:-1]):
        backwards = part.merge(backwards)
    assert results(backwards) == results(Moments(start=start).update(values))


def test_pairs_in_pieces_give_the_bits_of_one_piece():
    x, y = sample(7000, seed=1), sample(7000, seed=2)
    whole = Correlation().update(x, y)
    pieces = Correlation()
    for low in range(0, 7000, 999):
        part = slice(low, low + 999)
        pieces.merge(Correlation(start=low).update(x[part], y[part]))
    assert results(pieces) == results(whole)


def test_parts_without_a_place_merge_up_to_rounding():
    values = sample(3 * BLOCK)
    merged = Moments().update(values[:100])
    merged.merge(Moments().update(values[100:5000])).merge(Moments().update(values[5000:]))
    whole = Moments().update(values)
    assert merged.count == whole.count
    assert (merged.min, merged.max) == (whole.min, whole.max)
    assert merged.variance() == pytest.approx(whole.variance(), rel=1e-12)
    assert merged.kurtosis == pytest.approx(whole.kurtosis, rel=1e-12)
    assert Moments().merge(Moments().update(values)).mean == whole.mean
    assert Moments().update(values).merge(Moments()).mean == whole.mean


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads):
    values = sample(50 * BLOCK + 17, np.float32)
    assert results(Moments(threads=threads).update(values)) == results(Moments().update(values))


def test_nan_policies():
    values = np.array([1.0, np.nan, 3.0])
    propagate = Moments().update(values)
    assert (propagate.count, propagate.nans) == (2, 1)
    for number in (propagate.mean, propagate.sum, propagate.min, propagate.std()):
        assert math.isnan(number)
    omit = Moments("omit").update(values)
    assert (omit.mean, omit.sum, omit.min, omit.max, omit.variance()) == (2, 4, 1, 3, 1)
    strict = Moments("raise")
    with pytest.raises(InputError, match="holds 1 NaN"):
        strict.update(values)
    assert strict.count == 0
    with pytest.raises(InputError, match="'ignore', should be 'propagate'"):
        Moments("ignore")
    with pytest.raises(InputError, match="should have the same"):
        Moments("omit").merge(Moments("raise"))


@pytest.mark.parametrize("function", [statistics.mean, statistics.variance, statistics.skewness])
def test_nothing_and_nan_alone_have_no_mean(function):
    assert math.isnan(function([]))
    assert math.isnan(function(np.full(10, np.nan), nan_policy="omit"))


def test_empty_and_single():
    assert statistics.total([]) == 0
    assert Moments().count == 0
    assert math.isnan(Moments().min)
    one = Moments().update(5)
    assert (one.mean, one.variance(), one.min, one.max) == (5, 0, 5, 5)
    assert math.isnan(one.variance(ddof=1))
    assert math.isnan(one.skewness)
    with pytest.raises(InputError, match="there are no values"):
        statistics.extremes([])
    assert all(map(math.isnan, statistics.extremes([np.nan], nan_policy="omit")))
    assert statistics.extremes([np.nan, 2], nan_policy="omit") == (2, 2)
    assert math.isnan(statistics.extremes([np.nan, 2])[0])


@pytest.mark.parametrize("size", [3, 100, 5000])
def test_infinities_do_what_they_do_in_numpy(size):
    values = np.ones(size)
    values[1] = np.inf
    moments = Moments().update(values)
    assert (moments.sum, moments.mean, moments.max) == (np.inf, np.inf, np.inf)
    assert math.isnan(moments.variance())
    values[size - 1] = -np.inf
    assert math.isnan(statistics.mean(values))
    assert statistics.extremes(values) == (-np.inf, np.inf)
    assert Moments().update(values).nans == 0


def test_arrays_of_any_layout_and_type():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    readonly = base.copy()
    readonly.flags.writeable = False
    for values in (base, base.T, base[::-1], np.asfortranarray(base), readonly, base.tolist()):
        assert Moments().update(values).mean == 11.5
    assert statistics.mean(base[:, ::2]) == base[:, ::2].mean()
    assert statistics.mean(base.astype(">f8")) == 11.5
    for dtype in (np.float16, np.int8, np.uint16, np.int64, np.uint64):
        assert statistics.mean(base.astype(dtype)) == 11.5
    assert statistics.mean([True, False]) == 0.5


def test_integers_do_not_overflow_and_inexact_ones_are_refused():
    assert statistics.total(np.full(1000, 2**31 - 1, np.int32)) == 1000 * (2**31 - 1)
    assert statistics.total(np.full(3000, 2**53, np.int64)) == 3000 * 2**53
    for values in (np.array([2**53 + 1]), np.array([-(2**63)]), np.array([2**64 - 1], np.uint64)):
        with pytest.raises(InputError, match="int64 and holds magnitudes up to"):
            statistics.mean(values)


def test_masks_are_not_lost():
    masked = np.ma.array([1.0, 50.0], mask=[False, True])
    for function in (statistics.mean, statistics.quantile, statistics.bootstrap_interval):
        args = (0.5,) if function is statistics.quantile else ()
        with pytest.raises(InputError, match="values is a masked array"):
            function(masked, *args)
    for function in (statistics.sign_test, statistics.permutation_test, statistics.pearson):
        with pytest.raises(InputError, match=r"[by] is a masked array"):
            function([1.0, 2.0], masked)
    assert statistics.mean(masked.compressed()) == 1


@pytest.mark.parametrize(
    "make",
    [
        statistics.Moments,
        statistics.RunningSum,
        statistics.OrderStatistics,
        statistics.LogSumExp,
        statistics.Entropy,
        statistics.Likelihood,
        statistics.Correlation,
        statistics.Sample,
        statistics.PairedSample,
        lambda **policy: statistics.QuantileSketch(**policy),
        lambda **policy: statistics.Histogram([0, 1], **policy),
        lambda **policy: statistics.Calibration(**policy),
    ],
)
def test_states_of_different_policies_do_not_merge(make):
    with pytest.raises(InputError, match="have nan_policy 'omit' and 'raise'"):
        make(nan_policy="omit").merge(make(nan_policy="raise"))


@pytest.mark.parametrize("values", [["a"], [1j], [None], np.zeros(1, "M8[s]"), np.longdouble(1)])
def test_other_types_are_refused_by_name(values):
    dtype = np.asarray(values).dtype.name
    with pytest.raises(InputError, match=re.escape(f"values has dtype {dtype}, should be float32")):
        statistics.mean(values)


def test_parameters_are_checked():
    with pytest.raises(InputError, match="start is -1"):
        Moments(start=-1)
    with pytest.raises(InputError, match="threads is 0"):
        Moments(threads=0)
