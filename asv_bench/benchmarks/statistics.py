"""Statistics of normal numbers of a fixed seed, and how exact they are."""

import math

import numpy as np

from numbatch import statistics
from numbatch.kernels.ragged import Ragged

from .sizes import (  # noqa: F401
    CPU,
    min_run_count,
    once,
    only,
    repeat,
    rounds,
    sized,
    timeout,
    timer_of,
    version,
    warmup_time,
)

QUANTILES = [0.01, 0.25, 0.5, 0.75, 0.99]
FEW, MANY = 10_000, sized(10_000_000, 10_000)
WIDE = ("mean", "median")
"""What is timed of many float64 as well: of the others float32 tells as much."""


def numbers(size, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(size, dtype)


def functions(x, y):
    """Each statistic of one array, by the name under which its history is kept."""
    sketch = statistics.QuantileSketch()
    return {
        "mean": lambda: statistics.mean(x),
        "moments": lambda: statistics.Moments().update(x),
        "extremes": lambda: statistics.extremes(x),
        "median": lambda: statistics.median(x),
        "5 quantiles": lambda: statistics.quantile(x, QUANTILES),
        "sketch": lambda: sketch.update(x),
        "linear histogram": lambda: statistics.histogram(x, 100, (-4, 4)),
        "logarithmic histogram": lambda: statistics.histogram(x, 100, (0.01, 4), "log"),
        "log-sum-exp": lambda: statistics.logsumexp(x),
        "correlation": lambda: statistics.pearson(x, y),
    }


class Arrays:
    """One array at once, on one thread."""

    params = (list(functions(None, None)), ["float32", "float64"], sorted({FEW, MANY}))
    param_names = ("statistic", "dtype", "size")
    timer = CPU

    @once
    def setup(self, statistic, dtype, size):
        only(dtype == "float32" or (size == MANY and statistic in WIDE))
        y = numbers(size, dtype, 1) if statistic == "correlation" else None
        self.run = functions(numbers(size, dtype), y)[statistic]
        self.number = sized(max(1, 5_000_000 // size), 1)
        for _ in range(self.number):
            self.run()

    def time_statistic(self, statistic, dtype, size):
        self.run()


class Threads:
    """Reductions that threads share."""

    params = ([1, 2],)
    param_names = ("threads",)
    number = sized(5, 1)

    @once
    def setup(self, threads):
        self.timer = timer_of(threads)
        self.values = numbers(sized(10_000_000, 100_000), "float32")
        self.time_mean(threads)
        self.time_moments(threads)

    def time_mean(self, threads):
        statistics.mean(self.values, threads=threads)

    def time_moments(self, threads):
        statistics.Moments(threads=threads).update(self.values)


class Segments:
    """Each text's log-probabilities: rows of about so many values, 10 million in all."""

    params = ([20, 1000],)
    param_names = ("row",)
    timer = CPU
    number = sized(3, 1)

    @once
    def setup(self, row):
        total = sized(10_000_000, 100_000)
        lengths = np.random.default_rng(0).integers(row // 2, row * 3 // 2, total // row)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.rows = Ragged(-np.abs(numbers(offsets[-1], "float32")), offsets)
        self.time_mean(row)
        self.time_least(row)
        self.time_perplexity(row)

    def time_mean(self, row):
        statistics.segment_mean(self.rows)

    def time_least(self, row):
        statistics.segment_min(self.rows)

    def time_perplexity(self, row):
        statistics.segment_perplexity(self.rows)


class Resampling:
    """Intervals and paired tests of 2,000 scores."""

    timer = CPU

    @once
    def setup(self):
        self.a, self.b = numbers(2000), numbers(2000, seed=1)
        self.time_bootstrap()
        self.time_permutation_test()

    def time_bootstrap(self):
        statistics.bootstrap_interval(self.a)

    def time_permutation_test(self):
        statistics.permutation_test(self.a, self.b)


class Streams:
    """A stream in pieces of 1,000 values, as results come in."""

    timer = CPU
    count = sized(1000, 20)
    number = sized(5, 1)

    @once
    def setup(self):
        self.pieces = numbers(self.count * 1000, "float32").reshape(self.count, 1000)
        self.time_moments()

    def time_moments(self):
        moments = statistics.Moments()
        for piece in self.pieces:
            moments.update(piece)
        moments.variance()


class Exactness:
    """Errors beside the speeds."""

    size = sized(1_000_000, 10_000)

    def track_sketch_relative_error(self):
        """The largest, of 999 quantiles of numbers of many magnitudes; at most 0.01 is promised."""
        values = np.exp(3 * numbers(self.size))
        wanted = np.linspace(0.001, 0.999, 999)
        exact = np.quantile(values, wanted, method="lower")
        got = statistics.QuantileSketch(0.01).update(values).quantile(wanted)
        return float(np.max(np.abs(got - exact) / exact))

    def track_sum_error(self):
        """Against the exact sum, in units of the last place of the sum of magnitudes."""
        values = numbers(self.size) * np.exp(5 * numbers(self.size, seed=1))
        size = math.fsum(np.abs(values))
        return abs(statistics.total(values) - math.fsum(values)) / math.ulp(size)

    def peakmem_median(self):
        statistics.median(numbers(self.size, "float32"))
