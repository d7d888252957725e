"""Exact quantiles and the sketch."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from numbatch.errors import InputError
from numbatch.kernels.statistics.bracket import SAMPLE, Bracket
from numbatch.kernels.statistics.digits import FEW
from numbatch.kernels.statistics.partition import FEW_TO_PARTITION, KEYS_A_RANK
from numbatch.kernels.statistics.quantiles import METHODS, OrderStatistics, median, quantile
from numbatch.kernels.statistics.sketch import QuantileSketch

QUANTILES = [0, 1e-9, 0.1, 0.25, 1 / 3, 0.5, 0.731, 0.99, 1]
floats32 = st.floats(width=32, allow_nan=False)
floats64 = st.floats(allow_nan=False)


def expected(values, quantiles, method):
    with np.errstate(invalid="ignore", over="ignore"):
        return np.quantile(np.asarray(values, np.float64), quantiles, method=method)


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(
        arrays(np.float32, st.integers(1, 60), elements=floats32),
        arrays(np.float64, st.integers(1, 60), elements=floats64),
        arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([-1.5, -0.0, 0.0, 2])),
    ),
    st.sampled_from(METHODS),
)
def test_quantiles_are_numpys(values, method):
    wanted = expected(values, QUANTILES, method)
    got = quantile(values, QUANTILES, method=method)
    finite = np.isfinite(wanted) & np.isfinite(got)  # NumPy has inf - inf between two infinities
    assert np.array_equal(got[finite], wanted[finite])
    assert not np.isnan(got[~np.isnan(wanted)]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [4 * KEYS_A_RANK, 12 * KEYS_A_RANK + 1, FEW_TO_PARTITION])
@pytest.mark.parametrize("ranks", [3, 6, 50, 2000])
def test_many_ranks_of_few_values(size, ranks, dtype):
    rng = np.random.default_rng(ranks)
    wanted = rng.random(ranks)
    wanted[:2] = 0, 1
    for values in (rng.normal(0, 1, size), rng.integers(0, 3, size), np.arange(size)):
        values = values.astype(dtype)
        got = quantile(values, wanted, method="lower")
        assert np.array_equal(got, np.quantile(values.astype(np.float64), wanted, method="lower"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1000, FEW_TO_PARTITION + 1, FEW + 1001])
def test_many_values(size, dtype):
    rng = np.random.default_rng(0)
    for values in (
        rng.normal(0, 1, size),
        rng.integers(0, 5, size),
        1 + rng.random(size) * 1e-6,
        np.exp(rng.normal(0, 50, size)).clip(0, 3e38),
        np.full(size, -7.5),
    ):
        values = values.astype(dtype)
        assert np.array_equal(quantile(values, QUANTILES), expected(values, QUANTILES, "linear"))
        assert np.array_equal(quantile(values, [0.9, 0.2]), expected(values, [0.9, 0.2], "linear"))
        assert median(values) == np.median(values.astype(np.float64))
        assert median(values[1:]) == np.median(values[1:].astype(np.float64))


@pytest.mark.parametrize("size", [3, FEW_TO_PARTITION + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_of_both_signs_are_in_order(dtype, size):
    """So that the bits of a quantile do not depend on the order of the values."""
    values = np.full(size, 0.0, dtype)
    values[: size // 2] = -0.0
    for order in (values, values[::-1], np.roll(values, 1)):
        assert np.signbit(quantile(order, 0.0))
        assert not np.signbit(quantile(order, 1.0))


def hard_orders(size):
    """Values that a sample at even distances is right about, wrong about, or of no use for."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, size)
    yield values
    yield np.sort(values)
    yield np.sort(values)[::-1]
    yield np.where(np.arange(size) % (size // SAMPLE) == (size // SAMPLE) // 2, 9.0, values)
    yield np.where(rng.random(size) < 0.6, 0.25, values)
    yield np.where(rng.random(size) < 0.5, -0.0, np.where(rng.random(size) < 0.5, 0.0, values))
    yield np.where(rng.random(size) < 0.01, np.inf, values) - values * (values > 3)
    yield np.concatenate([values[: size // 2], np.full(size - size // 2, -np.inf)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_few_quantiles_of_many_values(dtype):
    few = [0, 1e-6, 0.25, 0.5, 0.999, 1]
    for values in hard_orders(4 * FEW + 77):
        values = values.astype(dtype)
        # Between two infinities NumPy's "linear" has NaN.
        wanted = expected(values, few, "lower")
        assert np.array_equal(quantile(values, few, method="lower"), wanted)
        holed = values.copy()
        holed[:: SAMPLE // 7] = np.nan
        wanted = expected(holed[~np.isnan(holed)], few, "lower")
        assert np.array_equal(quantile(holed, few, "omit", "lower"), wanted)
        assert np.isnan(quantile(holed, few)).all()


def test_brackets_hold_what_they_say():
    values = np.random.default_rng(2).normal(0, 1, 2 * FEW + 5).astype(np.float32)
    values[::1000] = np.nan
    parts = [values[:FEW], values[FEW : FEW + 3], values[FEW + 3 :]]
    bracket = Bracket.around(parts, 0.75)
    ranks = np.arange(bracket.below, bracket.below + len(bracket.kept))
    assert bracket.nans == np.isnan(values).sum()
    assert bracket.holds(ranks).all()
    assert not bracket.holds(np.array([ranks[0] - 1, ranks[-1] + 1])).any()
    assert np.array_equal(np.sort(bracket.kept), np.sort(values[~np.isnan(values)])[ranks])
    assert Bracket.around([np.ones(2 * FEW)], 0.5) is None  # all values are near
    assert Bracket.around([np.full(2 * FEW, np.nan)], 0.5) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinities_and_nan_are_told_apart(dtype):
    values = np.array([np.inf, 1, -np.inf, np.inf, np.inf], dtype)
    assert quantile(values, [0, 0.25, 0.5, 1]).tolist() == [-np.inf, 1, np.inf, np.inf]
    for nan in (np.nan, -np.nan):
        mixed = np.append(values, np.array(nan, dtype))
        assert math.isnan(median(mixed))
        assert median(mixed, nan_policy="omit") == np.inf
        with pytest.raises(InputError, match="holds 1 NaN"):
            median(mixed, nan_policy="raise")


def test_shapes_and_empty_input():
    assert math.isnan(median([]))
    assert math.isnan(median([np.nan], nan_policy="omit"))
    assert median(3) == 3
    assert quantile([1, 2, 3], np.full((2, 3), 0.5)).tolist() == [[2, 2, 2]] * 2
    assert isinstance(quantile([1, 2], 0.5), float)
    assert quantile([1, 2], []).shape == (0,)
    readonly = np.arange(10.0)[::3]
    readonly.flags.writeable = False
    assert median(readonly) == 4.5


@pytest.mark.parametrize("bad", [-0.1, 1.5, math.nan])
def test_bad_quantiles_are_refused(bad):
    for state in (OrderStatistics(), QuantileSketch()):
        with pytest.raises(InputError, match="should be in \\[0, 1\\]"):
            state.update([1.0]).quantile([0.5, bad])
    with pytest.raises(InputError, match="method is 'best'"):
        quantile([1.0], 0.5, method="best")


def test_exact_quantiles_of_pieces():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 5000).astype(np.float32)
    pieces = OrderStatistics().update(values[:10])
    pieces.update(values[10:3000].astype(np.float64))
    pieces.merge(OrderStatistics().update(values[3000:]))
    assert np.array_equal(pieces.quantile(QUANTILES), quantile(values, QUANTILES))
    values[:] = 0  # the state kept its own copy
    assert pieces.quantile(1) > 3


@pytest.mark.parametrize("error", [0.3, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sketch_keeps_its_stated_error(error, dtype):
    rng = np.random.default_rng(0)
    q = np.linspace(0, 1, 501)
    for values in (
        rng.normal(3, 2, 20_000),
        np.exp(rng.normal(0, 15, 20_000)),
        -np.exp(np.linspace(-80, 80, 20_000)),
        2.0 ** rng.integers(-30, 30, 20_000),
        1 + rng.random(20_000),
    ):
        values = values.astype(dtype)
        wanted = np.quantile(values.astype(np.float64), q, method="lower")
        got = QuantileSketch(error).update(values).quantile(q)
        assert np.all(np.abs(got - wanted) <= error * np.abs(wanted) * (1 + 1e-9))


def test_the_sketch_covers_the_whole_range():
    limits = np.finfo(np.float64)
    values = np.array([limits.max, limits.tiny, -limits.max, -limits.tiny, 0, 5e-324, np.inf])
    for value in values:
        got = QuantileSketch().update(value).quantile(0.5)
        wanted = 0 if abs(value) < limits.tiny else value
        assert got == wanted or abs(got / wanted - 1) <= 0.0100001
    assert QuantileSketch().update([-np.inf, 1, np.inf]).quantile([0, 1]).tolist() == [
        -np.inf,
        np.inf,
    ]


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, st.integers(0, 40), elements=st.floats()), st.integers(0, 40))
def test_sketches_of_pieces_are_the_sketch_of_all(values, cut):
    whole = QuantileSketch(nan_policy="omit").update(values)
    merged = QuantileSketch(nan_policy="omit").update(values[cut:])
    merged.merge(QuantileSketch(nan_policy="omit").update(values[:cut]))
    assert merged.count == whole.count == np.count_nonzero(~np.isnan(values))
    assert merged.nans == whole.nans
    assert merged.quantile(QUANTILES).tobytes() == whole.quantile(QUANTILES).tobytes()


def test_the_sketch_refuses_what_it_cannot_do():
    assert math.isnan(QuantileSketch().quantile(0.5))
    assert math.isnan(QuantileSketch().update([1, np.nan]).quantile(0.5))
    with pytest.raises(InputError, match="holds 1 NaN"):
        QuantileSketch(nan_policy="raise").update([np.nan])
    with pytest.raises(InputError, match="relative_error is 0"):
        QuantileSketch(0)
    with pytest.raises(InputError, match=r"relative errors 0\.01 and 0\.02"):
        QuantileSketch(0.01).merge(QuantileSketch(0.02))
