"""Statistics side by side with NumPy, SciPy, bottleneck and numbagg, on one thread.

All functions of a row see the same array and are timed in turn, every second round backwards; a
time is the median of the rounds, a ratio is that of the fastest peer's time to Numbatch's in the
same round, its median. Before a row is timed, the results are compared. GB/s is Numbatch's: bytes
of the array by its time, and of what one core reads at most, which is measured in the same rounds.
"""

import argparse
import time
import warnings

import bottleneck
import numbagg
import numpy as np
import scipy.ndimage
import scipy.special
import scipy.stats

from numbatch import statistics
from numbatch.batching.machine import reader_of
from numbatch.batching.measure import measure_operation
from numbatch.kernels.ragged import Ragged

PEERS = ("numpy", "scipy", "bottleneck", "numbagg")
QUANTILES = [0.01, 0.25, 0.5, 0.75, 0.99]
BINS = 100


def rows_of(values):
    """Each statistic as Numbatch and its peers compute it: name -> {package -> function}."""
    x = values
    edges = np.geomspace(0.01, 4, BINS + 1)
    linear = np.linspace(-4, 4, BINS + 1)
    y = np.random.default_rng(1).standard_normal(len(x)).astype(x.dtype)
    return {
        "sum": {
            "numbatch": lambda: statistics.total(x),
            "numpy": lambda: np.sum(x),
            "bottleneck": lambda: bottleneck.nansum(x),
            "numbagg": lambda: numbagg.nansum(x),
        },
        "mean": {
            "numbatch": lambda: statistics.mean(x),
            "numpy": lambda: np.mean(x),
            "bottleneck": lambda: bottleneck.nanmean(x),
            "numbagg": lambda: numbagg.nanmean(x),
        },
        "mean, omit NaN": {
            "numbatch": lambda: statistics.mean(x, nan_policy="omit"),
            "numpy": lambda: np.nanmean(x),
            "bottleneck": lambda: bottleneck.nanmean(x),
            "numbagg": lambda: numbagg.nanmean(x),
        },
        "variance": {
            "numbatch": lambda: statistics.variance(x),
            "numpy": lambda: np.var(x),
            "bottleneck": lambda: bottleneck.nanvar(x),
            "numbagg": lambda: numbagg.nanvar(x, ddof=0),
        },
        "skewness": {
            "numbatch": lambda: statistics.skewness(x),
            "scipy": lambda: scipy.stats.skew(x),
        },
        "kurtosis": {
            "numbatch": lambda: statistics.kurtosis(x),
            "scipy": lambda: scipy.stats.kurtosis(x),
        },
        "least and greatest": {
            "numbatch": lambda: statistics.extremes(x),
            "numpy": lambda: (np.min(x), np.max(x)),
            "bottleneck": lambda: (bottleneck.nanmin(x), bottleneck.nanmax(x)),
            "numbagg": lambda: (numbagg.nanmin(x), numbagg.nanmax(x)),
        },
        "median": {
            "numbatch": lambda: statistics.median(x),
            "numpy": lambda: np.median(x),
            "bottleneck": lambda: bottleneck.median(x),
            "numbagg": lambda: numbagg.nanmedian(x),
        },
        "5 quantiles": {
            "numbatch": lambda: statistics.quantile(x, QUANTILES),
            "numpy": lambda: np.quantile(x, QUANTILES),
            "numbagg": lambda: numbagg.nanquantile(x, QUANTILES),
        },
        "histogram, linear": {
            "numbatch": lambda: statistics.histogram(x, BINS, (-4, 4))[0],
            "numpy": lambda: np.histogram(x, BINS, (-4, 4))[0],
            "scipy": lambda: scipy.stats.binned_statistic(x, None, "count", linear).statistic,
        },
        "histogram, logarithmic": {
            "numbatch": lambda: statistics.histogram(x, edges)[0],
            "numpy": lambda: np.histogram(x, edges)[0],
            "scipy": lambda: scipy.stats.binned_statistic(x, None, "count", edges).statistic,
        },
        "log-sum-exp": {
            "numbatch": lambda: statistics.logsumexp(x),
            "scipy": lambda: scipy.special.logsumexp(x),
        },
        "correlation": {
            "numbatch": lambda: statistics.pearson(x, y),
            "numpy": lambda: np.corrcoef(x, y)[0, 1],
            "scipy": lambda: scipy.stats.pearsonr(x, y).statistic,
        },
    }


