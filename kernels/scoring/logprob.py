"""Log-probabilities of given tokens, without ever holding (tokens x vocabulary) logits.

The vocabulary is cut into segments of a fixed size. For each token and segment only the largest
logit, the sum of exponentials and the place of the largest are kept; these are then merged in the
order of the vocabulary. The segments do not depend on the number of threads, so the bits do not.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.activation import softcap
from numbatch.kernels.scoring.matmul import TILE_ROWS, multiply_rows, padded
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["SEGMENT", "logprob_scratch", "logprobs", "scale_logits"]

SEGMENT = 256
"""Vocabulary entries whose logits are held at a time."""

TOKENS = 128
"""Tokens whose logits are held at a time."""


@cpu_kernel
def _segment_statistics(
    start, stop, scratch, hidden, data, format, columns, bias, scale, cap, targets,
    largest, sums, best, target_logits,
):  # fmt: skip
    """Reduce the logits of vocabulary segments ``start`` to ``stop - 1``.

    No error check.

    Parameters
    ----------
    scratch : float32 array, shape (TILE_ROWS * width + tokens * SEGMENT,)
        Overwritten.
    hidden : float32 array, shape (tokens, width)
    data, format, columns, bias
        The head, as for matmul.
    scale, cap : float32
        Factor on logits, and soft cap (0: none).
    targets : int64 array, shape (tokens,)
    largest, sums, best : float32, float64 and int64 arrays, shape (tokens, segments)
        Modified in place: the largest logit, the sum of exponentials of differences from it, and
        its first place in the vocabulary. A NaN among the logits makes ``sums`` NaN.
    target_logits : float32 array, shape (tokens,)
        Modified in place where the target lies in the range.
    """
    tokens, width = hidden.shape
    vocabulary = data.shape[0]
    tile = scratch[: TILE_ROWS * width]
    logits = scratch[TILE_ROWS * width :][: tokens * SEGMENT].reshape((tokens, SEGMENT))
    for segment in range(start, stop):
        low = segment * SEGMENT
        high = min(low + SEGMENT, vocabulary)
        multiply_rows(low, high, tile, hidden, data, format, columns, logits, low)
        for token in range(tokens):
            row = logits[token, : high - low]
            place = 0
            for i in range(row.size):
                if bias.size:
                    row[i] += bias[low + i]
                row[i] = softcap(row[i] * scale, cap)
                if row[i] > row[place]:
                    place = i
            total = 0.0
            for i in range(row.size):
                total += math.exp(row[i] - row[place])
            largest[token, segment] = row[place]
            sums[token, segment] = total
            best[token, segment] = low + place
            if low <= targets[token] < high:
                target_logits[token] = row[targets[token] - low]


@cpu_kernel
def _merge_segments(largest, sums, best, targets, target_logits, logprob, greedy):
    """Merge the segments of each token, in order of the vocabulary. No error check.

    ``logprob`` (float32) and ``greedy`` (bool), both of shape (tokens,), are modified in place.
    """
    for token in range(largest.shape[0]):
        top = 0
        for segment in range(1, largest.shape[1]):
            if largest[token, segment] > largest[token, top]:
                top = segment
        peak = float(largest[token, top])
        total = 0.0
        for segment in range(largest.shape[1]):
            total += sums[token, segment] * math.exp(float(largest[token, segment]) - peak)
        logprob[token] = float(target_logits[token]) - peak - math.log(total)
        greedy[token] = best[token, top] == targets[token]


@cpu_kernel
def scale_logits(start, stop, logits, scale, cap):
    """Scale and softly cap a range of rows of ``logits`` in place. No error check."""
    for row in range(start, stop):
        for i in range(logits.shape[1]):
            logits[row, i] = softcap(logits[row, i] * scale, cap)


def logprob_scratch(threads: int, columns: int) -> np.ndarray:
    """Allocate the working memory of :func:`logprobs` for hidden states ``columns`` wide."""
    return np.zeros((threads, TILE_ROWS * padded(columns) + TOKENS * SEGMENT), np.float32)


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
        largest = np.empty((count, segments), np.float32)
        sums = np.empty((count, segments), np.float64)
        best = np.empty((count, segments), np.int64)
        target_logits = np.empty(count, np.float32)
        head = (data, format, columns, bias, np.float32(scale), np.float32(cap))
        outputs = (largest, sums, best, target_logits)
        team.run(
            Call(
                _segment_statistics,
                segments,
                (hidden[part], *head, targets[part], *outputs),
                scratch,
            )
        )
        _merge_segments(
            largest, sums, best, targets[part], target_logits, logprob[part], greedy[part]
        )
    return logprob, greedy
