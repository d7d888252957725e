"""The pass over all values that counts them by slot, and keeps those that a quantile may be."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import load_floats, loads_begun
from numbatch.kernels.statistics.cuda.bracket_flush import ROWS, flush_maker
from numbatch.kernels.statistics.cuda.bracket_fours import (
    PASS_THREADS,
    apart_in_column,
    column_of,
    find_fours,
    first_search,
    when_loaded,
)
from numbatch.kernels.statistics.cuda.bracket_slots import (
    ALL_CELLS,
    LEVELS,
    SLOTS,
    TOTAL_KEPT,
    TOTAL_SLOTS,
    TOTAL_USED,
)
from numbatch.kernels.statistics.cuda.bracket_table import (
    TABLE,
    cell_maker,
    copy_maker,
    is_below_hurdle,
    slot_maker,
)
from numbatch.kernels.statistics.cuda.counters import clear
from numbatch.kernels.statistics.cuda.lanes import who_in_warp

__all__ = ["AT_ONCE", "pass_kernel"]

PASS_REGISTERS, AT_ONCE = 64, 4
"""Of a thread, and the blocks that run on a multiprocessor then."""
COPIES = 8
"""Of a slot's counter."""
COUNTERS = SLOTS * COPIES
LAST_LANE = 31
TURNS = np.uint32(15)
"""Turns after which eight bits of a thread's counter may be full: 16 values each."""
EVEN, FOUR, BYTE = np.uint32(0x0F0F0F0F), np.uint32(4), np.uint32(255)
LAST_COPY = np.uint32(COPIES - 1)
ONE = np.uint32(1)
NOTHING = (np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0))


@cuda_device
def _add_turn(low, high, counts):
    """Add counts of at most 15, four bits a slot, to eight bits a slot of even and odd slots."""
    return (
        np.uint32(counts[0] + np.uint32(low & EVEN)),
        np.uint32(counts[1] + np.uint32(np.uint32(low >> FOUR) & EVEN)),
        np.uint32(counts[2] + np.uint32(high & EVEN)),
        np.uint32(counts[3] + np.uint32(np.uint32(high >> FOUR) & EVEN)),
    )


def _spill(levels: int) -> Any:
    """Make the function that adds a thread's own counts to its block's, for ``2**levels`` slots."""
    pairs = 1 << (levels - 1)

    @cuda_device
    def spill(counts, counters):
        own = np.uint32(cuda.threadIdx.x) & LAST_COPY
        for pair in range(pairs):
            shift = np.uint32(8 * (pair & 3))
            even, odd = (counts[0], counts[1]) if pair < 4 else (counts[2], counts[3])
            at = np.uint32(own + np.uint32(2 * pair * COPIES))
            number = np.int32(np.uint32(even >> shift) & BYTE)
            cuda.atomic.add(counters, np.uintp(at), number)
            number = np.int32(np.uint32(odd >> shift) & BYTE)
            cuda.atomic.add(counters, np.uintp(np.uint32(at + np.uint32(COPIES))), number)

    return spill


def _over(floats: Any, levels: int) -> Any:
    """Make the function with which all threads go over values of ``2**levels`` slots."""
    size = np.dtype(floats).itemsize
    loads = 4 if size == 4 else 2  # as many as registers hold
    room = np.uint32((ROWS[size] - 4 * loads) * apart_in_column(size))
    flush, spill = flush_maker(floats, levels), _spill(levels)
    nothing = floats(0)

    @cuda_device
    def count_two(a, b, search, column, stage, counts):
        column, low, high = find_fours(a, search, column, stage, levels)
        column, more, most = find_fours(b, search, column, stage, levels)
        return column, _add_turn(np.uint32(low + more), np.uint32(high + most), counts)

    @cuda_device
    def count_one(four, search, column, stage, counts):
        column, low, high = find_fours(four, search, column, stage, levels)
        return column, _add_turn(low, high, counts)

    @cuda_device
    def finish(values, at, apart, rest, search, column, stage, counts):
        """Count the ``rest`` fours, fewer than a turn's; their loads are under way at a time."""
        a = b = c = (nothing, nothing, nothing, nothing)
        if rest > 0:
            a = load_floats(values, at)
        if loads == 4 and rest > 1:
            b = load_floats(values, at + apart)
        if loads == 4 and rest > 2:
            c = load_floats(values, at + 2 * apart)
        if rest > 0:
            column, counts = count_one(a, search, column, stage, counts)
        if loads == 4 and rest > 1:
            column, counts = count_one(b, search, column, stage, counts)
        if loads == 4 and rest > 2:
            column, counts = count_one(c, search, column, stage, counts)
        return column, counts

    @cuda_device
    def over(values, start, counters, given):
        stage, table = given[0], given[1]
        search = first_search(table, levels)
        step, whole = cuda.gridsize(1), (values.size - start) // 4 & ~LAST_LANE
        i = cuda.grid(1)
        first = column_of(stage)
        column = first
        counts, turns = NOTHING, np.uint32(0)
        while i + (loads - 1) * step < whole:  # the same for all of a warp
            a = load_floats(values, start + 4 * i)
            b = load_floats(values, start + 4 * (i + step))
            if loads == 4:
                c = load_floats(values, start + 4 * (i + 2 * step))
                d = load_floats(values, start + 4 * (i + 3 * step))
                search = when_loaded(search, a[0], b[0], c[0], d[0])
            loads_begun()
            column, counts = count_two(a, b, search, column, stage, counts)
            if loads == 4:
                column, counts = count_two(c, d, search, column, stage, counts)
            if who_in_warp(np.uint32(column - first) > room):
                column = flush(column, first, search, given)
            turns = np.uint32(turns + ONE)
            if turns == TURNS:
                spill(counts, counters)
                counts, turns = NOTHING, np.uint32(0)
            i += loads * step
        rest = (whole - (i & ~LAST_LANE) + step - 1) // step
        column, counts = finish(
            values, start + 4 * i, 4 * step, rest, search, column, stage, counts
        )
        flush(column, first, search, given)
        spill(counts, counters)

    return over


