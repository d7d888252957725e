"""Statistics of arrays of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from numbatch.batching.baseline.case import Case
from numbatch.batching.machine import reader_of
from numbatch.kernels import statistics
from numbatch.kernels.ragged import Ragged

__all__ = ["statistics_cases"]

SIZES = (10_000, 1_000_000, 10_000_000)
QUICK_SIZES = (10_000, 100_000)
ROW = 200


def statistics_cases(quick: bool = False) -> Iterator[Case]:
    """Yield each statistic of each size; the limit is the time to read the values once."""
    for size in QUICK_SIZES if quick else SIZES:
        values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
        rows = Ragged(values, np.arange(0, size + 1, ROW, dtype=np.int64))
        for name, function in _functions().items():
            yield _case(name, partial(function, values), values)
        yield _case("mean of rows of 200", partial(statistics.segment_mean, rows), values)


def _functions() -> dict[str, Callable[[Any], Any]]:
    return {
        "mean": statistics.mean,
        "moments to the fourth": lambda x: statistics.Moments().update(x).kurtosis,
        "least and greatest": statistics.extremes,
        "median": statistics.median,
        "histogram of 100 bins": lambda x: statistics.histogram(x, 100, (-4, 4)),
        "quantile sketch": lambda x: statistics.QuantileSketch().update(x),
        "log-sum-exp": statistics.logsumexp,
    }


def _case(name: str, run: Callable[[], object], values: np.ndarray) -> Case:
    return Case(
        "statistics",
        f"{name}, {len(values):,} values",
        run,
        len(values) / 1e6,
        "million values",
        read=reader_of(values),
    )
