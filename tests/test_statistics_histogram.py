"""Histograms and the reductions of rows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from numbatch.errors import InputError
from numbatch.kernels import statistics
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.statistics.histogram import Histogram, histogram

numbers = st.one_of(
    st.floats(-12, 12), st.floats(), st.sampled_from([-10.0, 0.1, 0.3, 10.0, np.nextafter(0.3, 0)])
)


@settings(deadline=None, max_examples=150)
@given(arrays(np.float64, st.integers(0, 80), elements=numbers), st.integers(1, 40))
def test_linear_bins_are_numpys(values, bins):
    finite = values[~np.isnan(values)]
    made = Histogram.linear(-10, 10, bins).update(values)
    wanted, edges = np.histogram(finite, bins, (-10, 10))
    assert np.array_equal(made.edges, edges)
    assert made.counts.tolist() == wanted.tolist()
    assert made.below == np.count_nonzero(values < -10)
    assert made.above == np.count_nonzero(values > 10)
    assert made.nans == np.count_nonzero(np.isnan(values))


edge_lists = st.one_of(
    st.lists(st.floats(-12, 12), min_size=2, max_size=40, unique=True),
    st.lists(st.floats(1, 1.0001), min_size=10, max_size=40, unique=True),  # bisection
)


@settings(deadline=None, max_examples=150)
@given(arrays(np.float64, st.integers(0, 80), elements=numbers), edge_lists)
def test_bins_between_given_edges_are_numpys(values, edges):
    edges = np.unique(np.array(edges) + 0.0)
    if len(edges) < 2:
        return
    values = np.concatenate([values, edges, np.nextafter(edges, -np.inf), -values])
    finite = values[~np.isnan(values)]
    made = Histogram(edges).update(values)
    assert made.counts.tolist() == np.histogram(finite, edges)[0].tolist()
    assert made.below == np.count_nonzero(values < edges[0])
    assert made.above == np.count_nonzero(values > edges[-1])
    assert made.nans == np.count_nonzero(np.isnan(values))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithmic_bins(dtype):
    values = np.exp(np.random.default_rng(0).normal(0, 2, 5000)).astype(dtype)
    counts, edges = histogram(values, 30, (0.01, 100), scale="log")
    assert np.array_equal(edges, np.geomspace(0.01, 100, 31))
    assert counts.tolist() == np.histogram(values.astype(np.float64), edges)[0].tolist()
    counts, edges = histogram(values, 7, scale="log")
    assert counts.sum() == 5000
    assert (edges[0], edges[-1]) == (values.min(), values.max())


def test_the_default_range_is_that_of_the_values():
    values = np.random.default_rng(0).normal(0, 1, 1000)
    for sample in (values, np.append(values, np.nan)):
        counts, edges = histogram(sample, 20)
        wanted, wanted_edges = np.histogram(values, 20)
        assert np.array_equal(edges, wanted_edges)
        assert counts.tolist() == wanted.tolist()
    assert histogram([], 4)[1].tolist() == np.histogram([], 4)[1].tolist()
    assert histogram([2, 2], 3)[0].tolist() == [0, 2, 0]
    assert histogram([1, 2, 3], [1, 2, 3])[0].tolist() == [1, 2]
    assert histogram([4, 4], 2, scale="log")[1] == pytest.approx([2, 4, 8])


@pytest.mark.parametrize("edges", [[0, 1, 2, 3], [0, 1, 10]])
def test_pieces_are_counted_as_one(edges):
    values = np.random.default_rng(0).normal(1, 2, 3000)
    whole = Histogram(edges).update(values)
    merged = Histogram(edges).update(values[2000:])
    merged.merge(Histogram(edges).update(values[:777]).update(values[777:2000]))
    assert np.array_equal(merged._counts.sum(0), whole._counts.sum(0))
    with pytest.raises(InputError, match="different edges"):
        whole.merge(Histogram([0, 1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Histogram([1]), "at least 2 in a row"),
        (lambda: Histogram([[0, 1]]), "at least 2 in a row"),
        (lambda: Histogram([0, 2, 2]), "edge 2 is 2.0, should be greater than edge 1, 2.0"),
        (lambda: Histogram([0, 2, 1]), "edge 2 is 1.0, should be greater than edge 1, 2.0"),
        (lambda: Histogram([0, np.nan]), "not a finite"),
        (lambda: Histogram.linear(1, 0, 3), "the range is 1 to 0"),
        (lambda: Histogram.linear(0, 1, 0), "bins is 0"),
        (lambda: histogram([1], 2.5), "bins is 2.5, should be a whole number"),
        (lambda: histogram([1], "auto"), "bins is 'auto', should be a whole number"),
        (lambda: Histogram.logarithmic(0, 1, 3), "low is 0"),
        (lambda: histogram([1], scale="cubic"), "scale is 'cubic'"),
        (lambda: histogram([1, np.inf]), "the range is 1.0 to inf, should be finite and increase"),
        (lambda: histogram([1], 3, (4, 0)), "the range is 4 to 0, should be finite and increase"),
        (lambda: histogram([1], 3, (1, np.nan), "log"), "the range is 1 to nan"),
        (lambda: histogram([np.nan], range=(0, 1), nan_policy="raise"), "holds 1 NaN"),
    ],
)
def test_bad_edges_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


REDUCTIONS = {
    statistics.segment_sum: lambda row: math.fsum(row),
    statistics.segment_mean: lambda row: math.fsum(row) / len(row) if len(row) else math.nan,
    statistics.segment_min: lambda row: min(row, default=math.nan),
    statistics.segment_max: lambda row: max(row, default=math.nan),
    statistics.segment_perplexity: lambda row: (
        math.exp(-math.fsum(row) / len(row)) if len(row) else math.nan
    ),
}


def ragged_sample(dtype=np.float64):
    rng = np.random.default_rng(0)
    lengths = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 1000, 0, 5000]
    return Ragged.from_rows([rng.normal(-2, 1, n) for n in lengths], dtype)


@pytest.mark.parametrize("function", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_reduced_one_by_one(function, dtype):
    ragged = ragged_sample(dtype)
    wanted = [REDUCTIONS[function](row.tolist()) for row in ragged]
    got = function(ragged)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    out = np.empty(len(ragged))
    assert function(ragged, out=out, threads=3) is out
    assert out.tobytes() == got.tobytes()
    alone = [function(Ragged.from_rows([row], dtype))[0] for row in ragged]
    assert np.array(alone).tobytes() == got.tobytes()


@pytest.mark.parametrize("function", REDUCTIONS)
def test_nan_in_rows(function):
    rows = [[1.0, np.nan, 3.0], [2.0], [np.nan] * 9, [], [np.nan, *range(40)]]
    ragged = Ragged.from_rows(rows, np.float64)
    got = function(ragged)
    assert np.isnan(got[[0, 2, 4]]).all()
    kept = [[x for x in row if x == x] for row in rows]
    wanted = [REDUCTIONS[function](row) for row in kept]
    np.testing.assert_allclose(function(ragged, nan_policy="omit"), wanted, rtol=1e-12)
    with pytest.raises(InputError, match="row 0 holds a NaN"):
        function(ragged, nan_policy="raise")


def test_infinities_in_rows():
    ragged = Ragged.from_rows([[np.inf, -np.inf, 1], [-np.inf, 1]], np.float32)
    np.testing.assert_array_equal(statistics.segment_sum(ragged), [np.nan, -np.inf])
    np.testing.assert_array_equal(statistics.segment_min(ragged), [-np.inf, -np.inf])
    np.testing.assert_array_equal(statistics.segment_max(ragged), [np.inf, 1])


def test_rows_of_other_types():
    assert statistics.segment_sum(Ragged.from_rows([[1, 2], []], np.int64)).tolist() == [3, 0]
    assert statistics.segment_min(Ragged.from_rows([], np.float32)).shape == (0,)
    with pytest.raises(InputError, match="dtype complex128"):
        statistics.segment_sum(Ragged.from_rows([[1j]], np.complex128))
    with pytest.raises(InputError, match="out is float32 of shape \\(1,\\)"):
        statistics.segment_sum(Ragged.from_rows([[1]], np.int8), out=np.empty(1, np.float32))
    out = np.empty(1)
    out.flags.writeable = False
    with pytest.raises(InputError, match="out is read-only"):
        statistics.segment_sum(Ragged.from_rows([[1]], np.int8), out=out)
