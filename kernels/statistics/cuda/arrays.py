"""Statistics of whole arrays and of rows on a device: checks, memory and launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of
from numbatch.kernels.device_offsets import OFFSET_THREADS, count_wrong_offsets
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.statistics.cuda.counts import (
    COUNT_THREADS,
    HALF,
    SHARED_COUNTERS,
    add_partial_extremes,
    count_in_bins,
    count_in_buckets,
    write_entropy_terms,
)
from numbatch.kernels.statistics.cuda.reduce import FLOATS, as_device_values
from numbatch.kernels.statistics.cuda.rows import row_extremes, row_sums
from numbatch.kernels.statistics.cuda.sums import THREADS, WARPS
from numbatch.kernels.statistics.segments import GREATEST, LEAST

__all__ = [
    "bin_counts",
    "bucket_counts",
    "device_entropy_terms",
    "device_extremes",
    "reduce_rows",
]

MOST_COPIES = 32


def _grid(gpu: Gpu, size: int) -> int:
    """Return how many blocks go over an array: as many as run at once, fewer for few values."""
    return max(1, min(blocks_for(size, 4 * COUNT_THREADS), 8 * gpu.multiprocessors))


def device_extremes(array: Any) -> tuple[int, int, float, float]:
    """Return how many values there are and how many NaN, the least and the greatest number."""
    gpu, values = as_device_values(array)
    if not values.size:
        return 0, 0, np.inf, -np.inf
    blocks = _grid(gpu, values.size)
    partial = gpu.empty((blocks, 3), np.float64)
    gpu.launch(add_partial_extremes, blocks, COUNT_THREADS, values, partial)
    nans, least, greatest = gpu.download(partial).T
    return int(values.size), int(nans.sum()), float(least.min()), float(greatest.max())


def bin_counts(array: Any, edges: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """Count values between edges: int64, shape (bins + 3,), as the CPU's kernels do.

    Parameters
    ----------
    array : device array
    edges : float64 array, shape (bins + 1,)
        The last one moved up by the least step.
    table : int64 array, optional
        How many edges have lesser leading bits; None for equal steps.
    """
    gpu, values = as_device_values(array)
    bins = edges.size - 1
    counts = gpu.upload(np.zeros(bins + 3, np.int64))
    copies = MOST_COPIES
    while copies * (bins + 3) > SHARED_COUNTERS:
        copies //= 2
    scale = 0.0 if table is not None else bins / float(edges[-1] - edges[0])
    lookup = np.zeros(1, np.int32) if table is None else table.astype(np.int32)
    if values.size:
        gpu.launch(
            count_in_bins, _grid(gpu, values.size), COUNT_THREADS,
            values, _uploaded(gpu, edges), _uploaded(gpu, lookup), table is None, scale, copies,
            counts,
        )  # fmt: skip
    return gpu.download(counts)


def _uploaded(gpu: Gpu, array: np.ndarray) -> Any:
    return gpu.upload(np.ascontiguousarray(array))


def bucket_counts(array: Any, scale: float, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Count magnitudes in a sketch's buckets: int64, shapes (2, buckets) and (4,)."""
    gpu, values = as_device_values(array)
    counts = gpu.zeros(2 * buckets, np.int64)
    special = gpu.zeros(4, np.int64)
    if values.size:
        high = _window_end(gpu, values, scale, buckets)
        gpu.launch(
            count_in_buckets, _grid(gpu, values.size), COUNT_THREADS,
            values, scale, high, counts, special,
        )  # fmt: skip
    return gpu.download(counts).reshape(2, buckets), gpu.download(special)


def _window_end(gpu: Gpu, values: Any, scale: float, buckets: int) -> int:
    """Return the bucket above a sample's greatest: most values are not far below it."""
    sample = np.abs(gpu.download(values[: 1 << 14]).astype(np.float64))
    sample = sample[np.isfinite(sample) & (sample > 0)]
    if not sample.size:
        return buckets
    exponent = float(np.log2(sample.max())) + 1022
    return int(min(max(exponent * scale + 4 * scale, HALF), buckets))


def device_entropy_terms(array: Any) -> Any:
    """Return ``-p log p`` of each value as a float64 array on the device."""
    gpu, values = as_device_values(array)
    terms = gpu.empty(values.size, np.float64)
    gpu.launch(write_entropy_terms, _grid(gpu, values.size), COUNT_THREADS, values, terms)
    gpu.synchronize()
    return terms


def reduce_rows(ragged: Ragged, kind: int, nan_policy: str, out: Any) -> Any:
    """Reduce each row of a Ragged on a device; the results stay there.

    Raises
    ------
    InputError
        If an array is not what it should be, the offsets do not describe rows, or a row holds a
        NaN and the policy is "raise".
    """
    gpu = gpu_of(ragged.values, "values")
    values = device_vector(ragged.values, "values", gpu, FLOATS)
    offsets = device_vector(ragged.offsets, "offsets", gpu, ("int64",))
    rows = offsets.size - 1
    results = gpu.empty(rows, np.float64)
    if out is not None:
        results = device_vector(out, "out", gpu, ("float64",))
        if results.size != rows:
            raise InputError(f"out has {results.size} elements, should have {rows}")
    counters = gpu.upload(np.zeros(2, np.int64))
    blocks = blocks_for(offsets.size, OFFSET_THREADS)
    gpu.launch(count_wrong_offsets, blocks, OFFSET_THREADS, offsets, values.size, counters, 0)
    wrong, _ = gpu.download(counters)
    if wrong:
        raise InputError(
            f"offsets on the GPU should run from 0 to {values.size} and never decrease; "
            f"{wrong} do not"
        )
    kernel = row_extremes if kind in (LEAST, GREATEST) else row_sums
    gpu.launch(
        kernel, blocks_for(rows, WARPS), THREADS,
        values, offsets, kind, nan_policy == "omit", results, counters,
    )  # fmt: skip
    if nan_policy == "raise":
        _, nans = gpu.download(counters)
        if nans:
            raise InputError(f"{nans} rows hold a NaN, and nan_policy is 'raise'")
    gpu.synchronize()
    return results if out is None else out
