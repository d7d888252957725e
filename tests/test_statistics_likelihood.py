"""Log-probabilities, intervals, paired tests, correlation and calibration."""

import math

import naive_statistics as naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.errors import InputError
from numbatch.kernels import statistics
from numbatch.kernels.statistics.bootstrap import bootstrap_interval, resample_places
from numbatch.kernels.statistics.calibration import Calibration
from numbatch.kernels.statistics.likelihood import Entropy, Likelihood, LogSumExp
from numbatch.kernels.statistics.samples import PairedSample, Sample

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 3, 2048, 5000])
def test_logsumexp(size, dtype):
    values = (RNG.normal(0, 100, size) + 1000).astype(dtype)
    assert statistics.logsumexp(values) == pytest.approx(naive.logsumexp(values.tolist()), 1e-14)


def test_logsumexp_of_hard_input():
    assert statistics.logsumexp([]) == -np.inf
    assert statistics.logsumexp([-np.inf] * 5000) == -np.inf
    assert statistics.logsumexp([np.inf, 0, np.inf]) == np.inf
    assert statistics.logsumexp([*[0] * 3000, np.inf]) == np.inf
    assert statistics.logsumexp([-np.inf, 2.0]) == 2
    assert statistics.logsumexp([*[-np.inf] * 3000, 2.0]) == 2
    assert statistics.logsumexp([1e308, 1e308]) == 1e308
    assert math.isnan(statistics.logsumexp([1, np.nan]))
    assert statistics.logsumexp([1, np.nan], nan_policy="omit") == 1
    assert LogSumExp().update([0, 0]).merge(LogSumExp().update([0, 0])).value == math.log(4)


def test_entropy():
    weights = RNG.random(3000)
    assert statistics.entropy(weights) == pytest.approx(naive.entropy(weights.tolist()), 1e-13)
    assert statistics.entropy([0.25] * 4) == pytest.approx(math.log(4))
    assert statistics.entropy([0, 5]) == 0
    assert math.isnan(statistics.entropy([]))
    assert math.isnan(statistics.entropy([0, 0]))
    assert math.isnan(statistics.entropy([1, np.nan]))
    assert statistics.entropy([1, 1, np.nan], nan_policy="omit") == pytest.approx(math.log(2))
    for bad in (-0.5, np.inf):
        with pytest.raises(InputError, match=f"a probability is {bad}"):
            statistics.entropy([1, bad])


def test_entropy_of_pieces():
    weights = RNG.random(7000).astype(np.float32)
    weights[5] = np.nan
    for policy in ("omit", "propagate"):
        whole = statistics.entropy(weights, policy)
        pieces = Entropy(policy).update(weights[:10]).update(weights[10:4000])
        pieces.merge(Entropy(policy, start=4000).update(weights[4000:]))
        np.testing.assert_equal(pieces.value, whole)
        assert (pieces.count, pieces.nans) == (6999, 1)
    state = Entropy("raise").update(weights[6:])
    before = state.value
    for bad, message in ((weights, "holds 1 NaN"), ([1, -0.5], "a probability is -0.5")):
        with pytest.raises(InputError, match=message):
            state.update(bad)
        assert state.value == before
    assert math.isnan(Entropy().value)


def test_perplexity_and_bits_per_byte():
    logprobs = np.full(10, -math.log(8))
    assert statistics.perplexity(logprobs) == pytest.approx(8)
    assert statistics.bits_per_byte(logprobs, 15) == pytest.approx(2)
    assert statistics.perplexity([-1e6]) == np.inf
    assert statistics.perplexity([-np.inf, 0]) == np.inf
    assert math.isnan(statistics.perplexity([]))
    for bad in (0, -3):
        with pytest.raises(InputError, match=f"bytes is {bad}"):
            statistics.bits_per_byte(logprobs, bad)
    with pytest.raises(InputError, match="bytes is -1"):
        Likelihood().add(logprobs, -1)
    with pytest.raises(InputError, match=r"bytes is 1\.5, should be a whole"):
        statistics.bits_per_byte(logprobs, 1.5)


def test_likelihood_of_pieces():
    logprobs = -RNG.exponential(2, 5000).astype(np.float32)
    whole = Likelihood().add(logprobs, 20_000)
    merged = Likelihood().add(logprobs[:1000], 5000).add(logprobs[1000:3000], 5000)
    merged.merge(Likelihood(start=3000).add(logprobs[3000:], 10_000))
    assert merged.perplexity == whole.perplexity
    assert merged.bits_per_byte == whole.bits_per_byte
    assert math.isnan(Likelihood().bits_per_byte)


def test_resamples_are_uniform_and_the_same_for_any_number_of_threads():
    places = resample_places(10, 5000, seed=1)
    counts = np.bincount(places.ravel(), minlength=10)
    assert len(counts) == 10
    assert np.sum((counts - 5000) ** 2 / 5000) < 30  # chi-squared, 9 degrees: p = 0.0004
    assert np.array_equal(places, resample_places(10, 5000, seed=1, threads=3))
    assert not np.array_equal(places, resample_places(10, 5000, seed=2))


