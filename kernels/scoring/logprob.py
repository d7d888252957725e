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
from numbatch.kernels.scoring.bfloat16_tiles import SHAPES
from numbatch.kernels.scoring.bfloat16_unpack import HALF_BYTES, HAS_TILES
from numbatch.kernels.scoring.logit_tiles import (
    SEGMENT,
    STATE,
    finish_lanes,
    merge_segments,
    reduce_tile,
    start_lanes,
)
from numbatch.kernels.scoring.logprob_tiles import reduce_by_tiles, suits_tiles
from numbatch.kernels.scoring.product import multiply_range
from numbatch.kernels.simd import LANES
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["TOKENS", "logprob_scratch", "logprobs"]

WIDTH = 256
"""Vocabulary entries whose logits are held at a time; a divisor of ``SEGMENT``."""

TOKENS = 512
"""Tokens whose logits are held at a time; weights are unpacked anew for so many."""


@cpu_kernel
def _segment_statistics(
    start, stop, memory, scratch, compute, shapes, table, matrix, activations, scale, cap, targets,
    largest, sums, target_logits, largest_before,
):  # fmt: skip
    """Reduce the logits of vocabulary segments ``start`` to ``stop - 1``.

    No error check.

    Parameters
    ----------
    memory : uint8 array
        Of ``product_memory`` bytes; overwritten.
    scratch : float32 array, shape (at least tokens * (WIDTH + STATE),)
        Overwritten.
    compute, shapes, table, activations
        As for ``product.multiply_range``.
    matrix : array of MATRIX, shape (1,)
        The head.
    scale, cap : float32
        Factor on logits, and soft cap (0: none).
    targets : int64 array, shape (tokens,)
    largest, sums : float32 arrays, shape (tokens, segments)
        Modified in place: see :func:`finish_lanes`.
    target_logits, largest_before : float32 arrays, shape (tokens,)
        Modified in place where the target lies in the range: see :func:`reduce_tile`.
    """
    tokens, vocabulary = targets.size, matrix[0].rows
    flat = scratch[: tokens * WIDTH]
    logits = flat.reshape((tokens, WIDTH))
    state = scratch[tokens * WIDTH :][: tokens * STATE]
    for segment in range(start, stop):
        begin, end = segment * SEGMENT, min((segment + 1) * SEGMENT, vocabulary)
        if HAS_TILES and tokens > 0 and suits_tiles(compute, matrix[0], scale, cap):
            reduce_by_tiles(
                begin, end, memory, shapes, table, matrix[0], activations, flat, targets, state,
                segment, largest, sums, target_logits, largest_before,
            )  # fmt: skip
            continue
        for token in range(tokens):
            start_lanes(state, token * STATE)
        for low in range(begin, end, WIDTH):
            high = min(low + WIDTH, end)
            following = matrix[0].data + high // LANES * matrix[0].stride
            multiply_range(
                compute, low, high, memory, shapes, table, matrix[0], following,
                activations, 0, tokens, logits, low, False,
            )  # fmt: skip
            if scale != 1 or cap != 0:
                for i in range(flat.size):
                    flat[i] = softcap(flat[i] * scale, cap)
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


def logprob_scratch(threads: int) -> np.ndarray:
    """Allocate the working memory of :func:`logprobs`."""
    return np.zeros((threads, TOKENS * (WIDTH + STATE)), np.float32)


def logprobs(
    team: ThreadTeam,
    compute: int,
    matrix: np.ndarray,
    activations: tuple[np.ndarray, ...],
    scale: float,
    cap: float,
    targets: np.ndarray,
    memory: np.ndarray,
    scratch: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of one target for each hidden state, and whether it is the likeliest.

    Parameters
    ----------
    team : ThreadTeam
    compute : int
        From ``COMPUTE``.
    matrix : array of MATRIX, shape (1,)
        The head.
    activations : tuple
        ``Activations.arrays``: hidden states after the last norm, one for each target.
    scale, cap : float
        Factor on logits, and soft cap (0: none).
    targets : int64 array, shape (tokens,)
        Token ids; at most ``TOKENS``.
    memory : uint8 array, shape (threads, bytes)
        Of ``product_memory`` bytes for each thread.
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
        If a target is outside the vocabulary, or there are too many.
    """
    tokens, vocabulary = len(targets), int(matrix[0]["rows"])
    if tokens > TOKENS:
        raise ValueError(f"there are {tokens} targets, should be at most {TOKENS}")
    if tokens and not 0 <= targets.min() <= targets.max() < vocabulary:
        raise ValueError(f"targets run to {targets.max()}, the vocabulary has {vocabulary} tokens")
    logprob, greedy = np.empty(tokens, np.float32), np.empty(tokens, np.bool_)
    segments = -(-vocabulary // SEGMENT)
    largest, sums = np.empty((2, tokens, segments), np.float32)
    target_logits, largest_before = np.empty((2, tokens), np.float32)
    args = (compute, SHAPES, HALF_BYTES, matrix, activations, np.float32(scale), np.float32(cap))
    outputs = (largest, sums, target_logits, largest_before)
    team.run(
        Call(_segment_statistics, segments, (*args, targets, *outputs), scratch=(memory, scratch))
    )
    _merge(largest, sums, targets, target_logits, largest_before, logprob, greedy)
    return logprob, greedy
