"""Statistics on a simulated GPU; run by test_cuda_statistics.py."""

import itertools

import numpy as np
import pytest

from numbatch import statistics
from numbatch.batching.measure import measure_operation
from numbatch.errors import InputError
from numbatch.kernels.cuda import cuda, cuda_kernel, is_simulated
from numbatch.kernels.device_arrays import blocks_for, gpu_of, shared_gpu
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.statistics import likelihood, moments
from numbatch.kernels.statistics.block_tree import BLOCK
from numbatch.kernels.statistics.cuda import bracket_sample, brackets, select
from numbatch.kernels.statistics.cuda.counters import add_counters, clear
from numbatch.kernels.statistics.cuda.logs import logs_kernel
from numbatch.kernels.statistics.cuda.moments import moments_kernel
from numbatch.kernels.statistics.cuda.sums import THREADS, WARPS
from numbatch.kernels.statistics.cuda.tree import MARKS
from numbatch.kernels.statistics.sketch import A, B, C

DTYPES = ("float32", "float64")


@pytest.fixture(scope="module")
def gpu():
    return shared_gpu()


def numbers(size, dtype, seed=0):
    return (np.random.default_rng(seed).standard_normal(size) * 3 + 1).astype(dtype)


def test_functions_of_one_device_share_a_stream(gpu):
    assert shared_gpu(0) is gpu
    assert gpu_of(gpu.upload(np.ones(2)), "values") is gpu


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_have_the_bits_of_the_cpu(gpu, dtype):
    for size, strange in ((0, ()), (5, ()), (BLOCK * 3 + 17, ()), (BLOCK * 2, (np.nan, np.inf))):
        values = numbers(size, dtype)
        values[3 : 3 + len(strange)] = strange
        here = statistics.RunningSum("omit").update(values)
        there = statistics.RunningSum("omit").update(gpu.upload(values))
        assert (here.count, here.sum, here.nans) == (there.count, there.sum, there.nans)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_agree_within_rounding(gpu, dtype):
    values = numbers(BLOCK * 3 + 5, dtype) + 1000
    values[[7, 5000]] = np.nan
    here = statistics.Moments("omit").update(values)
    there = statistics.Moments("omit").update(gpu.upload(values))
    assert (here.count, here.sum, here.min, here.max) == (
        there.count, there.sum, there.min, there.max
    )  # fmt: skip
    for one, other in (
        (here.variance(), there.variance()),
        (here.skewness, there.skewness),
        (here.kurtosis, there.kurtosis),
    ):
        assert one == pytest.approx(other, rel=1e-11)


def test_pieces_from_both_sides_make_one_stream(gpu):
    values = numbers(BLOCK * 5 + 300, "float32")
    whole = statistics.RunningSum().update(values)
    made = statistics.RunningSum()
    for low, high, there in (
        (0, 3000, False),
        (3000, 7500, True),
        (7500, 7500, True),
        (7500, values.size, True),
    ):
        piece = values[low:high]
        made.update(gpu.upload(piece) if there else piece)
    assert (made.sum, made.count) == (whole.sum, whole.count)


def nodes_of(gpu, kernel, blocks, width, *more, grid=None):
    """Return what a kernel writes for each block of values."""
    nodes = gpu.empty((len(blocks), width), np.float64)
    placed = gpu.upload(blocks.ravel())
    grid = grid or blocks_for(len(blocks), WARPS)
    gpu.launch(kernel, grid, THREADS, placed, 0, len(blocks), nodes, *more)
    return gpu.download(nodes)