def pass_kernel(floats: Any, quantiles: int) -> Any:
    """Make the kernel for values of a dtype and so many quantiles."""
    # A slot for each bracket and one below all, or two for each where all brackets are one number.
    # Of one quantile both are four slots: code for two of them as well made registers spill.
    few, many = (max(2, n.bit_length()) for n in (quantiles, 2 * quantiles))
    over_few, over_many = _over(floats, few), _over(floats, many)
    size = np.dtype(floats).itemsize
    staged = ROWS[size] * PASS_THREADS
    copy_slots, slot_of, cell_of = copy_maker(floats), slot_maker(LEVELS), cell_maker(floats)

    @cuda_device
    def take_one(x, counters, given):
        """Count a value, and keep it where a quantile may be."""
        _, table, cells, totals, kept = given
        slot = slot_of(x, table)
        cuda.atomic.add(counters, np.uintp(np.uint32(slot * np.uint32(COPIES))), np.int32(1))
        if is_below_hurdle(x, slot, table):
            cuda.atomic.add(cells, np.uintp(cell_of(x, slot, table)), np.int32(1))
            if x == x:
                at = cuda.atomic.add(totals, TOTAL_KEPT, np.int64(1))
                if at < kept.size:
                    kept[at] = x

    @cuda_kernel(registers=PASS_REGISTERS)
    def count_and_keep(values, start, found, kept, totals):
        """Count the values in slots, and keep those that a quantile may be.

        No error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        found : array of the same dtype, shape (ENTRIES,)
            Slots, as :mod:`~numbatch.kernels.statistics.cuda.bracket_slots` lays them out.
        kept : array of the same dtype
            Modified in place: the values that are kept, in any order. Those for which there is no
            room are left out, but counted.
        totals : int64 array, shape (TOTALS,)
            Modified in place, but what is said of samples and slots. NaN are counted as kept in the
            first slot, but left out of ``kept``.
        """
        stage = cuda.shared.array(staged, floats)
        counters = cuda.shared.array(COUNTERS, np.int32)
        cells = cuda.shared.array(ALL_CELLS, np.int32)
        table = cuda.shared.array(TABLE, floats)
        copy_slots(found, cells, table)
        clear(counters)
        clear(cells)
        given = (stage, table, cells, totals, kept)
        if few == many or totals[TOTAL_USED] <= 1 << few:
            over_few(values, start, counters, given)
        else:
            over_many(values, start, counters, given)
        if cuda.blockIdx.x == 0:  # what is left at both ends
            whole = 4 * ((values.size - start) // 4 & ~LAST_LANE)
            i = np.int64(cuda.threadIdx.x)
            while i < values.size - whole:
                x = floats(values[i if i < start else i + whole])
                take_one(x, counters, given)
                i += cuda.blockDim.x
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < ALL_CELLS:
            if cells[i] > 0:
                cuda.atomic.add(totals, i, np.int64(cells[i]))
            i += cuda.blockDim.x
        slot = cuda.threadIdx.x
        while slot < SLOTS:
            total = np.int64(0)
            for k in range(COPIES):
                total += counters[slot * COPIES + k]
            if total > 0:
                cuda.atomic.add(totals, TOTAL_SLOTS + slot, total)
            slot += cuda.blockDim.x

    return count_and_keep
