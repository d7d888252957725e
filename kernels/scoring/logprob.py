"""Log-probabilities of given tokens, without ever holding (tokens x vocabulary) logits.

The vocabulary is cut into segments of a fixed size. For each token and segment only the largest
logit and the sum of powers are kept (:mod:`numbatch.kernels.scoring.logit_tiles`); these are then
merged in the order of the vocabulary. The segments do not depend on the number of threads, so the
bits do not.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.activation import softcap
from numbatch.kernels.scoring.logit_tiles import (
    SEGMENT,
    STATE,
    finish_lanes,
    merge_segments,
    reduce_tile,
    start_lanes,
)
from numbatch.kernels.scoring.matmul import TILE_ROWS, multiply_rows, padded
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["logprob_scratch", "logprobs", "scale_logits"]

WIDTH = 256
"""Vocabulary entries whose logits are held at a time; a divisor of ``SEGMENT``."""

TOKENS = 128
"""Tokens whose logits are held at a time."""


@cpu_kernel
def _segment_statistics(
    start, stop, scratch, hidden, data, format, columns, bias, scale, cap, targets,
    largest, sums, target_logits, largest_before,
):  # fmt: skip
    """Reduce the logits of vocabulary segments ``start`` to ``stop - 1``.

    No error check.

    Parameters
    ----------
    scratch : float32 array, shape (TILE_ROWS * width + tokens * (WIDTH + STATE),)
        Overwritten.
    hidden : float32 array, shape (tokens, width)
    data, format, columns, bias
        The head, as for matmul.
    scale, cap : float32
        Factor on logits, and soft cap (0: none).
    targets : int64 array, shape (tokens,)
    largest, sums : float32 arrays, shape (tokens, segments)
        Modified in place: see :func:`finish_lanes`.
    target_logits, largest_before : float32 arrays, shape (tokens,)
        Modified in place where the target lies in the range: see :func:`reduce_tile`.
    """
    tokens, width = hidden.shape
    vocabulary = data.shape[0]
    tile = scratch[: TILE_ROWS * width]
    flat = scratch[TILE_ROWS * width :][: tokens * WIDTH]
    logits = flat.reshape((tokens, WIDTH))
    state = scratch[TILE_ROWS * width + tokens * WIDTH :][: tokens * STATE]
    for segment in range(start, stop):
        for token in range(tokens):
            start_lanes(state, token * STATE)
        for low in range(segment * SEGMENT, min((segment + 1) * SEGMENT, vocabulary), WIDTH):
            high = min(low + WIDTH, vocabulary)
            multiply_rows(low, high, tile, hidden, data, format, columns, logits, low)
            for token in range(tokens):
                for i in range(high - low):
                    logit = logits[token, i]
                    if bias.size:
                        logit += bias[low + i]
                    logits[token, i] = softcap(logit * scale, cap)
            reduce_tile(
                flat, WIDTH, tokens, low, high - low, targets,
                state, target_logits, largest_before,
            )  # fmt: skip
        for token in range(tokens):
            largest[token, segment], sums[token, segment] = finish_lanes(state, token * STATE)


@cpu_kernel
def _merge(largest, sums, targets, target_logits, largest_before, logprob, greedy):
    """Merge the segments of each token, in order of the vocabulary. No error check.

    ``logprob`` (float32) and ``greedy`` (bool), both of shape (tokens,), are modified in place.
    """
    for token in range(largest.shape[0]):
        logprob[token], greedy[token], _ = merge_segments(
            largest[token], sums[token], targets[token], target_logits[token], largest_before[token]
        )


@cpu_kernel
def scale_logits(start, stop, logits, scale, cap):
    """Scale and softly cap a range of rows of ``logits`` in place. No error check."""
    for row in range(start, stop):
        for i in range(logits.shape[1]):
            logits[row, i] = softcap(logits[row, i] * scale, cap)


def logprob_scratch(threads: int, columns: int) -> np.ndarray:
    """Allocate the working memory of :func:`logprobs` for hidden states ``columns`` wide."""
    return np.zeros((threads, TILE_ROWS * padded(columns) + TOKENS * (WIDTH + STATE)), np.float32)


def logprobs(
    team: ThreadTeam,
    hidden: np.ndarray,
    data: np.ndarray,
    format: int,
    columns: int,
    bias: np.ndarray,
    scale: float,
    cap: float,
    targets: np.ndarray,
    scratch: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of one target for each hidden state, and whether it is the likeliest.

    Parameters
    ----------
    team : ThreadTeam
    hidden : float32 array, shape (tokens, padded(columns))
        Final hidden states, after the last norm.
    data, format, columns, bias
        The head, as for matmul.
    scale, cap : float
        Factor on logits, and soft cap (0: none).
    targets : int64 array, shape (tokens,)
        Token ids.
    scratch : float32 array
        From :func:`logprob_scratch`.

    Returns
    -------
    logprob : float32 array, shape (tokens,)
        Natural logarithms.
    greedy : bool array, shape (tokens,)
        True where no logit is larger and none before it equal.

    Raises
    ------
    ValueError
        If a target is outside the vocabulary or shapes do not fit.
    """
    tokens, vocabulary = len(hidden), len(data)
    if len(targets) != tokens:
        raise ValueError(f"{len(targets)} targets for {tokens} hidden states")
    if tokens and not 0 <= targets.min() <= targets.max() < vocabulary:
        raise ValueError(f"targets run to {targets.max()}, the vocabulary has {vocabulary} tokens")
    logprob = np.empty(tokens, np.float32)
    greedy = np.empty(tokens, np.bool_)
    segments = -(-vocabulary // SEGMENT)
    for low in range(0, tokens, TOKENS):
        part = slice(low, min(low + TOKENS, tokens))
        count = part.stop - part.start
        largest, sums = np.empty((2, count, segments), np.float32)
        target_logits, largest_before = np.empty((2, count), np.float32)
        head = (data, format, columns, bias, np.float32(scale), np.float32(cap))
        outputs = (largest, sums, target_logits, largest_before)
        args = (hidden[part], *head, targets[part], *outputs)
        team.run(Call(_segment_statistics, segments, args, scratch))
        _merge(
            largest, sums, targets[part], target_logits, largest_before, logprob[part], greedy[part]
        )
    return logprob, greedy
