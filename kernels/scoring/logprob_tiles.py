"""A segment of the vocabulary for log-probabilities, by tile registers (AMX).

The sums of 32 tokens and two panels, 4 KB, stay in the nearest cache, and are reduced behind the
products of the 32 tokens that follow: the CPU does both at a time. Beside products there is one
multiply-add a cycle, so few may be needed: the powers of a token's logits are relative to one whole
number, which is raised only when a logit is far above. That is a power of two, and exact: the
results are those of :mod:`logit_tiles`, whose states are relative to the largest so far.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import configure, release
from numbatch.kernels.array_at import array_at
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.activations import BFLOAT16
from numbatch.kernels.scoring.bfloat16_panels import BLOCK, PANEL
from numbatch.kernels.scoring.bfloat16_product import ROWS
from numbatch.kernels.scoring.bfloat16_tiles import CHUNK, SUMS_AT
from numbatch.kernels.scoring.bfloat16_unpack import AHEAD, TILE
from numbatch.kernels.scoring.logit_tiles import (
    BOUND,
    FACTOR,
    PER_FACTOR,
    STATE,
    largest_up_to,
    start_lanes,
    whole_part,
)
from numbatch.kernels.scoring.tile_groups import (
    do_items,
    multiply_group,
    store_sums,
    unpack_room,
)
from numbatch.kernels.simd import (
    LANES,
    align_stack,
    keep_lanes,
    load_float32,
    maximum,
    splat,
    store_float32,
    sum_lanes,
)
from numbatch.kernels.simd_exp import exp2_from, exp2_whole
from numbatch.kernels.simd_masks import above, largest_lane

__all__ = ["reduce_by_tiles", "suits_tiles"]

TOGETHER = 2 * PANEL
"""Entries of the vocabulary that are multiplied together."""

HEADROOM = np.float32(8)
"""By so many powers of two a logit may be above what the sums are relative to."""

WHOLE, LEAST, MOST, NUMBERS = range(4)
"""A token's bounds: what its sums are relative to, and its least and largest logits for that."""


@cpu_device(inline=True)
def suits_tiles(compute, head, scale, cap):
    """Return whether :func:`reduce_by_tiles` does what this head needs.

    Callers ask for ``HAS_TILES`` first, which Numba knows: no other CPU can compile the rest.
    """
    if compute != BFLOAT16 or head.bias != 0:
        return False
    return scale == 1 and cap == 0 and head.columns <= CHUNK * BLOCK


@cpu_device
def _find_target(sums, at, wanted, token, state, target_logits, largest_before):
    """Note the logit of a target, the ``wanted``-th of 32, and the largest before it."""
    other = at + TILE // 4
    target_logits[token] = sums[(other if wanted >= PANEL else at) + wanted % PANEL]
    largest = largest_lane(load_float32(state, token * STATE))
    largest = largest_up_to(sums, at, min(wanted, PANEL), largest)
    largest_before[token] = largest_up_to(sums, other, max(wanted - PANEL, 0), largest)


@cpu_device
def _set_bounds(bounds, at, whole):
    """Make a token's sums relative to two to the power of ``whole``."""
    bounds[at + WHOLE] = whole
    # Below, a power is less than 2**-125 of the largest: it is taken as that.
    bounds[at + LEAST] = (whole - np.float32(126)) * PER_FACTOR
    bounds[at + MOST] = (whole + HEADROOM) * PER_FACTOR


@cpu_device
def _raise(state, bounds, token):
    """Make a token's sums relative to the largest of its logits so far."""
    at, to = token * NUMBERS, token * STATE
    largest = largest_lane(load_float32(state, to))
    whole = largest_lane(whole_part(splat(largest)))
    scale = exp2_whole(splat(bounds[at + WHOLE] - whole))
    store_float32(state, to + LANES, load_float32(state, to + LANES) * scale)
    _set_bounds(bounds, at, whole)


