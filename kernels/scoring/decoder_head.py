"""The logits of a step's hidden states, and what sampling needs to know of each tile of them."""

from __future__ import annotations

from numbatch.kernels.barrier import meet, share
from numbatch.kernels.fork_join import call_on_team, entry_of
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.activation import softcap
from numbatch.kernels.scoring.decoder_rows import norm_and_convert
from numbatch.kernels.scoring.nucleus import TILE
from numbatch.kernels.scoring.product import multiply_range
from numbatch.kernels.scoring.row_states import reduce_tiles
from numbatch.kernels.simd import LANES
from numbatch.kernels.threads import TeamKernel

__all__ = ["prepare_rows", "run_head"]

NUMBERS = 1 << 15
"""Logits that are multiplied before they are reduced: 128 KB, still in the cache then.

Reduced later, by whichever thread drew from the row, eight sequences took 2 % longer.
"""


@cpu_kernel
def prepare_rows(start, stop, config, norm, hidden, normed, activations):
    """Norm a range of hidden states and put them into the form of a product. No error check.

    Arguments are those of :func:`run_head`.
    """
    norm_and_convert(start, stop, config[0], norm[0], hidden, normed, activations, 1)


@cpu_device(inline=True)
def _cap(out, n, first, last, config):
    """Scale and cap some columns of all rows."""
    for row in range(n):
        for i in range(first, last):
            out[row, i] = softcap(out[row, i] * config.logit_scale, config.logit_softcap)


@cpu_device
def _run_head(
    thread, threads, counter, memory, config, norm, matrix, shapes, table, hidden, normed,
    activations, out, states,
):  # fmt: skip
    """Do a thread's share of the logits of hidden states.

    No error check; called by a team as ``decoder_step.run_layers``.

    Parameters
    ----------
    norm, matrix : arrays of NORM and MATRIX, shape (1,)
        The last norm, and the matrix onto the vocabulary.
    hidden : float32 array, shape (n, padded width)
    normed : float32 array, shape (at least n, padded width)
        Overwritten.
    out : float32 array, shape (n, vocabulary padded to whole vectors)
        Modified in place.
    states : float32 array, shape (n, row_states.state_numbers(vocabulary)), or (0, any)
        Modified in place, where there are rows: the states (``logit_tiles``) of each row's tiles.
    """
    c, n, head = config[0], hidden.shape[0], matrix[0]
    first, last = share(n, 1, thread, threads)
    norm_and_convert(first, last, c, norm[0], hidden, normed, activations, 1)
    meet(counter, threads, 0)
    start, stop = share(head.rows, TILE, thread, threads)
    columns = max(1, NUMBERS // (n * TILE)) * TILE
    for begin in range(start, stop, columns):
        end = min(begin + columns, stop)
        following = head.data + (end if end < stop else start) // LANES * head.stride
        multiply_range(c.compute, begin, end, memory[thread], shapes, table, head, following,
                       activations, 0, n, out, 0, False)  # fmt: skip
        if c.logit_scale != 1 or c.logit_softcap != 0:
            _cap(out, n, begin, end, c)
        if states.shape[0]:
            reduce_tiles(out, n, begin, end, states)


_head_entry = entry_of(_run_head)


@cpu_kernel
def _launch_head(board, threads, *args):
    """Do the logits on a team."""
    return call_on_team(board, threads, _head_entry(args), args)


run_head = TeamKernel(_run_head, _launch_head)
