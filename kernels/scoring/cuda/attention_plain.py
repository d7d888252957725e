"""Causal attention as plain loops: for head sizes that have no tiles, and for the simulator.

One block works on one token and head. Positions are taken 64 at a time with an online softmax.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.scoring.cuda.words import to_bfloat16, to_float

__all__ = ["MOST_WIDTH", "attend_plain"]

CHUNK = 64

MOST_WIDTH = 512
"""The largest padded head size."""


@cuda_kernel
def attend_plain(
    q, cache, tables, tokens, rows, positions, plane, head_size, window, scale, cap, out
):
    """Attend for token ``tokens[block x]`` and head block y. No error check.

    Parameters
    ----------
    q, cache, tables, plane, head_size, window, scale, cap, out
        As for the tiles of many queries.
    tokens, rows, positions : int32 arrays
        Rows of ``q`` that are meant; the sequence and the position of each row of ``q``. Nothing is
        done where a position is negative.
    """
    query = cuda.shared.array(MOST_WIDTH, np.float32)
    result = cuda.shared.array(MOST_WIDTH, np.float32)
    scores = cuda.shared.array(CHUNK, np.float32)
    token, head = np.intp(tokens[cuda.blockIdx.x]), np.intp(cuda.blockIdx.y)
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    last = np.intp(positions[token])
    if last < 0:
        return
    kv_heads, block_size, width = cache.shape[2], cache.shape[3], cache.shape[4]
    kv_head = head // (q.shape[1] // kv_heads)
    row = np.intp(rows[token])
    for i in range(thread, width, threads):
        query[i] = to_float(q[token, head, i])
        result[i] = np.float32(0)
    first = max(np.intp(0), last - window + 1) if window > 0 else np.intp(0)
    largest, total = np.float32(-np.inf), np.float32(0)
    start = first // CHUNK * CHUNK
    while start <= last:
        cuda.syncthreads()
        for key in range(thread, CHUNK, threads):
            position = start + key
            score = np.float32(-np.inf)
            if first <= position <= last:
                block = tables[row, position // block_size]
                score = np.float32(0)
                for i in range(width):
                    value = cache[plane, block, kv_head, position % block_size, i]
                    score += query[i] * to_float(value)
                score *= scale
                if cap != np.float32(0):
                    score = cap * np.float32(math.tanh(score / cap))
            scores[key] = score
        cuda.syncthreads()
        top = largest
        for key in range(CHUNK):
            top = max(top, scores[key])
        shrink = np.float32(math.exp(largest - top))
        total *= shrink
        for key in range(CHUNK):
            total += np.float32(math.exp(scores[key] - top))
        for i in range(thread, width, threads):
            value = result[i] * shrink
            for key in range(max(first - start, 0), min(CHUNK, last - start + 1)):
                position = start + key
                block = tables[row, position // block_size]
                stored = cache[plane + 1, block, kv_head, position % block_size, i]
                value += np.float32(math.exp(scores[key] - top)) * to_float(stored)
            result[i] = value
        largest = top
        start += CHUNK
    for i in range(thread, head_size, threads):
        out[token, head * head_size + i] = to_bfloat16(result[i] / total)