def test_bootstrap_intervals():
    values = RNG.normal(5, 2, 400)
    interval = bootstrap_interval(values, resamples=4000, seed=3)
    half = 1.96 * values.std() / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05)
    assert interval == bootstrap_interval(values, resamples=4000, seed=3, threads=2)
    slow = bootstrap_interval(values, np.mean, resamples=4000, seed=3)
    assert (slow.low, slow.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    wide = bootstrap_interval(values, confidence=0.999, resamples=4000, seed=3)
    assert wide.low < interval.low < interval.high < wide.high
    assert bootstrap_interval([4]).low == bootstrap_interval([4]).high == 4


def test_bootstrap_of_bad_input():
    assert math.isnan(bootstrap_interval([]).low)
    assert math.isnan(bootstrap_interval([1, np.nan]).estimate)
    assert bootstrap_interval([1, np.nan], nan_policy="omit").estimate == 1
    for name, bad in (("confidence", 1), ("confidence", 0), ("resamples", 0), ("seed", -1)):
        with pytest.raises(InputError, match=f"{name} is {bad}"):
            bootstrap_interval([1, 2], **{name: bad})


def test_samples_in_pieces_are_those_of_one_array():
    a, b = RNG.normal(0, 1, 300), RNG.normal(0.2, 1, 300).astype(np.float32)
    sample = Sample().update(a[:100]).merge(Sample().update(a[100:299])).update(a[299])
    assert sample.size == 300
    assert sample.bootstrap_interval(seed=3) == bootstrap_interval(a, seed=3)
    assert sample.bootstrap_interval(np.median, 0.9, 50) == bootstrap_interval(
        a, np.median, 0.9, 50
    )
    pairs = PairedSample().update(a[:7], b[:7])
    pairs.merge(PairedSample().update(a[7:], b[7:]))
    a[:] = 0  # the state kept its own copy
    a = sample._column(0)
    assert pairs.permutation_test(500, "less", 1) == statistics.permutation_test(
        a, b, 500, "less", 1
    )
    assert pairs.sign_test("greater") == statistics.sign_test(a, b, "greater")
    assert pairs.spearman() == statistics.spearman(a, b)


def test_samples_of_hard_input():
    assert math.isnan(Sample().bootstrap_interval().estimate)
    assert math.isnan(PairedSample().permutation_test().p_value)
    with_nan = Sample("omit").update([1, np.nan])
    assert with_nan.bootstrap_interval().estimate == 1
    assert math.isnan(PairedSample().update([1, np.nan], [0, 1]).sign_test().p_value)
    with pytest.raises(InputError, match="holds 1 NaN"):
        PairedSample("raise").update([np.nan], [1]).spearman()
    with pytest.raises(InputError, match="a has shape \\(2,\\), b \\(3,\\)"):
        PairedSample().update([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="should have the same"):
        Sample().merge(with_nan)
    with pytest.raises(InputError, match="'ignore', should be"):
        Sample("ignore")


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_permutations_of_few_pairs_are_counted(alternative):
    a, b = RNG.normal(0.4, 1, 10), RNG.normal(0, 1, 10)
    exact = statistics.permutation_test(a, b, alternative=alternative)
    assert exact.exact
    assert exact.pairs == 10
    assert exact.difference == pytest.approx((a - b).mean())
    assert exact.p_value == pytest.approx(naive.permutation_p(a, b, alternative))
    sampled = statistics.permutation_test(a, b, 1000, alternative, seed=5)
    assert not sampled.exact
    assert sampled.p_value == pytest.approx(exact.p_value, abs=0.06)


def test_sampled_permutations():
    a = RNG.normal(0, 1, 300)
    test = statistics.permutation_test(a + 1, a + RNG.normal(0, 0.1, 300), seed=1)
    assert test.p_value == 1 / 10_001
    noise = RNG.normal(0, 1, 300)
    once = statistics.permutation_test(a, noise, seed=1, threads=1)
    assert once == statistics.permutation_test(a, noise, seed=1, threads=3)
    assert once.p_value != statistics.permutation_test(a, noise, seed=2).p_value


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_signs(alternative):
    a, b = [1, 1, 1, 1, 1, 0, 3], [0, 0, 0, 0, 0, 1, 3]
    wanted = {
        "two-sided": 2 * naive.binomial_tail(5, 6),
        "greater": naive.binomial_tail(5, 6),
        "less": naive.binomial_tail(1, 6),
    }[alternative]
    test = statistics.sign_test(a, b, alternative)
    assert test.p_value == pytest.approx(wanted)
    assert test.pairs == 6


def test_paired_tests_of_hard_input():
    for function in (statistics.permutation_test, statistics.sign_test):
        assert math.isnan(function([], []).p_value)
        assert math.isnan(function([1, np.nan], [1, 2]).p_value)
        assert function([1, np.nan], [1, 2], nan_policy="omit").p_value == 1
        assert function([2, 2], [2, 2]).p_value == 1
        with pytest.raises(InputError, match="a has shape \\(2,\\), b \\(3,\\)"):
            function([1, 2], [1, 2, 3])
        with pytest.raises(InputError, match="alternative is 'more'"):
            function([1], [2], alternative="more")
        with pytest.raises(InputError, match="holds 1 NaN"):
            function([np.nan], [2], nan_policy="raise")
    assert math.isnan(statistics.permutation_test([np.inf, 1], [0, np.inf]).p_value)
    assert math.isnan(statistics.sign_test([np.inf, 1], [np.inf, 2]).p_value)


def test_correlation():
    x = RNG.normal(0, 1, 5000)
    y = 0.5 * x + RNG.normal(0, 1, 5000)
    assert statistics.pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    assert statistics.pearson(x.astype(np.float32), y) == pytest.approx(
        np.corrcoef(x.astype(np.float32), y)[0, 1], rel=1e-12
    )
    assert statistics.pearson(x, -3 * x) == pytest.approx(-1)
    with_nan = np.where(np.arange(5000) % 7 == 0, np.nan, x)
    assert math.isnan(statistics.pearson(with_nan, y))
    kept = ~np.isnan(with_nan)
    assert statistics.pearson(with_nan, y, nan_policy="omit") == pytest.approx(
        np.corrcoef(x[kept], y[kept])[0, 1], rel=1e-12
    )
    state = statistics.Correlation().update(x, y)
    assert state.covariance == pytest.approx(np.cov(x, y, ddof=0)[0, 1])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=3, max_size=30))
