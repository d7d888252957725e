"""How a thread's working memory is divided.

One float32 array; where bfloat16 lies in it, two share an element. Sections, with ``rows`` the
queries of an item (a multiple of 16) and ``deep`` the head's size padded to 32:

queries  rows * deep            scores   16 * KEYS          weights  16 * KEYS / 2
values   KEYS * width / 2       keys     KEYS * deep / 2    factors  2 * KEYS
sums     rows * 16              largest  rows               results  rows * width
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import head_width
from numbatch.kernels.scoring.attention.plan import KEYS, ROWS
from numbatch.kernels.simd import LANES

__all__ = ["attention_scratch", "sections"]

DEEP = 32
"""Numbers of bfloat16 in a row of a tile register."""


def _size(group: int, head_size: int) -> int:
    rows = -(-max(ROWS, group) // LANES) * LANES
    width, deep = head_width(head_size), -(-head_size // DEEP) * DEEP
    one_row = deep + LANES + 1 + width
    return rows * one_row + LANES * KEYS * 3 // 2 + KEYS * (width + deep + 4) // 2


def attention_scratch(threads: int, group: int, head_size: int) -> np.ndarray:
    """Return working memory, a row for each thread, for ``group`` query heads a key head."""
    size = -(-_size(group, head_size) // LANES) * LANES
    return np.zeros((threads, size), np.float32)


@cpu_device
def sections(rows, width, deep):
    """Return where the sections begin."""
    scores = rows * deep
    weights = scores + LANES * KEYS
    values = weights + LANES * KEYS // 2
    keys = values + KEYS * width // 2
    factors = keys + KEYS * deep // 2
    sums = factors + 2 * KEYS
    largest = sums + rows * LANES
    return 0, scores, weights, values, keys, factors, sums, largest, largest + rows
