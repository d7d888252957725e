"""Slots in a block's shared memory, as the pass over all values looks them up."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.scoring.cuda.tiles import shared_address
from numbatch.kernels.statistics.cuda.bracket_slots import (
    BEGIN,
    CELLS,
    ENTRY,
    HURDLE,
    SCALE,
    SLOTS,
)

__all__ = [
    "COUNTERS",
    "HIGH_ONE",
    "HURDLES",
    "LOW_ONE",
    "PAIR",
    "SCALES",
    "TABLE",
    "cell_maker",
    "copy_maker",
    "is_below_hurdle",
    "slot_maker",
]

PAIR = 2
TABLE = 3 * PAIR * SLOTS
"""Numbers of a table of slots in shared memory: a pair for each slot, where it begins and the 1
that slots from 8 on add to their counters; a pair for each, its hurdle and the 1 of slots before; a
pair for each, how many cells a unit has and where the first one's counter is. So no two slots are
in the same bank."""
HIGH_ONE, HURDLES, LOW_ONE = 1, PAIR * SLOTS, PAIR * SLOTS + 1
SCALES, COUNTERS = 2 * PAIR * SLOTS, 2 * PAIR * SLOTS + 1
LAST_CELL = np.uint32(CELLS - 1)

if is_simulated():

    def counter_of(cells: Any, at: Any) -> Any:
        """Return where a counter is."""
        return at

else:

    @cuda_device
    def counter_of(cells, at):
        """Return where a counter is."""
        return np.uint32(shared_address(cells) + np.uint32(np.uint32(4) * at))


def copy_maker(floats: Any) -> Any:
    """Make the function that copies slots to shared memory."""
    bits = np.uint32 if floats == np.float32 else np.uint64

    @cuda_device
    def copy_slots(found, cells, table):
        """Copy slots to a table, with the ones and places of their counters; all threads call."""
        slot = cuda.threadIdx.x
        while slot < SLOTS:
            at, pair = ENTRY * slot, PAIR * slot
            one = bits(1) << bits(4 * (slot & 7))
            low, high = (one, bits(0)) if slot < 8 else (bits(0), one)
            table[pair], table[pair + HURDLES] = found[at + BEGIN], found[at + HURDLE]
            table[pair + HIGH_ONE] = bits(high).view(floats)
            table[pair + LOW_ONE] = bits(low).view(floats)
            table[pair + SCALES] = found[at + SCALE]
            first = counter_of(cells, np.uint32(slot * CELLS))
            table[pair + COUNTERS] = bits(first).view(floats)
            slot += cuda.blockDim.x

    return copy_slots


def slot_maker(levels: int) -> Any:
    """Make the function that finds the slot of a value among ``2**levels``."""

    @cuda_device
    def slot_of(x, table):
        """Return the slot of a value; NaN is in the first."""
        slot = np.uint32(0)
        for level in range(levels):
            further = np.uint32(slot + np.uint32(1 << (levels - 1 - level)))
            begin = table[np.uintp(np.uint32(further * np.uint32(PAIR)))]
            slot = further if x >= begin else slot
        return slot

    return slot_of


@cuda_device
def is_below_hurdle(x, slot, table):
    """Whether a value of a slot is to be kept; NaN is."""
    return not x >= table[np.uintp(np.uint32(slot * np.uint32(PAIR))) + HURDLES]


def cell_maker(floats: Any) -> Any:
    """Make the function that finds the cell of a value that a slot keeps."""
    none, most = floats(0), floats(CELLS)

    @cuda_device
    def cell_of(x, slot, table):
        """Return the place of a value's cell among those of all slots.

        The difference of infinities, and NaN, are in the first cell. Greater values are in no
        lesser cell.
        """
        at = np.uintp(np.uint32(slot * np.uint32(PAIR)))
        cell = floats(floats(x - table[at]) * table[at + SCALES])
        cell = min(cell, most) if cell >= none else none
        cell = min(np.uint32(np.int32(cell)), LAST_CELL)
        return np.uint32(np.uint32(slot * np.uint32(CELLS)) + cell)

    return cell_of
