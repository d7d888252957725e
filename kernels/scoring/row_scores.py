"""What a whole row of logits tells of the token that follows, for texts that want more of it.

Texts that want log-probabilities alone never have a row of logits
(:mod:`numbatch.kernels.scoring.logprob`). Those that want the likeliest tokens too, or a number
from a function of the user's, have a few rows at a time; the log-probabilities are the same bits.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.logit_tiles import (
    SEGMENT,
    STATE,
    finish_lanes,
    keep_largest,
    merge_segments,
    reduce_tile,
    start_lanes,
)
from numbatch.kernels.scoring.processors import call_scorer

__all__ = ["row_scratch", "score_rows"]


def row_scratch(threads: int, vocabulary: int) -> np.ndarray:
    """Allocate the working memory of :func:`score_rows`."""
    return np.zeros((threads, STATE + 2 * -(-vocabulary // SEGMENT) + 2), np.float32)


@cpu_kernel
def score_rows(
    start, stop, scratch, logits, targets, positions, scorers,
    logprob, greedy, top_ids, top_values, scores, raised,
):  # fmt: skip
    """Score the tokens after the rows ``start`` to ``stop - 1`` of logits.

    No error check.

    Parameters
    ----------
    scratch : float32 array
        From :func:`row_scratch`.
    logits : float32 array, shape (rows, vocabulary)
    targets, positions : int64 arrays, shape (rows,)
        The tokens that follow, and their places in their texts.
    scorers : int64 array, shape (rows,)
        Addresses of the users' functions; 0: none. They may modify the row of logits.
    logprob, greedy : float32 and bool arrays, shape (rows,)
        Modified in place, as by :func:`numbatch.kernels.scoring.logprob.logprobs`.
    top_ids, top_values : int64 and float32 arrays, shape (rows, n)
        Modified in place: the ``n`` likeliest tokens, likeliest first, and their
        log-probabilities; -1 where there are not so many.
    scores : float64 array, shape (rows,)
        Modified in place: what the function returned, NaN where there is none.
    raised : bool array, shape (rows,)
        Modified in place: whether it raised an exception.
    """
    size = logits.shape[1]
    segments = (size + SEGMENT - 1) // SEGMENT
    state, rest = scratch[:STATE], scratch[STATE:]
    largest, sums = rest[:segments], rest[segments : 2 * segments]
    seen, before = rest[2 * segments : 2 * segments + 1], rest[2 * segments + 1 :]
    for i in range(start, stop):
        top = top_ids.shape[1]
        for k in range(top):
            top_ids[i, k], top_values[i, k] = -1, -np.inf
        for segment in range(segments):
            low = segment * SEGMENT
            count = min(SEGMENT, size - low)
            tile = logits[i, low : low + count]
            start_lanes(state, 0)
            reduce_tile(tile, 0, 1, low, count, targets[i : i + 1], state, seen, before)
            largest[segment], sums[segment] = finish_lanes(state, 0)
            if top:
                keep_largest(tile, 0, count, low, top_values[i], top_ids[i], 0, top)
        logprob[i], greedy[i], norm = merge_segments(largest, sums, targets[i], seen[0], before[0])
        for k in range(top):
            top_values[i, k] = min(np.float64(top_values[i, k]) - norm, 0.0)
        scores[i], raised[i] = np.nan, False
        if scorers[i]:
            out = scores[i : i + 1]
            raised[i] = call_scorer(scorers[i], logits[i], targets[i], positions[i], out) != 0
