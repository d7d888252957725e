"""Statistics of whole arrays and of rows on a device: checks, memory and launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu, array_pointer, is_simulated
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.statistics.cuda.counts import (
    COUNT_THREADS,
    HALF,
    SHARED_COUNTERS,
    bins_kernel,
    count_in_buckets,
    even_bins_kernel,
    extremes_kernel,
    write_entropy_terms,
)
from numbatch.kernels.statistics.cuda.reduce import FLOATS, as_device_values
from numbatch.kernels.statistics.cuda.rows import row_extremes, row_sums
from numbatch.kernels.statistics.cuda.select import order, order_wide
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
EXTREMES = {np.dtype(kind): extremes_kernel(kind) for kind in (np.float32, np.float64)}
EVEN_BINS = {np.dtype(kind): even_bins_kernel(kind) for kind in (np.float32, np.float64)}
BINS = {
    np.dtype(np.float32): (bins_kernel(np.float32, order, 16), np.uint32),
    np.dtype(np.float64): (bins_kernel(np.float64, order_wide, 48), np.uint64),
}
"""The kernels and the dtypes of bits."""


def _grid(gpu: Gpu, size: int) -> int:
    """Return how many blocks go over an array: as many as run at once, fewer for few values.

    Six on a multiprocessor, by their registers and shared memory; a few more would run alone, when
    the others are done.
    """
    return max(1, min(blocks_for(size, 4 * COUNT_THREADS), 6 * gpu.multiprocessors))


def _start(values: Any) -> int:
    """Return the first place of an array that lies at a multiple of 16 bytes, or its size."""
    if is_simulated():
        return 0
    size = int(values.dtype.itemsize)
    return min(-array_pointer(values) % 16 // size, int(values.size))


def device_extremes(array: Any) -> tuple[int, int, float, float]:
    """Return how many values there are and how many NaN, the least and the greatest number."""
    gpu, values = as_device_values(array)
    if not values.size:
        return 0, 0, np.inf, -np.inf
    blocks = _grid(gpu, values.size)
    partial = gpu.empty((blocks, 3), np.float64)
    kernel = EXTREMES[np.dtype(values.dtype)]
    gpu.launch(kernel, blocks, COUNT_THREADS, values, _start(values), partial)
    nans, least, greatest = gpu.download(partial).T
    return int(values.size), int(nans.sum()), float(least.min()), float(greatest.max())


def bin_counts(array: Any, edges: np.ndarray, linear: bool) -> np.ndarray:
    """Count values between edges: int64, shape (bins + 3,), as the CPU's kernels do.

    Parameters
    ----------
    array : device array
    edges : float64 array, shape (bins + 1,)
        The last one moved up by the least step.
    linear : bool
        Whether the steps are equal.
    """
    gpu, values = as_device_values(array)
    bins = edges.size - 1
    dtype = np.dtype(values.dtype)
    kernel, unsigned = BINS[dtype]
    scale = bins / float(edges[-1] - edges[0]) if linear else 0.0
    edges, table = _edges_for(edges, dtype, linear)
    counts = gpu.upload(np.zeros(bins + 3, np.int64))
    copies = MOST_COPIES
    while copies * (bins + 3) > SHARED_COUNTERS:
        copies //= 2
    if values.size and linear and copies:
        gpu.launch(
            EVEN_BINS[dtype], _grid(gpu, values.size), COUNT_THREADS, values, _start(values),
            gpu.upload(edges), dtype.type(scale), _margin(edges, scale, dtype),
            np.uint32(copies.bit_length() - 1), counts,
        )  # fmt: skip
    elif values.size:
        gpu.launch(
            kernel, _grid(gpu, values.size), COUNT_THREADS,
            values, values.view(unsigned), gpu.upload(edges), gpu.upload(table), linear,
            dtype.type(scale), _margin(edges, scale, dtype), copies, counts,
        )  # fmt: skip
    return gpu.download(counts)


def _margin(edges: np.ndarray, scale: float, dtype: np.dtype) -> Any:
    """Return how far from an edge, in bins, a place found by multiplication may be wrong.

    Of ``(x - first) * scale``, with the rounding of ``first``, of ``scale`` and of both results.
    """
    reach = max(abs(float(edges[0])), abs(float(edges[-1])))
    return dtype.type(8 * np.finfo(dtype).eps * (edges.size + reach * scale))


def _edges_for(edges: np.ndarray, dtype: np.dtype, linear: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return edges of a dtype, and how many of them have leading bits less than each number.

    The least float32 that is not below an edge divides the float32 numbers as the edge does.
    """
    typed = edges.astype(dtype)
    typed = np.where(typed < edges, np.nextafter(typed, dtype.type(np.inf)), typed)
    if linear:
        return typed, np.zeros(1, np.int32)
    signed = (typed + dtype.type(0)).view(np.int32 if dtype.itemsize == 4 else np.int64)
    leading = signed >> (8 * dtype.itemsize - 16)  # -0.0 has become 0.0
    keys = np.where(leading < 0, ~leading & 0x7FFF, leading | 1 << 15)
    return typed, np.searchsorted(keys, np.arange((1 << 16) + 1)).astype(np.int32)


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
    counters = gpu.zeros(2, np.int64)
    kernel = row_extremes if kind in (LEAST, GREATEST) else row_sums
    gpu.launch(
        kernel, blocks_for(rows + 1, WARPS), THREADS,
        values, offsets, kind, nan_policy == "omit", results, counters,
    )  # fmt: skip
    wrong, nans = gpu.download(counters)
    if wrong:
        raise InputError(
            f"offsets on the GPU should run from 0 to {values.size} and never decrease; "
            f"{wrong} do not"
        )
    if nans and nan_policy == "raise":
        raise InputError(f"{nans} rows hold a NaN, and nan_policy is 'raise'")
    return results if out is None else out
