"""Ranges of attention's work, for a team of threads."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.attention import tiles, vectors
from numbatch.kernels.scoring.attention.ahead import first_blocks
from numbatch.kernels.scoring.attention.plan import find_tile, tile_of
from numbatch.kernels.simd_bfloat16 import has_bfloat16

__all__ = ["attend", "attend_tiles"]

_HAS_BFLOAT16 = has_bfloat16()


def _attend_tile(scratch: Any, q: Any, cache: Any, *rest: Any) -> None:
    """Attend in bfloat16 or in float32; chosen when a kernel is compiled."""
    raise NotImplementedError("only kernels call it")


@overload(_attend_tile)
def _choose(scratch, q, cache, *rest):
    if _HAS_BFLOAT16 and cache.dtype != types.float32:
        by_tiles = tiles.attend_tile

        def run(scratch, q, cache, *rest):
            by_tiles(scratch, q, cache, *rest)
    else:
        by_vectors = vectors.attend_tile

        def run(scratch, q, cache, *rest):
            by_vectors(scratch, q, cache, *rest)

    return run


@cpu_device
def attend_tiles(
    first, end, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
    window, scale, cap, out,
):  # fmt: skip
    """Attend for tiles ``first`` to ``end - 1`` of a plan, as ``plan.find_tile`` counts them.

    No error check. The other arguments are those of :func:`attend`.
    """
    for index in range(first, end):
        following = first_blocks(plan, min(index + 1, end - 1), tables, rows, positions, window)
        head, token, count = tile_of(plan, index)
        _attend_tile(
            scratch, q, cache, tables[rows[token]], layer, head, group, head_size,
            token, count, positions[token], window, scale, cap, out, following,
        )  # fmt: skip


@cpu_kernel
def attend(
    start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
    window, scale, cap, out,
):  # fmt: skip
    """Attend for a range of the items that ``plan_attention`` counted. No error check.

    Parameters
    ----------
    start, stop : int
    scratch : float32 array, shape (as attention_scratch gives a thread,)
        Overwritten.
    q : float32 array, shape (tokens, at least heads * head_size)
    cache : array, shape (blocks, layers, kv_heads, 2, part)
        See layout.py.
    tables : int64 array, shape (sequences, blocks of the longest)
        The blocks of each sequence, in order.
    rows, positions : int64 arrays, shape (tokens,)
        The token's sequence, and its position in its sequence.
    plan : int64 array
        Filled by ``plan_attention`` from the same rows, positions and window.
    layer, group, head_size : int
        ``group`` is the query heads that share a head of keys.
    window : int
        A token sees itself and ``window - 1`` before it; 0: all before it.
    scale, cap : float32
        Factor on scores, and soft cap (0: none).
    out : float32 array, shape (tokens, at least heads * head_size)
        Modified in place.
    """
    attend_tiles(
        find_tile(plan, start), find_tile(plan, stop), scratch, q, cache, tables, rows, positions,
        plan, layer, group, head_size, window, scale, cap, out,
    )  # fmt: skip
