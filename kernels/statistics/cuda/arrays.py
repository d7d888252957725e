"""Statistics of whole arrays and of rows on a device: checks, memory and launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.statistics.cuda.cells import TABLE, cells_kernel, cells_of
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    copies_of,
    grid_for,
    start_of,
)
from numbatch.kernels.statistics.cuda.even_bins import even_bins_kernel
from numbatch.kernels.statistics.cuda.extremes import extremes_kernel
from numbatch.kernels.statistics.cuda.fixed_places import fixed_places
from numbatch.kernels.statistics.cuda.free_bins import bins_kernel
from numbatch.kernels.statistics.cuda.reduce import FLOATS, as_device_values
from numbatch.kernels.statistics.cuda.rows import row_extremes, row_sums
from numbatch.kernels.statistics.cuda.select import order, order_wide
from numbatch.kernels.statistics.cuda.sketch import HALF, count_in_buckets
from numbatch.kernels.statistics.cuda.sketch_window import (
    ROOM,
    SketchWindow,
    window_below,
    window_kernel,
)
from numbatch.kernels.statistics.cuda.strides import AT_ONCE
from numbatch.kernels.statistics.cuda.sums import THREADS, WARPS
from numbatch.kernels.statistics.cuda.terms import write_entropy_terms
from numbatch.kernels.statistics.segments import GREATEST, LEAST

__all__ = [
    "bin_counts",
    "bucket_counts",
    "device_entropy_terms",
    "device_extremes",
    "reduce_rows",
]

EXTREMES = {np.dtype(kind): extremes_kernel(kind) for kind in (np.float32, np.float64)}
CELLS = {np.dtype(kind): cells_kernel(kind) for kind in (np.float32, np.float64)}
EVEN_BINS = {np.dtype(kind): even_bins_kernel(kind) for kind in (np.float32, np.float64)}
SKETCHES = {np.dtype(kind): window_kernel(kind) for kind in (np.float32, np.float64)}
BINS = {
    np.dtype(np.float32): (bins_kernel(np.float32, order, 16), np.uint32),
    np.dtype(np.float64): (bins_kernel(np.float64, order_wide, 48), np.uint64),
}
"""The kernels and the dtypes of bits."""


def device_extremes(array: Any) -> tuple[int, int, float, float]:
    """Return how many values there are and how many NaN, the least and the greatest number."""
    gpu, values = as_device_values(array)
    if not values.size:
        return 0, 0, np.inf, -np.inf
    blocks = grid_for(gpu, values.size)
    partial = gpu.empty((blocks, 3), np.float64)
    kernel = EXTREMES[np.dtype(values.dtype)]
    gpu.launch(kernel, blocks, COUNT_THREADS, values, start_of(values), partial)
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
    dtype = np.dtype(values.dtype)
    edges_there = _edges_of(edges, dtype)
    counts = gpu.upload(np.zeros(edges.size + 2, np.int64))
    copies = copies_of(edges.size + 3)  # below, above, NaN, and one that is not read
    cells = cells_of(edges_there) if copies and not linear else None
    if not values.size:
        pass
    elif linear and copies:
        scale, margin = _scale_of(edges, dtype)
        places = fixed_places(edges.size + 1, dtype, margin)
        gpu.launch(
            EVEN_BINS[dtype], grid_for(gpu, values.size, AT_ONCE), COUNT_THREADS, values,
            start_of(values), gpu.upload(edges_there), scale, places.origin, places.whole,
            places.mask, places.near, _logarithm(copies), counts,
        )  # fmt: skip
    elif cells is not None:
        gpu.launch(
            CELLS[dtype], grid_for(gpu, values.size, AT_ONCE), COUNT_THREADS, values,
            start_of(values), gpu.upload(edges_there), gpu.upload(cells.entries),
            np.int32(cells.low), np.int32(cells.high), np.uint32(cells.bits),
            _logarithm(copies_of(cells.entries.size, TABLE)), _logarithm(copies), counts,
        )  # fmt: skip
    else:
        _count_freely(gpu, values, edges, edges_there, linear, counts)
    return gpu.download(counts)


def _logarithm(copies: int) -> Any:
    return np.uint32(copies.bit_length() - 1)


def _count_freely(
    gpu: Gpu, values: Any, edges: np.ndarray, edges_there: np.ndarray, linear: bool, counts: Any
) -> None:
    """Count between edges that are many, or close to each other."""
    kernel, unsigned = BINS[edges_there.dtype]
    dtype = edges_there.dtype
    scale, margin = _scale_of(edges, dtype)
    table = np.zeros(1, np.int32) if linear else _places_of(edges_there)
    gpu.launch(
        kernel, grid_for(gpu, values.size), COUNT_THREADS,
        values, values.view(unsigned), gpu.upload(edges_there), gpu.upload(table), linear,
        scale, dtype.type(4 * margin), copies_of(edges.size + 2), counts,
    )  # fmt: skip


def _scale_of(edges: np.ndarray, dtype: np.dtype) -> tuple[Any, float]:
    """Return bins for a unit, and how far from an edge, in bins, a place found so may be wrong.

    Of ``(x - first) * scale``: ``first`` is off by up to one step of the dtype, ``scale`` and both
    results by half a step.
    """
    scale = (edges.size - 1) / float(edges[-1] - edges[0])
    reach = max(abs(float(edges[0])), abs(float(edges[-1])))
    margin = np.finfo(dtype).eps * (1.5 * edges.size + reach * scale)
    return dtype.type(scale), margin


def _edges_of(edges: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return edges of a dtype.

    The least float32 that is not below an edge divides the float32 numbers as the edge does.
    """
    typed = edges.astype(dtype)
    return np.where(typed < edges, np.nextafter(typed, dtype.type(np.inf)), typed)


