"""Statistics of arrays and of streams: moments, quantiles, histograms, likelihood, intervals.

Each function takes an array of any shape; the class beside it takes a stream in pieces, and merges
with others. ``nan_policy`` has SciPy's names: "propagate" (a NaN makes the result NaN), "omit" (NaN
is left out) and "raise". float32 and float64 are taken as they are, narrower types are widened
exactly, and all sums are in float64.

The result of a stream does not depend on the pieces, to the bit: counts are whole numbers, and sums
follow a fixed tree over the places of the stream (:mod:`~numbatch.kernels.statistics.block_tree`).
What needs all values at once keeps the pieces (:mod:`~numbatch.kernels.statistics.samples`); the
rows of a ``Ragged`` are reduced one by one, so results of pieces are laid end to end.
"""

from numbatch.kernels.statistics.bootstrap import Interval, bootstrap_interval, resample_places
from numbatch.kernels.statistics.calibration import Calibration, calibration_error
from numbatch.kernels.statistics.correlation import Correlation, pearson, spearman
from numbatch.kernels.statistics.histogram import Histogram, histogram
from numbatch.kernels.statistics.likelihood import (
    Entropy,
    Likelihood,
    LogSumExp,
    bits_per_byte,
    entropy,
    logsumexp,
    perplexity,
)
from numbatch.kernels.statistics.moments import (
    Moments,
    extremes,
    kurtosis,
    skewness,
    std,
    variance,
)
from numbatch.kernels.statistics.paired import PairedTest, permutation_test, sign_test
from numbatch.kernels.statistics.quantiles import OrderStatistics, median, quantile
from numbatch.kernels.statistics.samples import PairedSample, Sample
from numbatch.kernels.statistics.segments import (
    segment_max,
    segment_mean,
    segment_min,
    segment_perplexity,
    segment_sum,
)
from numbatch.kernels.statistics.sketch import QuantileSketch
from numbatch.kernels.statistics.sums import RunningSum, mean, total

__all__ = [
    "Calibration",
    "Correlation",
    "Entropy",
    "Histogram",
    "Interval",
    "Likelihood",
    "LogSumExp",
    "Moments",
    "OrderStatistics",
    "PairedSample",
    "PairedTest",
    "QuantileSketch",
    "RunningSum",
    "Sample",
    "bits_per_byte",
    "bootstrap_interval",
    "calibration_error",
    "entropy",
    "extremes",
    "histogram",
    "kurtosis",
    "logsumexp",
    "mean",
    "median",
    "pearson",
    "permutation_test",
    "perplexity",
    "quantile",
    "resample_places",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_perplexity",
    "segment_sum",
    "sign_test",
    "skewness",
    "spearman",
    "std",
    "total",
    "variance",
]