def test_log_sum_exp(gpu):
    values = numbers(BLOCK + 9, "float32")
    values[4] = -np.inf
    there = statistics.logsumexp(gpu.upload(values))
    assert there == pytest.approx(statistics.logsumexp(values), rel=1e-14)
    there = statistics.logsumexp(gpu.upload(values)[1:])  # at no multiple of 16 bytes
    assert there == pytest.approx(statistics.logsumexp(values[1:]), rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_sum_exp_of_hard_blocks(gpu, dtype):
    blocks = numbers(BLOCK * 7, dtype).reshape(7, BLOCK)
    blocks[0, 4] = -np.inf
    blocks[1, 1000:] += 300  # far above the first values, the reference
    blocks[2, :300] = -np.inf
    blocks[3] = -np.inf
    blocks[4, ::3] = -1e30
    blocks[5, 77], blocks[5, 1077] = np.nan, np.inf
    blocks[6, ::2] = np.nan
    if not is_simulated():  # more than the warps of some blocks of threads
        blocks = np.tile(blocks, (6, 1))
    here = np.empty((len(blocks), 3))
    likelihood._reduce_logs(0, len(blocks), blocks.ravel(), here)
    for whole, grid in ((True, None), (False, None), (True, 1), (True, 3)):
        marks = gpu.zeros(MARKS, np.int32)
        there = nodes_of(gpu, logs_kernel(dtype, whole), blocks, 3, marks, grid=grid)
        np.testing.assert_array_equal(there[:, :2], here[:, :2])
        np.testing.assert_allclose(there[:, 2], here[:, 2], rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_of_hard_blocks(gpu, dtype):
    blocks = numbers(BLOCK * 5, dtype).reshape(5, BLOCK)
    blocks[0, 256:] += 1e4  # far from the first values, the reference
    blocks[1] = 3.5
    blocks[2, 5] = np.inf
    blocks[3] = np.nan
    blocks[4, ::2] = np.nan
    here = np.empty((5, 9))
    moments._reduce_moments(0, 5, blocks.ravel(), here)
    there = nodes_of(gpu, moments_kernel(dtype), blocks, 9)
    exact = [moments.COUNT, moments.SUM, moments.LEAST, moments.GREATEST, moments.MEAN]
    np.testing.assert_array_equal(there[:, exact], here[:, exact])
    central = [moments.M2, moments.M3, moments.M4]
    np.testing.assert_array_equal(there[1:4, central], here[1:4, central])
    for block in (0, 4):
        spread = np.sqrt(here[block, moments.M2] / here[block, moments.COUNT])
        scale = here[block, moments.COUNT] * spread ** np.array([2, 3, 4])
        error = there[block, central] - here[block, central]
        assert np.all(np.abs(error) < 1e-11 * scale)


def test_entropy(gpu):
    weights = np.abs(numbers(700, "float32"))
    weights[3] = 0
    there = statistics.entropy(gpu.upload(weights))
    assert there == pytest.approx(statistics.entropy(weights), rel=1e-14)
    for bad in (-1, np.inf):
        weights[5] = bad
        with pytest.raises(InputError, match="a probability is"):
            statistics.entropy(gpu.upload(weights))


def test_nan_policy(gpu):
    values = numbers(BLOCK, "float32")
    values[5] = np.nan
    placed = gpu.upload(values)
    assert np.isnan(statistics.mean(placed))
    made = statistics.Moments("raise")
    with pytest.raises(InputError, match="holds 1 NaN"):
        made.update(placed)
    assert made.count == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_are_those_of_the_cpu(gpu, dtype):
    values = numbers(900, dtype)
    values[5:10] = [np.nan, np.inf, -np.inf, 0, 1e-40]
    values[10:200] = 2.0
    placed = gpu.upload(values)
    for make in (
        lambda: statistics.Histogram.linear(-2, 4, 12),
        lambda: statistics.Histogram.linear(-2, 4, 5000),
        lambda: statistics.Histogram.logarithmic(0.1, 10, 20),
    ):
        here, there = make().update(values), make().update(placed)
        np.testing.assert_array_equal(here.counts, there.counts)
        assert (here.below, here.above, here.nans) == (there.below, there.above, there.nans)
    for error in (0.01, 0.0005):  # the second has too many buckets for a window
        here, there = (statistics.QuantileSketch(error, "omit").update(x) for x in (values, placed))
        np.testing.assert_array_equal(here._counts, there._counts)
        np.testing.assert_array_equal(here._special, there._special)
    assert statistics.extremes(placed, "omit") == (-np.inf, np.inf)


def near(points, dtype):
    """Return numbers of a dtype at points, and those next to them."""
    points = np.asarray(points).astype(dtype)
    below, above = (np.nextafter(points, dtype(side)) for side in (-np.inf, np.inf))
    return np.concatenate((below, points, above, np.nextafter(above, dtype(np.inf))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("low", "high", "bins"), [(-2, 4, 12), (-4, 4, 1000), (1e6, 1e6 + 3, 70)])
def test_values_at_edges_of_even_bins(gpu, dtype, low, high, bins):
    edges = np.linspace(low, high, bins + 1)[:: max(1, bins // 20)]
    values = np.append(near(edges, dtype), [np.nan, np.inf, -np.inf, 1e30, -1e30]).astype(dtype)
    here = statistics.Histogram.linear(low, high, bins).update(values)
    there = statistics.Histogram.linear(low, high, bins).update(gpu.upload(values))
    np.testing.assert_array_equal(here.counts, there.counts)
    assert (here.below, here.above, here.nans) == (there.below, there.above, there.nans)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_at_the_beginnings_of_buckets(gpu, dtype):
    sketch = statistics.QuantileSketch(0.01, "omit")
    buckets = np.arange(40) * 9.0 + np.floor(sketch._scale * 1022)
    exponent = np.floor(buckets / sketch._scale)
    cubic = [
        next(r.real for r in np.roots([A, B, C, -x]) if abs(r.imag) < 1e-9 and -1e-9 < r.real < 1)
        for x in buckets / sketch._scale - exponent
    ]
    begins = np.exp2(exponent - 1022) * (1 + np.array(cubic))
    values = np.concatenate((near(begins, dtype), near(-begins, dtype), near([0, 1], dtype)))
    values = np.append(values, [np.nan, np.inf, -np.inf, 1e-30, 1e-300, 1e30]).astype(dtype)
    there = statistics.QuantileSketch(0.01, "omit").update(gpu.upload(values))
    sketch.update(values)
    np.testing.assert_array_equal(sketch._counts, there._counts)
    np.testing.assert_array_equal(sketch._special, there._special)


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantiles_are_exact(gpu, dtype, monkeypatch):
    monkeypatch.setattr(select, "FEW", 20)
    values = numbers(900, dtype)
    values[5:8] = [np.nan, np.inf, -np.inf]
    values[300:420] = 2.0
    wanted = [0, 0.1, 0.5, 0.77, 1]
    there = statistics.OrderStatistics("omit")
    for part in (values[:500], values[500:]):
        there.update(gpu.upload(part))
    np.testing.assert_array_equal(
        there.quantile(wanted), statistics.quantile(values, wanted, "omit")
    )
    assert np.isnan(statistics.median(gpu.upload(values)))
    assert np.isnan(statistics.median(gpu.upload(values[:0])))


@cuda_kernel
def _count_threads(counts):
    counters = cuda.shared.array(256, np.int32)
    if cuda.threadIdx.x == 0:
        for i in range(256):
            counters[i] = 7
    cuda.syncthreads()
    clear(counters)
    cuda.atomic.add(counters, 255 - cuda.threadIdx.x, 1)
    add_counters(counters, 1, 128, counts)


@pytest.mark.parametrize("threads", [2, 4])
def test_counters_are_cleared_and_added_by_any_number_of_threads(gpu, threads):
    counts = gpu.zeros(128, np.int64)
    gpu.launch(_count_threads, 1, threads, counts)
    found = gpu.download(counts)
    assert found[-threads // 2 :].tolist() == [2] * (threads // 2)
    assert found.sum() == threads


CONTENTS = ("normal", "few", "equal", "rising", "wide", "strange")
# All on a GPU; in the simulator, which takes seconds for each, some.
CASES = (
    [("wide", "float64"), ("strange", "float32")]
    if is_simulated()
    else list(itertools.product(CONTENTS, DTYPES))
)


def contents(name, size, dtype):
    """Return values whose quantiles are easy or hard to bracket."""
    values = numbers(size, dtype)
    if name == "few":
        return np.rint(values)
    if name == "equal":
        return np.full(size, -2, dtype)
    if name == "rising":
        return np.sort(values)
    if name == "wide":
        return (np.sign(values) * np.exp(4 * np.abs(values))).astype(dtype)
    if name == "strange":
        values[::7], values[1::11], values[2::13], values[3::17] = np.nan, np.inf, -np.inf, -0.0
    return values


@pytest.mark.parametrize(("content", "dtype"), CASES)
def test_a_few_quantiles_of_many_values_are_exact(gpu, dtype, content, monkeypatch):
    monkeypatch.setattr(brackets, "SHARE_KEPT", 1)  # the simulator's small samples keep much
    values = contents(content, 4 * bracket_sample.PARTS * bracket_sample.SAMPLE + 3, dtype)
    placed = gpu.upload(values)
    wanted = [0, 0.01, 0.3, 0.3001, 0.5, 0.95, 1]
    there = statistics.quantile(placed, wanted, "omit")
    np.testing.assert_array_equal(there, statistics.quantile(values, wanted, "omit"))
    selection = brackets.BracketSelection(gpu, placed, np.array([0.5]))
    assert (selection.nans, selection.numbers) == (np.isnan(values).sum(), np.sum(values == values))
    middle = selection.numbers // 2
    ranks = np.array([0, 5, middle, selection.numbers - 1])  # three where no sample looked for them
    np.testing.assert_array_equal(selection.select(ranks), np.sort(values)[ranks])


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_values_are_read_once_where_the_sample_is_right(gpu, dtype, monkeypatch):
    values = contents("wide", 4 * bracket_sample.PARTS * bracket_sample.SAMPLE + 3, dtype)
    values[5::9] = np.nan
    monkeypatch.setattr(brackets, "SHARE_KEPT", 1)
    monkeypatch.setattr(brackets, "DeviceSelection", None)
    shares = np.array([0.05, 0.4, 0.45, 0.9])
    selection = brackets.BracketSelection(gpu, gpu.upload(values), shares)
    ranks = (shares * (selection.numbers - 1)).astype(np.int64)
    ranks = np.sort(np.append(ranks, ranks + 1))
    np.testing.assert_array_equal(selection.select(ranks), np.sort(values)[ranks])


# Whole turns of all warps, and what is before and after them.
BEGINS, MORE = ((1,), (130,)) if is_simulated() else (range(4), (0, 1, 129, 255, 9999))


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantiles_of_any_beginning_and_end_are_exact(gpu, dtype, monkeypatch):
    monkeypatch.setattr(brackets, "SHARE_KEPT", 1)
    least = 4 * bracket_sample.PARTS * bracket_sample.SAMPLE
    values = contents("normal", least + 10_003, dtype)
    placed = gpu.upload(values)
    for begin, more in itertools.product(BEGINS, MORE):
        ends = slice(begin, begin + least + more)
        found = statistics.quantile(placed[ends], [0.1, 0.5])
        np.testing.assert_array_equal(found, statistics.quantile(values[ends], [0.1, 0.5]))


def test_rows_have_the_bits_of_the_cpu(gpu):
    rng = np.random.default_rng(2)
    sizes = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 100, 300, 280)
    rows = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    rows[5][3] = rows[12][50] = rows[13][7] = np.nan
    rows[14][3] = np.inf
    here = Ragged.from_rows(rows, np.float32)
    there = here.to_device(gpu)
    for policy in ("omit", "propagate"):
        for reduce in (
            statistics.segment_sum,
            statistics.segment_mean,
            statistics.segment_min,
            statistics.segment_max,
        ):
            found = gpu.download(reduce(there, policy))
            np.testing.assert_array_equal(found, reduce(here, policy), err_msg=reduce.__name__)
    found = gpu.download(statistics.segment_perplexity(there, "omit"))
    np.testing.assert_allclose(found, statistics.segment_perplexity(here, "omit"), rtol=1e-14)
    with pytest.raises(InputError, match="3 rows hold a NaN"):
        statistics.segment_sum(there, "raise")


@pytest.mark.parametrize("dtype", DTYPES)
def test_correlation(gpu, dtype):
    x, y = numbers(5000, dtype), numbers(5000, dtype, 1)
    y += x
    x[7] = y[1900] = np.nan
    here = statistics.Correlation("omit").update(x, y)
    there = statistics.Correlation("omit")
    for low, high, placed in ((0, 300, False), (300, 3900, True), (3900, 5000, True)):
        first, second = x[low:high], y[low:high]
        there.update(*((gpu.upload(a) if placed else a) for a in (first, second)))
    assert (there.count, there.nans) == (here.count, here.nans) == (4998, 2)
    assert there.pearson == pytest.approx(here.pearson, rel=1e-12)
    assert there.covariance == pytest.approx(here.covariance, rel=1e-12)
    with pytest.raises(InputError, match="y is a ndarray in the host's memory"):
        there.update(gpu.upload(x), y)


@pytest.mark.parametrize("truth", ["bool", "int32", "float64"])
def test_calibration(gpu, truth):
    rng = np.random.default_rng(0)
    shares = np.append(rng.random(300), [0, 1, np.nan]).astype(np.float32)
    right = (rng.random(303) < shares).astype(truth)
    here = statistics.Calibration(7, "omit").update(shares, right)
    there = statistics.Calibration(7, "omit").update(gpu.upload(shares), gpu.upload(right))
    np.testing.assert_array_equal(there._table, here._table)
    assert there.nans == 1
    with pytest.raises(InputError, match="holds 1 NaN"):
        statistics.Calibration(7, "raise").update(gpu.upload(shares), gpu.upload(right))
    with pytest.raises(InputError, match="1 confidences are outside"):
        there.update(gpu.upload(np.array([1.5])), gpu.upload(np.ones(1)))
    with pytest.raises(InputError, match="2 of correct are neither"):
        there.update(gpu.upload(np.array([0.5, 1])), gpu.upload(np.array([2.0, -1])))
    np.testing.assert_array_equal(there._table, here._table)


def test_resampling(gpu):
    a, b = numbers(150, "float32"), numbers(150, "float64", 1)
    a[4] = np.nan
    here = statistics.bootstrap_interval(a, resamples=40, nan_policy="omit")
    there = statistics.bootstrap_interval(gpu.upload(a), resamples=40, nan_policy="omit")
    assert (there.low, there.high) == pytest.approx((here.low, here.high), rel=1e-13)
    assert there.estimate == here.estimate
    assert statistics.bootstrap_interval(gpu.upload(b), np.max, resamples=5) == (
        statistics.bootstrap_interval(b, np.max, resamples=5)
    )
    for size, resamples in ((150, 60), (5, 40)):  # sampled, and all of them
        first, second = a[:size], b[:size]
        here = statistics.permutation_test(first, second, resamples, nan_policy="omit")
        there = statistics.permutation_test(
            gpu.upload(first), gpu.upload(second), resamples, nan_policy="omit"
        )
        assert there == here
    assert statistics.sign_test(gpu.upload(b), b - 1) == statistics.sign_test(b, b - 1)


def test_what_runs_there_is_timed(gpu):
    placed = gpu.upload(numbers(100, "float64"))
    stats = measure_operation(lambda: statistics.mean(placed), gpu=gpu, seconds=0, min_samples=3)
    assert stats.n == 3
    assert stats.median > 0


def test_bad_arrays(gpu):
    whole = gpu.upload(np.arange(4))
    for compute in (statistics.mean, statistics.median, statistics.extremes):
        with pytest.raises(InputError, match="int64, should be float32 or float64"):
            compute(whole)
    with pytest.raises(InputError, match="at least 1"):
        statistics.extremes(gpu.upload(np.empty(0)))
    values = gpu.upload(np.zeros(4))
    with pytest.raises(InputError, match="never decrease"):
        statistics.segment_sum(Ragged(values, gpu.upload(np.array([0, 5]))))
    with pytest.raises(InputError, match="should have 1"):
        statistics.segment_sum(Ragged(values, gpu.upload(np.array([0, 4]))), out=values)
