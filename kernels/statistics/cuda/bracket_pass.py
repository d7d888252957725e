"""The pass over all values that counts them by slot, and keeps those that a quantile may be.

Where slots are to be found first, its blocks take samples, and wait for the last one to lay slots
out: with a launch of its own for that, 1 GB took 7 to 20 us longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel, is_simulated
from numbatch.kernels.statistics.cuda.bracket_ahead import (
    AHEAD_BYTES,
    FOURS,
    TURNS_AHEAD,
    copies_maker,
    first_place,
)
from numbatch.kernels.statistics.cuda.bracket_flush import ROWS, flush_maker
from numbatch.kernels.statistics.cuda.bracket_fours import (
    PASS_THREADS,
    apart_in_column,
    column_of,
    find_fours,
    first_search,
)
from numbatch.kernels.statistics.cuda.bracket_sample import sampler_of_parts, wait_for_slots
from numbatch.kernels.statistics.cuda.bracket_slots import (
    ALL_CELLS,
    EDGES,
    LEVELS,
    PLACES,
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
MERGED = 2 * PLACES
TURNS = np.int32(31)
"""Turns after which eight bits of a thread's counter may be full: at most eight values each."""
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
    fours = FOURS[size]
    room = np.uint32((ROWS[size] - 4 * fours) * apart_in_column(size))
    flush, spill = flush_maker(floats, levels), _spill(levels)
    copies = copies_maker(size)
    unit, first_of = copies.unit, copies.first_of
    begin, read, other_place = copies.begin, copies.read, copies.other_place

    @cuda_device
    def count(found, search, column, stage, counts):
        """Count four or eight values."""
        column, low, high = find_fours(found[:4], search, column, stage, levels)
        if fours == 2:
            column, more, most = find_fours(found[4:], search, column, stage, levels)
            low, high = np.uint32(low + more), np.uint32(high + most)
        return column, _add_turn(low, high, counts)

    @cuda_device
    def over(values, start, turns, counters, given, ahead):
        stage, table = given[0], given[1]
        search = first_search(table, levels)
        place_first = first_place(ahead)
        place = other_place(place_first, place_first)
        step = unit * (cuda.gridsize(1) // LANES)
        at = first_of(start) + TURNS_AHEAD * step
        first = column_of(stage)
        column = first
        counts, full, left = NOTHING, np.int32(turns - TURNS), turns
        while left > 0:  # the same for all of a warp
            place = other_place(place, place_first)
            found = read(place, ahead)
            begin(values, at, left > TURNS_AHEAD, place, ahead)
            at += step
            column, counts = count(found, search, column, stage, counts)
            if who_in_warp(np.uint32(column - first) > room):
                column = flush(column, first, search, given)
            left = np.int32(left - 1)
            if left == full:
                spill(counts, counters)
                counts, full = NOTHING, np.int32(left - TURNS)
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
    copies, staged = copies_maker(size), ROWS[size] * PASS_THREADS
    unit, begin_turns = copies.unit, copies.begin_turns
    ahead_size = AHEAD_BYTES // size if is_simulated() else 0
    kind = np.uint32 if size == 4 else np.uint64
    take_samples = sampler_of_parts(kind)
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

    @cuda_kernel(registers=PASS_REGISTERS, shared=AHEAD_BYTES)
    def count_and_keep(values, start, bits, shares, estimates, found, kept, totals, goes_on):
        """Count the values in slots, and keep those that a quantile may be.

        No error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        bits : uint32 or uint64 array
            The same values.
        shares, estimates : arrays
            As :func:`sampler_of_parts` has them; of size 0 where the slots are known.
        found : array of the same dtype, shape (ENTRIES,)
            Slots, as :mod:`~numbatch.kernels.statistics.cuda.bracket_slots` lays them out.
        kept : array of the same dtype
            Modified in place: the values that are kept, in any order. Those for which there is no
            room are left out, but counted.
        totals : int64 array, shape (TOTALS,)
            Modified in place, but what is said of samples and slots. NaN are counted as kept in the
            first slot, but left out of ``kept``.
        goes_on : bool
            Whether to go on when there are slots.
        """
        ahead = cuda.shared.array(ahead_size, floats)
        stage = cuda.shared.array(staged, floats)
        counters = cuda.shared.array(COUNTERS, np.int32)
        cells = cuda.shared.array(ALL_CELLS, np.int32)
        table = cuda.shared.array(TABLE, floats)
        places = cuda.shared.array(MERGED, kind)
        ends = cuda.shared.array(EDGES, kind)
        state = cuda.shared.array(1, np.int32)
        if shares.size > 0:
            held = stage.view(kind)
            take_samples(bits, shares, estimates, found, totals, held, places, ends, state)
            if not goes_on:
                return
        turns = begin_turns(values, start, ahead)
        if shares.size > 0:
            wait_for_slots(totals, TOTAL_USED)
        copy_slots(found, cells, table)
        clear(counters)
        clear(cells)
        given = (stage, table, cells, totals, kept)
        if few == many or totals[TOTAL_USED] <= 1 << few:
            over_few(values, start, turns, counters, given, ahead)
        else:
            over_many(values, start, turns, counters, given, ahead)
        if cuda.blockIdx.x == 0:  # what is left at both ends
            whole = (values.size - start) // unit * unit
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