def _places_of(edges: np.ndarray) -> np.ndarray:
    """Return how many edges have leading bits less than each number of 16 bits, and of all."""
    dtype = edges.dtype
    signed = (edges + dtype.type(0)).view(np.int32 if dtype.itemsize == 4 else np.int64)
    leading = signed >> (8 * dtype.itemsize - 16)  # -0.0 has become 0.0
    keys = np.where(leading < 0, ~leading & 0x7FFF, leading | 1 << 15)
    return np.searchsorted(keys, np.arange((1 << 16) + 1)).astype(np.int32)


def bucket_counts(array: Any, scale: float, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Count magnitudes in a sketch's buckets: int64, shapes (2, buckets) and (4,)."""
    gpu, values = as_device_values(array)
    counts = gpu.zeros(2 * buckets, np.int64)
    special = gpu.zeros(4, np.int64)
    if values.size:
        greatest = _greatest_of_sample(gpu, values)
        window = window_below(greatest, scale, np.dtype(values.dtype))
        if window is not None:
            _count_in_window(gpu, values, scale, window, counts, special)
        else:
            gpu.launch(
                count_in_buckets, grid_for(gpu, values.size), COUNT_THREADS,
                values, scale, _window_end(greatest, scale, buckets), counts, special,
            )  # fmt: skip
    return gpu.download(counts).reshape(2, buckets), gpu.download(special)


def _greatest_of_sample(gpu: Gpu, values: Any) -> float:
    """Return the greatest magnitude of a sample's finite numbers; most are not far below it."""
    sample = np.abs(gpu.download(values[: 1 << 14]).astype(np.float64))
    return float(sample.max(initial=0.0, where=np.isfinite(sample)))


def _window_end(greatest: float, scale: float, buckets: int) -> int:
    """Return the bucket above some times a magnitude."""
    if greatest == 0:
        return buckets
    exponent = float(np.log2(greatest)) + 1022
    return int(min(max(exponent * scale + 4 * scale, HALF), buckets))


def _count_in_window(
    gpu: Gpu, values: Any, scale: float, window: SketchWindow, counts: Any, special: Any
) -> None:
    places = window.places
    gpu.launch(
        SKETCHES[np.dtype(values.dtype)], grid_for(gpu, values.size, AT_ONCE), COUNT_THREADS,
        values, start_of(values), scale, window.bottom, np.float32(window.start), places.origin,
        places.whole, places.near, window.base, np.uint32(window.buckets),
        _logarithm(copies_of(2 * window.buckets + 1, ROOM)), counts, special,
    )  # fmt: skip


def device_entropy_terms(array: Any) -> Any:
    """Return ``-p log p`` of each value as a float64 array on the device."""
    gpu, values = as_device_values(array)
    terms = gpu.empty(values.size, np.float64)
    gpu.launch(write_entropy_terms, grid_for(gpu, values.size), COUNT_THREADS, values, terms)
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
