"""Exact quantiles on the device in one pass over the values, between numbers that a sample gives.

Samples (:mod:`~numbatch.kernels.statistics.cuda.bracket_sample`) say between which two numbers the
value of a rank probably lies. One pass (:mod:`~numbatch.kernels.statistics.cuda.bracket_pass`)
counts what is beyond them, and keeps the few that are at or between them; the counts say for sure
whether the value is among those. They also say about where, so that the same pass over what was
kept leaves a few thousand values, which are sorted on the host.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu, is_simulated
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of
from numbatch.kernels.statistics.cuda.bracket_fours import PASS_THREADS
from numbatch.kernels.statistics.cuda.bracket_pass import AT_ONCE, pass_kernel
from numbatch.kernels.statistics.cuda.bracket_sample import PARTS, SAMPLE
from numbatch.kernels.statistics.cuda.bracket_slots import (
    BEGIN,
    CELLS,
    EDGES,
    ENTRIES,
    ENTRY,
    HURDLE,
    OTHERS,
    SCALE,
    SLOTS,
    TOTAL_KEPT,
    TOTAL_SLOTS,
    TOTAL_USED,
    TOTALS,
)
from numbatch.kernels.statistics.cuda.counters import start_of
from numbatch.kernels.statistics.cuda.select import DeviceSelection

__all__ = ["BracketSelection", "selection_on_device"]

MOST_QUANTILES = EDGES // 2
SHARE_KEPT = 16
"""A 16th of the values can be kept; more are, and all is read again, where the sample misleads."""
LEAST_ROOM = 64
MOST_SORTED = 1 << 20
"""Values that are sorted on the host."""
MARGIN = 1 / 8
"""Of a cell, by which it is widened, lest rounding leave a value out."""


@functools.cache
def _pass(wide: bool, quantiles: int) -> Any:
    return pass_kernel(np.float64 if wide else np.float32, quantiles)


def _is_worth_it(values: Any, quantiles: int) -> bool:
    """Whether the sample is small beside the values, and the quantiles few enough."""
    return 0 < quantiles <= MOST_QUANTILES and values.size >= 2 * PARTS * SAMPLE


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


class _Kept(NamedTuple):
    """What a pass counted and kept."""

    values: Any
    """Those kept, on the device."""
    slots: np.ndarray
    cells: np.ndarray
    """Of values kept, in each cell of a slot."""
    others: np.ndarray
    """Of values not kept, in each slot."""
    nans: int

    def locate(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slot of each rank, its place among values kept, and whether it was kept."""
        counts = np.stack((self.cells.sum(axis=1), self.others), axis=1).ravel()
        ends = np.cumsum(counts)
        classes = np.searchsorted(ends, ranks, side="right")
        slots, is_kept = classes // 2, classes % 2 == 0
        before = np.cumsum(self.others) - self.others
        return slots, ranks - before[slots], is_kept

    def cells_at(
        self, slots: np.ndarray, places: np.ndarray
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Return the first and the last cell that places are in, of each slot that has some."""
        ends = np.cumsum(self.cells.ravel())
        cells = np.searchsorted(ends, places, side="right") - slots * CELLS
        both = list(zip(slots.tolist(), cells.tolist(), strict=True))
        last = dict(both)
        first = {slot: min(c for s, c in both if s == slot) for slot in last}
        return first, last

    def narrowed(self, first: dict[int, int], last: dict[int, int]) -> np.ndarray:
        """Return slots that keep a few cells, from the first to the last, of each slot."""
        kind = self.slots.dtype.type
        layout = np.full((SLOTS, ENTRY), np.nan, kind)
        layout[:, SCALE], layout[:, HURDLE] = 0, -np.inf
        for i, slot in enumerate(first, 1):
            begin, scale, hurdle, _ = self.slots[slot]
            layout[i, BEGIN], layout[i, HURDLE] = begin, hurdle
            if scale > 0:
                low = float(begin) + (first[slot] - MARGIN) / float(scale)
                high = float(begin) + (last[slot] + 1 + MARGIN) / float(scale)
                if first[slot] > 0:
                    layout[i, BEGIN] = max(begin, np.nextafter(kind(low), kind(-np.inf)))
                if last[slot] < CELLS - 1:
                    layout[i, HURDLE] = min(hurdle, np.nextafter(kind(high), kind(np.inf)))
        return layout


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
        self._gpu, self._values, self._shares = gpu, values, np.asarray(quantiles, np.float64)
        self._wide = np.dtype(values.dtype) == np.float64
        self._bits = np.uint64 if self._wide else np.uint32
        room = max(LEAST_ROOM, values.size // SHARE_KEPT)
        # What is kept, or what else selects where too much would be.
        self._selection = self._first_pass(room) or DeviceSelection(gpu, [values])
        self.nans = self._selection.nans
        self.numbers = int(values.size) - self.nans

    def _first_pass(self, room: int) -> _Kept | None:
        """Count all values in slots that a sample of them says, and keep some; None as below."""
        gpu, values = self._gpu, self._values
        slots, totals = gpu.empty(ENTRIES, values.dtype), gpu.zeros(TOTALS, np.int64)
        estimates = gpu.empty(len(self._shares) * PARTS, self._bits)
        sampled = gpu.upload(self._shares), estimates
        if is_simulated():  # where blocks run one after another, so none can wait for slots
            self._launch(values, *sampled, slots, gpu.empty(1, values.dtype), totals, False)
            sampled = self._nothing_sampled()
        return self._pass(values, sampled, slots, totals, room)

    def _nothing_sampled(self) -> tuple[Any, Any]:
        """Return what a pass has instead of shares and estimates where the slots are known."""
        return self._gpu.empty(0, np.float64), self._gpu.empty(0, self._bits)

    def _launch(
        self, values: Any, shares: Any, estimates: Any, slots: Any, kept: Any, totals: Any,
        goes_on: bool = True,
    ) -> None:  # fmt: skip
        gpu = self._gpu
        most = AT_ONCE * gpu.multiprocessors
        blocks = max(1, min(blocks_for(values.size, 4 * PASS_THREADS), most))
        gpu.launch(
            _pass(self._wide, len(self._shares)), blocks, PASS_THREADS, values, start_of(values),
            values.view(self._bits), shares, estimates, slots, kept, totals, goes_on,
        )  # fmt: skip

    def _pass(
        self, values: Any, sampled: tuple[Any, Any], slots: Any, totals: Any, room: int,
        layout: np.ndarray | None = None,
    ) -> _Kept | None:  # fmt: skip
        """Count values in slots, and keep some; None if there is no room for all of those.

        ``layout`` is what the slots are, where that is known.
        """
        gpu = self._gpu
        kept = gpu.empty(room, values.dtype)
        self._launch(values, *sampled, slots, kept, totals)
        found = gpu.download(totals)
        size = int(found[TOTAL_KEPT])
        if size > room:
            return None
        cells = found[:TOTAL_SLOTS].reshape(SLOTS, CELLS)
        others = found[TOTAL_SLOTS : TOTAL_SLOTS + SLOTS] - cells.sum(axis=1)
        nans = int(cells[0].sum())  # the first slot has nothing else to keep
        cells[0] = 0
        if layout is None:
            layout = gpu.download(slots).reshape(SLOTS, ENTRY)
        return _Kept(kept[:size], layout, cells, others, nans)

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        kept = self._selection
        if not isinstance(kept, _Kept):
            return kept.select(ranks)
        slots, places, is_kept = kept.locate(ranks)
        found = kept.slots[slots, OTHERS].astype(np.float64)
        missed = ~is_kept & np.isnan(found)
        if is_kept.any():
            among, is_among = self._select_kept(kept, slots[is_kept], places[is_kept])
            found[is_kept] = among
            missed[is_kept] = ~is_among
        if missed.any():
            found[missed] = DeviceSelection(self._gpu, [self._values]).select(ranks[missed])
        return found

    def _select_kept(
        self, kept: _Kept, slots: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values at places among those kept in slots, and whether each was found."""
        first, last = kept.cells_at(slots, places)
        room = sum(int(kept.cells[s, max(0, first[s] - 1) : last[s] + 2].sum()) for s in first)
        fewer = None
        if room <= MOST_SORTED:
            layout = kept.narrowed(first, last)
            totals = np.zeros(TOTALS, np.int64)
            totals[TOTAL_USED] = len(first) + 1
            on_device = self._gpu.upload(layout.ravel()), self._gpu.upload(totals)
            fewer = self._pass(kept.values, self._nothing_sampled(), *on_device, room, layout)
        if fewer is None:
            return np.zeros(len(places)), np.zeros(len(places), bool)
        _, among, is_among = fewer.locate(places)
        ordered = np.sort(self._gpu.download(fewer.values)).astype(np.float64)
        return ordered[np.where(is_among, among, 0)], is_among
