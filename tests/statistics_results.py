"""Prints statistics of fixed numbers with all their bits; test_statistics_portable.py compares."""

import json

import numpy as np

from numbatch import statistics
from numbatch.kernels.ragged import Ragged


def results():
    """Each statistic of numbers with NaN and both infinities among them, by name, as hex."""
    rng = np.random.default_rng(0)
    found = {}
    for dtype in (np.float32, np.float64):
        x = (rng.normal(0.3, 1, 300_001) * np.exp(rng.normal(0, 3, 300_001))).astype(dtype)
        y = (x + rng.normal(0, 1, x.size)).astype(dtype)
        holed = x.copy()
        holed[::997] = np.nan
        rows = Ragged(holed, np.sort(np.append(rng.integers(0, x.size, 500), [0, x.size])))
        found[dtype.__name__] = {
            name: np.atleast_1d(np.asarray(values, np.float64)).tobytes().hex()
            for name, values in _of(x, y, holed, rows).items()
        }
    return found


def _of(x, y, holed, rows):
    omit = {"nan_policy": "omit"}
    moments = statistics.Moments("omit").update(holed[:5]).update(holed[5:])
    sketch = statistics.QuantileSketch(0.01, "omit").update(holed)
    wanted = np.linspace(0, 1, 21)
    return {
        "sum": statistics.total(x),
        "moments": [moments.sum, moments.variance(), moments.skewness, moments.kurtosis],
        "extremes": statistics.extremes(holed, **omit),
        "median": statistics.median(x),
        "median of few": statistics.median(holed[:1000], **omit),
        "quantiles": statistics.quantile(holed, wanted, **omit),
        "sketch": sketch.quantile(wanted),
        "linear": statistics.histogram(holed, 100, (-4, 4))[0],
        "logarithmic": statistics.histogram(holed, 100, (0.01, 4), "log")[0],
        "log-sum-exp": statistics.logsumexp(np.log(np.abs(x)) / 2),
        "correlation": statistics.pearson(x, y),
        "row means": statistics.segment_mean(rows, **omit),
        "row extremes": statistics.segment_max(rows, **omit) - statistics.segment_min(rows, **omit),
        "bootstrap": statistics.bootstrap_interval(x[:500], resamples=100).high,
        "permutations": statistics.permutation_test(x[:500], y[:500], 100).p_value,
    }


if __name__ == "__main__":
    print(json.dumps(results()))
