"""Statistics of 1 GB on the GPU: ``python -m asv_bench.cuda statistics:kernels``.

Each is compared with the CPU's before it is timed. The limit is one read of the data at the copy
bandwidth of the same run (bytes read and written); exact quantiles have to write and to read again
the values that their sample leaves in question as well.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from asv_bench.cuda.clock import (
    close,
    gpu_in_use,
    kernel_seconds,
    print_table,
    wall_seconds,
)
from asv_bench.cuda.common import copy_bandwidth
from numbatch import statistics
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.ragged import Ragged

ROW = 512
BYTES_MOVED = {"median, exact": 1.013, "7 quantiles, exact": 1.05}
"""For a byte of data, at least: 1 but for these, which keep 0.65 and 2.5 % of the values."""
Times = tuple[list[str], list[list[str]]]


def _sketch(values: Any) -> list[float]:
    return list(statistics.QuantileSketch(0.01).update(values).quantile([0.01, 0.5, 0.99]))


def _moments(values: Any) -> list[float]:
    made = statistics.Moments().update(values)
    return [made.mean, made.variance(), made.skewness, made.kurtosis, made.min, made.max]


WHOLE: dict[str, tuple[Callable[[Any], Any], float]] = {
    # What is computed, and how far it may be from the CPU's.
    "sum, mean": (statistics.total, 0.0),
    "least and greatest": (statistics.extremes, 0.0),
    "moments to the fourth": (_moments, 1e-9),
    "log-sum-exp": (statistics.logsumexp, 1e-13),
    "histogram, 64 bins": (lambda x: statistics.histogram(x, 64, (-4, 4))[0], 0.0),
    "histogram, 1,000 bins": (lambda x: statistics.histogram(x, 1000, (-4, 4))[0], 0.0),
    "histogram, 64 logarithmic": (
        lambda x: statistics.histogram(x, 64, (1e-3, 10), scale="log")[0],
        0.0,
    ),
    "sketch, 1 %": (_sketch, 0.0),
    "median, exact": (statistics.median, 0.0),
    "7 quantiles, exact": (
        lambda x: statistics.quantile(x, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]),
        0.0,
    ),
}
ROWS: dict[str, tuple[Callable[[Any], Any], float]] = {
    f"mean of rows of {ROW}": (statistics.segment_mean, 0.0),
    f"least of rows of {ROW}": (statistics.segment_min, 0.0),
    f"perplexity of rows of {ROW}": (statistics.segment_perplexity, 1e-13),
}


def rows_of(values: Any, upload: Callable[[np.ndarray], Any] | None) -> Ragged:
    """Return values as rows of ``ROW``, the last shorter."""
    offsets = np.append(np.arange(0, values.size, ROW), values.size).astype(np.int64)
    return Ragged(values, offsets if upload is None else upload(offsets))


def differing(gpu: Gpu, dtype: str) -> list[str]:
    """Return the names of what is not the CPU's on the GPU, and print both."""
    values = np.random.default_rng(1).standard_normal((1 << 21) + 777).astype(dtype)
    placed = gpu.upload(values)
    there, here = rows_of(placed, gpu.upload), rows_of(values, None)
    results = [(name, f(placed), f(values), error) for name, (f, error) in WHOLE.items()]
    results += [(name, gpu.download(f(there)), f(here), error) for name, (f, error) in ROWS.items()]
    wrong = []
    for name, found, wanted, error in results:
        if not close(found, wanted, error):
            print(f"{name} of {dtype} differs: {found}, on the CPU {wanted}")
            wrong.append(name)
    return wrong


def time_one(
    gpu: Gpu, dtype: str, name: str, compute: Callable[[], Any], size: int, bandwidth: float
) -> Times:
    """Return a row of the table, and the time of each kernel."""
    wall = wall_seconds(gpu, compute)
    with kernel_seconds(gpu) as seconds:
        compute()
    device = sum(seconds.values())
    row = [
        f"{dtype} {name}",
        f"{BYTES_MOVED.get(name, 1.0) * size / bandwidth * 1e6:.0f}",
        f"{device * 1e6:.0f}",
        f"{size / device / 1e9:.0f}",
        f"{size / device / bandwidth:.2f}",
        f"{wall * 1e6:.0f}",
        f"{size / wall / bandwidth:.2f}",
    ]
    return row, [[f"{row[0]}: {kernel}", f"{s * 1e6:.0f}"] for kernel, s in seconds.items()]


def main(*options: str) -> None:
    """Check, time, and print a table; options are those of the command line."""
    import cupy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--kernels", action="store_true", help="the time of each kernel too")
    given = parser.parse_args([f"--{option}" for option in options])
    gpu = gpu_in_use()
    limit = copy_bandwidth()
    rows, parts, wrong = [], [], []
    for dtype in ("float32", "float64"):
        here = differing(gpu, dtype)
        wrong += here
        count = given.bytes // np.dtype(dtype).itemsize
        values = cupy.random.default_rng(2).standard_normal(count, dtype=dtype)
        gpu.synchronize()
        inputs = [(WHOLE, values), (ROWS, rows_of(values, gpu.upload))]
        for functions, data in inputs:
            for name, (compute, _) in functions.items():
                if name not in here:
                    call = functools.partial(compute, data)
                    row, kernels = time_one(gpu, dtype, name, call, given.bytes, limit)
                    rows.append(row)
                    parts += kernels
    print_table(
        f"statistics of {given.bytes / 1e9:.2f} GB on the GPU, the CPU's results; "
        f"copy {limit / 1e9:.0f} GB/s",
        ["", "limit, us", "kernels, us", "GB/s", "of copy", "call, us", "of copy"],
        rows,
    )
    if given.kernels:
        print_table("time of each kernel", ["", "us"], parts)
    if wrong:
        raise AssertionError(f"not timed, because they differ: {', '.join(wrong)}")
