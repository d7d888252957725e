"""How a thread's working memory is divided.

One float32 array; where bfloat16 lies in it, two share an element. Sections, with ``rows`` the
queries of an item (a multiple of 16) and ``deep`` the head's size padded to 32; "2 *" has a half
for tiles of even and of odd numbers, because work on three tiles goes on at a time. "saved" are the
sums before a unit:

queries  rows * deep              scores   2 * 16 * KEYS     weights  2 * 16 * KEYS / 2
values   KEYS * width / 2         keys     KEYS * deep / 2   factors  2 * 2 * KEYS
sums     rows * 16                largest  rows              scales   rows
results  rows * width             saved    16 * 16
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.aligned import aligned
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
    one_row = deep + LANES + 2 + width
    return rows * one_row + KEYS * (3 * LANES + (width + deep) // 2 + 4) + LANES * LANES


def attention_scratch(threads: int, group: int, head_size: int) -> np.ndarray:
    """Return working memory, a row for each thread, for ``group`` query heads a key head.

    It begins at a multiple of 64 bytes, and so does each section.
    """
    size = -(-_size(group, head_size) // LANES) * LANES
    return aligned((threads, size), np.float32)


@cpu_device
def sections(rows, width, deep):
    """Return where the sections begin."""
    scores = rows * deep
    weights = scores + 2 * LANES * KEYS
    values = weights + LANES * KEYS
    keys = values + KEYS * width // 2
    factors = keys + KEYS * deep // 2
    sums = factors + 4 * KEYS
    largest = sums + rows * LANES
    scales = largest + rows
    results = scales + rows
    saved = results + rows * width
    return 0, scores, weights, values, keys, factors, sums, largest, scales, results, saved
