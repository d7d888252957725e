"""Exact quantiles on the device in one pass over the values, between keys that a sample gives."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of
from numbatch.kernels.statistics.cuda.bracket_kernels import (
    CELLS,
    CELLS_OF_GAP,
    CLASSES,
    EDGES,
    PASS_THREADS,
    TALLIES,
    gather_kernel,
    tally_kernel,
)
from numbatch.kernels.statistics.cuda.bracket_pass import AT_ONCE, pass_kernel
from numbatch.kernels.statistics.cuda.bracket_sample import (
    CHOOSERS,
    PARTS,
    choose_kernel,
    sample_kernel,
    sample_size,
)
from numbatch.kernels.statistics.cuda.counters import start_of
from numbatch.kernels.statistics.cuda.keys import PLACES
from numbatch.kernels.statistics.cuda.select import DeviceSelection
from numbatch.kernels.statistics.digits import numbers_of

__all__ = ["BracketSelection", "selection_on_device"]

MOST_QUANTILES = EDGES // 2
SHARE_KEPT = 16
"""A 16th of the values can be kept; more are, and all is read again, where the sample misleads."""
LEAST_ROOM = 64
MOST_SORTED = 1 << 20
"""Keys that are sorted on the host."""


class _Kernels(NamedTuple):
    sample: Any
    choose: Any
    tally: Any
    gather: Any


@functools.cache
def _kernels(unsigned: Any) -> _Kernels:
    makers = (sample_kernel, choose_kernel, tally_kernel, gather_kernel)
    return _Kernels(*(make(unsigned) for make in makers))


@functools.cache
def _pass(unsigned: Any, quantiles: int) -> Any:
    return pass_kernel(unsigned, quantiles)


def _is_worth_it(values: Any, quantiles: int) -> bool:
    """Whether the sample is small beside the values, and the quantiles few enough."""
    sample = PARTS * sample_size(np.dtype(values.dtype).itemsize)
    return 0 < quantiles <= MOST_QUANTILES and values.size >= 4 * sample


def selection_on_device(arrays: list[Any], quantiles: np.ndarray) -> Any:
    """Return what selects ranks of the values of several arrays on a device, near quantiles.

    Raises
    ------
    InputError
        If their dtypes differ or are neither float32 nor float64.
    """
    gpu = gpu_of(arrays[0], "values")
    parts = [device_vector(array, "values", gpu, ("float32", "float64")) for array in arrays]
    if len({np.dtype(part.dtype) for part in parts}) > 1:
        raise InputError("values on a GPU have both dtypes, float32 and float64, should have one")
    parts = [part for part in parts if part.size] or parts[:1]
    distinct = np.unique(quantiles)
    if len(parts) == 1 and _is_worth_it(parts[0], len(distinct)):
        return BracketSelection(gpu, parts[0], distinct)
    return DeviceSelection(gpu, parts)


class BracketSelection:
    """Selects ranks near a few quantiles of the values of an array on a device.

    Parameters
    ----------
    gpu : Gpu
    values : float32 or float64 array on it, flat
    quantiles : float64 array
        Distinct; at most ``MOST_QUANTILES``.

    Attributes
    ----------
    nans, numbers : int
        How many values are NaN, and how many are not.
    """

    def __init__(self, gpu: Gpu, values: Any, quantiles: np.ndarray) -> None:
        self._gpu, self._values = gpu, values
        self._wide = np.dtype(values.dtype) == np.float64
        self._type = np.uint64 if self._wide else np.uint32
        made = _kernels(self._type)
        estimates = gpu.empty((len(quantiles), PARTS), self._type)
        self._edges = gpu.empty(PLACES, self._type)
        ends, covered = gpu.empty(2 * len(quantiles), self._type), gpu.empty(PLACES, np.uint8)
        shares = gpu.upload(np.asarray(quantiles, np.float64))
        bits = values.view(self._type)
        threads = sample_size(bits.dtype.itemsize) // 2
        gpu.launch(made.sample, PARTS, threads, bits, shares, estimates)
        gpu.launch(made.choose, len(quantiles), CHOOSERS, estimates, ends)
        most = AT_ONCE * gpu.multiprocessors
        blocks = max(1, min(blocks_for(values.size, 4 * PASS_THREADS), most))
        self._room = max(LEAST_ROOM, values.size // (SHARE_KEPT * blocks))
        self._kept = gpu.empty(blocks * self._room, values.dtype)
        self._sizes = gpu.empty(blocks, np.int32)
        counts, tallies = gpu.zeros(CLASSES, np.int64), gpu.zeros(TALLIES, np.int32)
        gpu.launch(
            _pass(self._type, len(quantiles)), blocks, PASS_THREADS, values, start_of(values),
            ends, self._edges, covered, self._room, self._kept, self._sizes, counts,
        )  # fmt: skip
        self._blocks = blocks
        gpu.launch(made.tally, blocks, PASS_THREADS, *self._kept_and_edges(), tallies)
        found, tallied = gpu.download(counts), gpu.download(tallies)
        self._whole: DeviceSelection | None = None
        if int(gpu.download(self._sizes).max()) > self._room:
            self._whole = DeviceSelection(gpu, [values])
            self.nans, self.numbers = self._whole.nans, self._whole.numbers
            return
        self._cells = tallied[:CELLS].reshape(PLACES, CELLS_OF_GAP)
        found[0 : 2 * PLACES : 2] += self._cells.sum(axis=1)
        found[1 : 2 * PLACES - 1 : 2] += tallied[CELLS + 1 :]
        nan_class = 2 * (PLACES - 1) - 1
        self.nans = int(found[nan_class])
        self.numbers = int(values.size) - self.nans
        self._counts = found[:nan_class]
        self._keys = gpu.download(self._edges)
        self._covered = gpu.download(covered).astype(bool)  # above the edge of each place

    def _kept_and_edges(self) -> tuple[Any, ...]:
        return self._kept, self._room, self._sizes, self._edges

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        if self._whole is not None:
            return self._whole.select(ranks)
        ends = np.cumsum(self._counts)
        classes = np.searchsorted(ends, ranks, side="right")
        places = (classes + 1) // 2
        at_edge = classes % 2 == 1
        between = ~at_edge & self._covered[places]
        keys = self._keys[places].astype(np.uint64)
        if between.any():
            before = (ends - self._counts)[classes[between]]
            selected = self._select_kept(places[between], ranks[between] - before)
            if selected is None:
                between[:] = False
            else:
                keys[between] = selected
        values = numbers_of(keys, self._wide)
        missed = ~(at_edge | between)
        if missed.any():
            values[missed] = DeviceSelection(self._gpu, [self._values]).select(ranks[missed])
        return values

    def _select_kept(self, places: np.ndarray, ranks: np.ndarray) -> np.ndarray | None:
        """Return the keys of ranks among those kept above the edges of places; None: too many."""
        gpu, made, table = self._gpu, _kernels(self._type), self._cells
        ends = np.cumsum(table, axis=1)
        cells = np.array(
            [np.searchsorted(ends[p], r, "right") for p, r in zip(places, ranks, strict=True)]
        )
        wanted = np.zeros(table.shape, np.uint8)
        wanted[places, cells] = 1
        total = int(table[wanted > 0].sum())
        if total > MOST_SORTED:
            return None
        few, cursor = gpu.empty(total, self._type), gpu.zeros(1, np.int32)
        gpu.launch(
            made.gather, self._blocks, PASS_THREADS, *self._kept_and_edges(),
            gpu.upload(wanted.ravel()), few, cursor,
        )  # fmt: skip
        ordered = np.sort(gpu.download(few))
        gathered = np.where(wanted, table, 0).ravel()
        first = (np.cumsum(gathered) - gathered).reshape(table.shape)[places, cells]
        within = ranks - (ends - table)[places, cells]
        return ordered[first + within].astype(np.uint64)
