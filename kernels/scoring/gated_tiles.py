"""The first half of a decoder's MLP by tile registers (AMX), for many rows.

A panel of the first product and the same panel of the second take the place of two panels of one
product. Their sums, 4 KB of 32 rows, stay in the nearest cache, and are activated behind the
products of the 32 rows that follow: the CPU does both at a time. Activated when whole products were
done, which wrote their sums to the second level of the cache, 256 rows and a layer of 1,536 x 576
took 760 us instead of 650.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import configure, release
from numbatch.kernels.array_at import array_at
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.activation import GELU, activate_vector
from numbatch.kernels.scoring.activations import BFLOAT16, UP
from numbatch.kernels.scoring.bfloat16_panels import BLOCK, PANEL
from numbatch.kernels.scoring.bfloat16_product import ROWS, place_of
from numbatch.kernels.scoring.bfloat16_tiles import CHUNK, SUMS_AT
from numbatch.kernels.scoring.bfloat16_unpack import AHEAD, TILE
from numbatch.kernels.scoring.tile_groups import do_items, multiply_group, store_sums, unpack_room
from numbatch.kernels.simd import LANES, align_stack, load_float32, splat
from numbatch.kernels.simd_bfloat16 import store_bfloat16

__all__ = ["gate_and_up_by_tiles", "suits_tiles"]


@cpu_device(inline=True)
def suits_tiles(config, gate, up, rows):
    """Return whether :func:`gate_and_up_by_tiles` does what these matrices and rows need.

    Callers ask for ``HAS_TILES`` first, which Numba knows: no other CPU can compile the rest.
    """
    if config.compute != BFLOAT16 or not config.gated or rows <= 2 * ROWS:
        return False
    plain = gate.bias == 0 and up.bias == 0 and gate.bits == up.bits
    return plain and config.activation != GELU and up.columns <= CHUNK * BLOCK


@cpu_device(inline=True)
def _activate_row(stage, r, job, state):
    """Write ``act(gate) * up`` of a row as inputs of the next product, in four stages.

    ``job``: the sums of 32 rows and where they begin, the code of the activation, the inputs, of
    which row and column they begin, and how wide they are.
    """
    sums, at, code, halves, row, column, width = job
    y = state[0]
    place = at + r // ROWS * (2 * TILE // 4) + r % ROWS * LANES
    if stage == 1:
        y = activate_vector(code, True, load_float32(sums, place))
    elif stage == 3:
        y = y * load_float32(sums, place + TILE // 4)
        store_bfloat16(halves, place_of(row + r, column, width), y * UP)
    return y, y, y, y


@cpu_device(inline=True)
def _run_panels(start, stop, memory, table, bits, gate, up, x, rows, code, first_row, halves):
    """Do panels ``start`` to ``stop - 1`` of both products."""
    blocks, panels = x.shape[1] // BLOCK, (up.rows + PANEL - 1) // PANEL
    width = (panels * PANEL + BLOCK - 1) // BLOCK * BLOCK
    size, floats = up.stride // blocks, memory.view(np.float32)
    data = array_at(gate.data, (panels * gate.stride,), np.uint8)
    other, room = up.data - gate.data, unpack_room(False, blocks)
    # What is asked for ahead needs no end: behind the panels lies what is multiplied next.
    # Two places for sums: of these 32 rows, and of those before, which are activated meanwhile.
    now, before, waiting = SUMS_AT, SUMS_AT + 4 * TILE, 0
    job = (floats, before // 4, code, halves, 0, 0, width)
    for panel in range(start, stop):
        at = panel * up.stride
        for row in range(0, rows, 2 * ROWS):
            two = rows - row > ROWS
            multiply_group(
                data, at, at + other, size, bits, table, AHEAD, 0, 0, memory, room,
                0, 0, blocks, row == 0, x, row * x.shape[1], two, _activate_row, job, waiting,
            )  # fmt: skip
            store_sums(memory, now, two)
            job = (floats, now // 4, code, halves, first_row + row, panel * PANEL, width)
            now, before, waiting = before, now, min(2 * ROWS, rows - row)
    do_items(0, waiting, _activate_row, job)
    if stop == panels and panels * PANEL < width:
        _clear(first_row, rows, panels * PANEL, width, halves)


@cpu_device
def _clear(first, rows, column, width, halves):
    """Write zeros to 16 columns of some rows."""
    for row in range(first, first + rows):
        store_bfloat16(halves, place_of(row, column, width), splat(np.float32(0)))


@cpu_device
def gate_and_up_by_tiles(
    start, stop, memory, code, shapes, table, gate, up, activations, first_row, rows, inner
):
    """Do columns ``start`` to ``stop - 1`` of ``act(x @ gate) * (x @ up)``. No error check.

    Parameters
    ----------
    start, stop : int
        Multiples of 32, or the end.
    code : int
        From ``ACTIVATIONS``.
    memory, shapes, table, gate, up, activations, first_row, rows, inner
        As for ``gated.gate_and_up``, where :func:`suits_tiles` holds.
    """
    align_stack()
    width, room = (up.columns + BLOCK - 1) // BLOCK * BLOCK, (rows + ROWS - 1) // ROWS * ROWS
    x = activations[1][first_row * width :][: room * width].reshape((room, width))
    first, last = start // PANEL, (stop + PANEL - 1) // PANEL
    configure(shapes[ROWS - 1])
    if up.bits == 4:
        _run_panels(first, last, memory, table, 4, gate, up, x, rows, code, first_row, inner[1])
    elif up.bits == 8:
        _run_panels(first, last, memory, table, 8, gate, up, x, rows, code, first_row, inner[1])
    else:
        _run_panels(first, last, memory, table, 16, gate, up, x, rows, code, first_row, inner[1])
    release()