def segment_rows(values, row):
    """Reductions of rows of about ``row`` values."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(row // 2, row * 3 // 2, 2 * len(values) // row)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    offsets = offsets[offsets <= len(values)].astype(np.int64)
    x, starts = values[: offsets[-1]], offsets[:-1]
    ragged = Ragged(x, offsets)
    labels = np.repeat(np.arange(len(starts)), np.diff(offsets))
    counts = np.diff(offsets)
    index = np.arange(len(starts))

    def case(name, ours, reduceat, label, ndimage, finish=lambda a: a):
        return {
            f"{name} of rows of {row}": {
                "numbatch": lambda: ours(ragged),
                "numpy": lambda: finish(reduceat(x, starts)),
                "numbagg": lambda: label(x, labels, num_labels=len(starts)),
                "scipy": lambda: ndimage(x, labels, index),
            }
        }

    return {
        **case(
            "sum",
            statistics.segment_sum,
            np.add.reduceat,
            numbagg.group_nansum,
            scipy.ndimage.sum_labels,
        ),
        **case(
            "mean",
            statistics.segment_mean,
            np.add.reduceat,
            numbagg.group_nanmean,
            scipy.ndimage.mean,
            lambda sums: sums / counts,
        ),
        **case(
            "least",
            statistics.segment_min,
            np.minimum.reduceat,
            numbagg.group_nanmin,
            scipy.ndimage.minimum,
        ),
        **case(
            "greatest",
            statistics.segment_max,
            np.maximum.reduceat,
            numbagg.group_nanmax,
            scipy.ndimage.maximum,
        ),
    }


def seconds(function, calls=1):
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def check(name, functions, tolerance):
    """Numbatch's result against the peers'; a peer that differs is not timed."""
    ours = np.asarray(functions["numbatch"](), np.float64)
    right = {"numbatch": functions["numbatch"]}
    for peer, function in functions.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = np.asarray(function(), np.float64)
        if np.allclose(ours, theirs, rtol=tolerance, atol=tolerance):
            right[peer] = function
        else:
            off = np.max(np.abs(ours - theirs))
            print(f"  {name}: {peer} differs by up to {off:.2g}, not timed", flush=True)
    return right


def rounds_of(functions, rounds, calls):
    """Seconds a call of each function in each round; of one ten times as slow, in three rounds."""
    times = {name: [] for name in functions}
    for number in range(rounds):
        order = list(functions) if number % 2 == 0 else list(functions)[::-1]
        for name in order:
            if number < 3 or min(times[name]) < 10 * min(times["numbatch"]):
                times[name].append(seconds(functions[name], calls))
    return {name: np.array(taken) for name, taken in times.items()}


def report(name, times, size):
    ours = times["numbatch"]
    others = {peer: times[peer] for peer in PEERS if peer in times}
    cells = "".join(
        f"{1e3 * np.median(times[peer]):11.4g}" if peer in times else " " * 11
        for peer in ("numbatch", *PEERS)
    )
    fastest = min(others.values(), key=np.median) if others else np.full(len(ours), np.nan)
    ratio = np.median(fastest / ours[: len(fastest)])
    read = times["read"]
    share = np.median(read / ours[: len(read)])
    rate = size / np.median(ours) / 1e9
    print(f"{name:26s}{cells}{ratio:8.2f}{rate:8.1f}{100 * share:7.0f} %", flush=True)


def table(title, rows, values, options):
    print(f"\n{title}")
    heads = "".join(f"{head:>11s}" for head in ("numbatch", *PEERS))
    print(f"{'milliseconds':26s}{heads}{'ratio':>8s}{'GB/s':>8s}{'of read':>9s}")
    for name, functions in rows.items():
        if options.only and not any(word in name for word in options.only):
            continue
        functions = check(name, functions, 1e-2 if values.dtype == np.float32 else 1e-6)
        functions["read"] = reader_of(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A few microseconds are too short for the clock, and for the caches that others leave.
            calls = max(1, 200_000 // len(values))
            report(name, rounds_of(functions, options.rounds, calls), values.nbytes)


def tell_sketch(values, rounds):
    """The sketch's speed, and its largest error against the exact quantiles."""
    taken = []
    for _ in range(rounds + 1):
        sketch = statistics.QuantileSketch()
        taken.append(seconds(lambda sketch=sketch: sketch.update(values)))
    wanted = np.linspace(0.001, 0.999, 999)
    exact = np.quantile(values.astype(np.float64), wanted, method="lower")
    error = np.max(np.abs(sketch.quantile(wanted) - exact) / np.abs(exact))
    print(
        f"sketch: {len(values) / np.median(taken[1:]) / 1e6:.0f} million values a second, largest "
        f"relative error {error:.5f}, {sketch.relative_error} promised"
    )


def tell_overhead():
    """What ``measure_operation`` itself takes a call, and what it leaves of an empty function."""
    stats = measure_operation(lambda: None)
    print(
        f"measure_operation: overhead {1e9 * stats.overhead:.1f} ns a call, subtracted; an empty "
        f"function then takes {1e9 * stats.median:.2f} ns"
    )


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m asv_bench.peers statistics")
    parser.add_argument("--size", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", nargs="*", help="rows whose name holds one of these words")
    parser.add_argument("--dtype", nargs="*", default=["float32", "float64"])
    options = parser.parse_args(arguments)
    for dtype in options.dtype:
        values = np.random.default_rng(0).standard_normal(options.size).astype(dtype)
        title = f"{options.size:,} values of {dtype}, one thread"
        table(title, rows_of(values) | segment_rows(values, 200), values, options)
        tell_sketch(values, options.rounds)
    tell_overhead()