def test_rank_correlation(pairs):
    x, y = zip(*pairs, strict=True)
    got = statistics.spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(got)
    else:
        ranks = naive.average_ranks(x), naive.average_ranks(y)
        assert got == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


def test_correlation_of_hard_input():
    for function in (statistics.pearson, statistics.spearman):
        assert math.isnan(function([], []))
        assert math.isnan(function([1], [2]))
        assert math.isnan(function([1, 1], [2, 3]))
        assert math.isnan(function([1, 2, np.nan], [2, 3, 4]))
        assert function([1, 2, np.nan], [2, 3, 4], nan_policy="omit") == pytest.approx(1)
        with pytest.raises(InputError, match="should be arrays of one shape"):
            function([1, 2], [1, 2, 3])
        with pytest.raises(InputError, match="holds 1 NaN"):
            function([1, np.nan], [2, 3], nan_policy="raise")


def test_correlation_whose_squares_overflow_is_nan():
    assert math.isnan(statistics.pearson([1e200, 2e200, 3e200], [3e200, 1e200, 2e200]))
    assert math.isnan(statistics.pearson([1, 2, 3], [0, 1e308, -1e308]))


def test_pairs_that_are_refused_leave_the_state_as_it_was():
    state = statistics.Correlation("raise").update([1, 2], [3, 5])
    x = np.arange(40_000.0)
    x[-1] = np.nan
    with pytest.raises(InputError, match="holds 1 NaN"):
        state.update(x, x)
    assert state.count == 2


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration(bins):
    confidences = np.append(RNG.random(500), [0, 1, 0.5, 0.25, 0.75])
    correct = RNG.random(505) < confidences**2
    wanted = naive.calibration_error(confidences, correct, bins)
    assert statistics.calibration_error(confidences, correct, bins) == pytest.approx(
        wanted, abs=1e-9
    )
    whole = Calibration(bins).update(confidences, correct)
    merged = Calibration(bins).update(confidences[300:], correct[300:].astype(int))
    merged.merge(Calibration(bins).update(confidences[:300], correct[:300]))
    assert merged.expected_error == whole.expected_error
    assert merged.max_error == whole.max_error >= whole.expected_error
    assert merged.counts.tolist() == whole.counts.tolist()


def test_calibration_of_hard_input():
    assert math.isnan(statistics.calibration_error([], []))
    assert math.isnan(Calibration().max_error)
    assert math.isnan(statistics.calibration_error([0.5, np.nan], [1, 1]))
    assert statistics.calibration_error([1, np.nan], [1, 1], nan_policy="omit") == 0
    for confidences, correct, message in (
        ([1.5], [1], "a confidence is 1.5"),
        ([0.5], [2], "correct holds 2.0"),
        ([0.5], [1, 0], "should have the same"),
    ):
        with pytest.raises(InputError, match=message):
            statistics.calibration_error(confidences, correct)
    with pytest.raises(InputError, match="bins is 0"):
        Calibration(0)
    with pytest.raises(InputError, match="3 and 4 bins"):
        Calibration(3).merge(Calibration(4))
    with pytest.raises(InputError, match="holds 1 NaN"):
        statistics.calibration_error([np.nan], [1], nan_policy="raise")
