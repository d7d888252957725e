"""Which blocks attention reads next, so that their lines are asked for before.

Blocks lie anywhere in memory. A burst of requests for whole blocks waits for the few buffers that
lines on their way take, and so does all that is read behind it. So products ask for a few lines
between each other, evenly (see pair_products.py): with 32 sequences of 512 tokens, from memory, a
tile took 8.1 us instead of 11.2 on a Zen 4, and 11.4 instead of 13.8 where two threads did it.
"""

from __future__ import annotations

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS, tile_of
from numbatch.kernels.simd_bfloat16 import prefetch_bytes

__all__ = ["ask_for_first", "blocks_ahead", "first_blocks", "four_blocks"]

TILE_BLOCKS = KEYS // BLOCK


@cpu_device
def first_blocks(plan, index, tables, rows, positions, window):
    """Return a tile's head, row of tables, first block and last one; of the tile that follows."""
    head, token, count = tile_of(plan, index)
    first = max(0, positions[token] - window + 1) if window > 0 else 0
    return head, tables[rows[token]], first // KEYS * TILE_BLOCKS, (
        positions[token] + count - 1
    ) // BLOCK  # fmt: skip


@cpu_device
def ask_for_first(cache, layer, following):
    """Ask for the first blocks of a tile at once, where products do not ask in between."""
    head, table, first, last = following
    layers, heads, part = cache.shape[1], cache.shape[2], cache.shape[4]
    for i in range(first, min(first + 2 * TILE_BLOCKS - 1, last) + 1):
        at = ((table[i] * layers + layer) * heads + head) * 2 * part
        prefetch_bytes(cache, at, 2 * part * cache.itemsize)


@cpu_device(inline=True)
def four_blocks(table, first, last, stride, base):
    """Return where four blocks of a table begin; beyond the last one it is the last one again."""
    return (
        table[min(first, last)] * stride + base,
        table[min(first + 1, last)] * stride + base,
        table[min(first + 2, last)] * stride + base,
        table[min(first + 3, last)] * stride + base,
    )


@cpu_device(inline=True)
def blocks_ahead(table, first, last, stride, base, following, following_base):
    """Return where the four blocks from ``first`` on begin; beyond the last one, the next tile's.

    The next tile's first ones where it has not so many.
    """
    if first <= last:
        return four_blocks(table, first, last, stride, base)
    _, next_table, next_first, next_last = following
    next_at = next_first + first - (last // TILE_BLOCKS + 1) * TILE_BLOCKS
    next_at = next_first if next_at > next_last else next_at
    return four_blocks(next_table, next_at, next_last, stride, following_base)