@cpu_device(inline=True)
def _reduce_token(stage, i, job, given):
    """Add 32 logits of a token, the ``i``-th of 32, to its state, in four stages.

    ``job``: the sums of 32 tokens and where they begin, the first token, the first of 32 entries of
    the vocabulary, how many there are, bounds, and arguments of :func:`reduce_by_tiles`.
    """
    sums, at, token, low, entries, bounds, targets, state, target_logits, largest_before = job
    a, b, whole, least = given
    t, to = token + i, (token + i) * STATE
    place = at + i // ROWS * (2 * TILE // 4) + i % ROWS * LANES
    if stage == 0:
        wanted = targets[t] - low
        if 0 <= wanted < TOGETHER:
            _find_target(sums, place, wanted, t, state, target_logits, largest_before)
        a, b = load_float32(sums, place), load_float32(sums, place + TILE // 4)
        if entries < TOGETHER:
            a = keep_lanes(a, 0, entries, np.float32(-np.inf))
            b = keep_lanes(b, 0, entries - PANEL, np.float32(-np.inf))
        largest = maximum(b, maximum(a, load_float32(state, to)))
        store_float32(state, to, largest)
        if above(largest, splat(bounds[t * NUMBERS + MOST])):
            _raise(state, bounds, t)
        whole, least = splat(bounds[t * NUMBERS + WHOLE]), splat(bounds[t * NUMBERS + LEAST])
    elif stage == 1:
        a = exp2_from(maximum(least, a), splat(FACTOR), whole)
    elif stage == 2:
        b = exp2_from(maximum(least, b), splat(FACTOR), whole)
    else:
        store_float32(state, to + LANES, load_float32(state, to + LANES) + a + b)
    return a, b, whole, least


@cpu_device(inline=True)
def _run_panels(start, stop, memory, table, bits, head, x, bounds, targets, state, target_logits,
                largest_before):  # fmt: skip
    """Do entries ``start`` to ``stop - 1``."""
    blocks, tokens, panels = x.shape[1] // BLOCK, targets.size, (head.rows + PANEL - 1) // PANEL
    size, floats, room = head.stride // blocks, memory.view(np.float32), unpack_room(False, blocks)
    data = array_at(head.data, (panels * head.stride,), np.uint8)
    # Two places for sums: of these 32 tokens, and of those before, which are reduced meanwhile.
    now, before, waiting = SUMS_AT, SUMS_AT + 4 * TILE, 0
    job = (floats, before // 4, 0, 0, 0, bounds, targets, state, target_logits, largest_before)
    for low in range(start, stop, TOGETHER):
        a_at = low // PANEL * head.stride
        b_at = min(low // PANEL + 1, panels - 1) * head.stride
        for token in range(0, tokens, 2 * ROWS):
            two = tokens - token > ROWS
            multiply_group(
                data, a_at, b_at, size, bits, table, AHEAD, 0, 0, memory, room,
                0, 0, blocks, token == 0, x, token * x.shape[1], two, _reduce_token, job, waiting,
            )  # fmt: skip
            store_sums(memory, now, two)
            job = (floats, now // 4, token, low, stop - low, bounds, targets, state, target_logits,
                   largest_before)  # fmt: skip
            now, before, waiting = before, now, min(2 * ROWS, tokens - token)
    do_items(0, waiting, _reduce_token, job)


@cpu_device
def reduce_by_tiles(
    start, stop, memory, shapes, table, head, activations, bounds, targets, state,
    segment, largest, sums, target_logits, largest_before,
):  # fmt: skip
    """Reduce a segment of the vocabulary, entries ``start`` to ``stop - 1``. No error check.

    Parameters
    ----------
    start, stop : int
    memory, shapes, table, activations
        As for ``product.multiply_range``.
    head : record of MATRIX
        For which :func:`suits_tiles` holds.
    bounds : float32 array, shape (at least 3 * tokens,)
        Overwritten.
    targets, state, target_logits, largest_before
        As for ``logit_tiles.reduce_tile``; what is in ``state`` is overwritten.
    segment, largest, sums
        Column ``segment`` of both is set as ``logit_tiles.finish_lanes`` would.
    """
    align_stack()
    tokens, width = targets.size, (head.columns + BLOCK - 1) // BLOCK * BLOCK
    room = (tokens + ROWS - 1) // ROWS * ROWS
    x = activations[1][: room * width].reshape((room, width))
    for token in range(tokens):
        start_lanes(state, token * STATE)
        _set_bounds(bounds, token * NUMBERS, np.float32(-BOUND))
        bounds[token * NUMBERS + MOST] = -np.inf  # so that the first logits raise it
    configure(shapes[min(tokens, ROWS) - 1])
    if head.bits == 4:
        _run_panels(start, stop, memory, table, 4, head, x, bounds, targets, state, target_logits,
                    largest_before)  # fmt: skip
    elif head.bits == 8:
        _run_panels(start, stop, memory, table, 8, head, x, bounds, targets, state, target_logits,
                    largest_before)  # fmt: skip
    else:
        _run_panels(start, stop, memory, table, 16, head, x, bounds, targets, state, target_logits,
                    largest_before)  # fmt: skip
    release()
    for token in range(tokens):
        _raise(state, bounds, token)
        largest[token, segment] = largest_lane(load_float32(state, token * STATE))
        sums[token, segment] = sum_lanes(load_float32(state, token * STATE + LANES))
