"""Which tokens are attended for together, and how much work that is."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = [
    "KEYS",
    "ROWS",
    "find_tile",
    "find_token",
    "new_plan",
    "plan_attention",
    "tile_of",
]

KEYS = 64
"""Keys in a tile; tiles start at multiples of it, whatever the batch."""

ROWS = 48
"""Queries (tokens times the heads of a group) that share a tile's loads, at most."""


def new_plan(tokens: int) -> np.ndarray:
    """Return the memory for a plan of up to ``tokens`` tokens."""
    return np.zeros((tokens + 2, 4), np.int64)


@cpu_kernel
def plan_attention(rows, positions, kv_heads, group, window, breaks, plan):
    """Cut a step's tokens into tiles of neighbours in one sequence; return the number of items.

    No error check. An item is a unit of work, not a tile: equal ranges of items take about equal
    time, because a tile belongs to the range that holds its first item.

    Parameters
    ----------
    rows, positions : int64 arrays, shape (tokens,)
        The token's sequence, and its position there.
    kv_heads, group : int
        Heads of keys, and heads of queries for each.
    window : int
        As in :func:`attend`.
    breaks : int64 array
        Tokens at which a tile must begin, if any, in rising order.
    plan : int64 array, shape (at least tokens + 2, 4)
        Modified in place. Row 0: tiles, items of one head, and ``kv_heads`` where each token is of
        a sequence of its own, else 0: the heads of a token then follow each other, so that few
        tokens' heads are worked on by two threads; else the tiles of a head do. Row ``1 + i``: the
        first item of tile ``i``, its first token, its tokens.
    """
    most = max(1, ROWS // group)
    tiles, items, token, next_break = 0, 0, 0, 0
    while token < rows.size:
        while next_break < breaks.size and breaks[next_break] <= token:
            next_break += 1
        end = breaks[next_break] if next_break < breaks.size else rows.size
        count = 1
        while (
            count < most
            and token + count < end
            and rows[token + count] == rows[token]
            and positions[token + count] == positions[token] + count
        ):
            count += 1
        first = max(0, positions[token] - window + 1) if window > 0 else 0
        keys = (positions[token] + count - 1) // KEYS - first // KEYS + 1
        tiles += 1
        plan[tiles, 0], plan[tiles, 1], plan[tiles, 2] = items, token, count
        items += keys * (1 + -(-count * group // 16))
        token += count
    alone = breaks.size == 0 and rows.size > 0 and rows[rows.size - 1] == rows.size - 1
    plan[0, 0], plan[0, 1], plan[0, 2] = tiles, items, kv_heads if alone else 0
    return items * kv_heads


@cpu_device
def find_tile(plan, item):
    """Return the first (head, tile), as ``head * tiles + tile``, that begins at ``item`` or later.

    As ``tile * heads + head`` where heads of a token follow each other. No error check.
    """
    tiles, items = plan[0, 0], plan[0, 1]
    if plan[0, 2]:
        return _find_head(plan, item)
    head, item = item // items, item % items
    low, high = 0, tiles
    while low < high:
        middle = (low + high) // 2
        if plan[1 + middle, 0] < item:
            low = middle + 1
        else:
            high = middle
    return head * tiles + low


@cpu_device
def _find_head(plan, item):
    """Do what :func:`find_tile` does where heads of a token follow each other."""
    heads, low, high = plan[0, 2], 0, plan[0, 0]
    while low + 1 < high:
        middle = (low + high) // 2
        if plan[1 + middle, 0] * heads <= item:
            low = middle
        else:
            high = middle
    first = plan[1 + low, 0]
    items = (plan[2 + low, 0] if low + 1 < plan[0, 0] else plan[0, 1]) - first
    return low * heads + (item - first * heads + items - 1) // items


@cpu_device
def find_token(plan, token):
    """Return the first tile that begins at ``token`` or later. No error check."""
    low, high = 0, plan[0, 0]
    while low < high:
        middle = (low + high) // 2
        if plan[1 + middle, 1] < token:
            low = middle + 1
        else:
            high = middle
    return low


@cpu_device
def tile_of(plan, index):
    """Return head, first token and number of tokens of what :func:`find_tile` counts."""
    if plan[0, 2]:
        tile, head = divmod(index, plan[0, 2])
    else:
        head, tile = divmod(index, plan[0, 0])
    return head, plan[1 + tile, 1], plan[1 + tile, 2]
