"""The states of a row's tiles of logits: all that drawing the likeliest token needs of a row.

A state is what ``logit_tiles`` keeps of ``TILE`` logits. The product onto the vocabulary makes them
while its logits are in the cache (decoder_head.py).
"""

from __future__ import annotations

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.logit_tiles import STATE, reduce_row, start_lanes
from numbatch.kernels.scoring.nucleus import TILE

__all__ = ["reduce_rows", "reduce_tiles", "state_numbers"]


def state_numbers(vocabulary: int) -> int:
    """Return how many numbers the states of a row of logits have."""
    return -(-vocabulary // TILE) * STATE


@cpu_device
def reduce_tiles(logits, rows, first, last, states):
    """Reduce some columns of the first rows of logits, tile by tile. No error check.

    Parameters
    ----------
    logits : float32 array, shape (at least rows, at least last)
    rows : int
    first, last : int
        ``first`` is a multiple of ``TILE``, and so is ``last`` unless the row ends there.
    states : float32 array, shape (at least rows, state_numbers(vocabulary))
        Modified in place.
    """
    flat, flat_states = logits.reshape(logits.size), states.reshape(states.size)
    for row in range(rows):
        at, to = row * logits.shape[1], row * states.shape[1]
        for tile in range(first // TILE, last // TILE):
            # A constant count: LLVM unrolls its loops, 1.4 times faster.
            start_lanes(flat_states, to + tile * STATE)
            reduce_row(flat, at + tile * TILE, TILE, flat_states, to + tile * STATE)
        rest = last % TILE
        if rest:
            start_lanes(flat_states, to + last // TILE * STATE)
            reduce_row(flat, at + last - rest, rest, flat_states, to + last // TILE * STATE)


@cpu_kernel
def reduce_rows(start, stop, logits, states):
    """Reduce whole rows, of logits that come from elsewhere than ``run_head``. No error check."""
    reduce_tiles(logits[start:stop], stop - start, 0, logits.shape[1], states[start:stop])
