"""Ranges of attention's work, for a team of threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.attention import tiles, vectors
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS, find_tile, tile_of
from numbatch.kernels.simd_bfloat16 import prefetch_bytes
from numbatch.kernels.simd_path import simd_path

__all__ = ["attend_function", "attend_kernel"]

_by_tiles, _by_vectors = tiles.attend_tile, vectors.attend_tile


@cpu_device
def _prefetch_first(plan, index, cache, tables, rows, positions, layer, window):
    """Ask for the first blocks of an item: prefetching within it is two tiles ahead."""
    head, token, count = tile_of(plan, index)
    last = positions[token] + count - 1
    first = max(0, positions[token] - window + 1) if window > 0 else 0
    layers, heads, part = cache.shape[1], cache.shape[2], cache.shape[4]
    first //= BLOCK
    for i in range(first, min(first + 2 * KEYS // BLOCK - 1, last // BLOCK) + 1):
        block = tables[rows[token], i]
        at = ((block * layers + layer) * heads + head) * 2 * part
        prefetch_bytes(cache, at, 2 * part * cache.itemsize)


@cpu_device
def attend_items_by_tiles(
    start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
    window, scale, cap, out,
):  # fmt: skip
    """See :func:`attend_function`."""
    end = find_tile(plan, stop)
    for index in range(find_tile(plan, start), end):
        if index + 1 < end:
            _prefetch_first(plan, index + 1, cache, tables, rows, positions, layer, window)
        head, token, count = tile_of(plan, index)
        _by_tiles(
            scratch, q, cache, tables[rows[token]], layer, head, group, head_size,
            token, count, positions[token], window, scale, cap, out,
        )  # fmt: skip


@cpu_device
def attend_items_by_vectors(
    start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
    window, scale, cap, out,
):  # fmt: skip
    """See :func:`attend_function`."""
    end = find_tile(plan, stop)
    for index in range(find_tile(plan, start), end):
        if index + 1 < end:
            _prefetch_first(plan, index + 1, cache, tables, rows, positions, layer, window)
        head, token, count = tile_of(plan, index)
        _by_vectors(
            scratch, q, cache, tables[rows[token]], layer, head, group, head_size,
            token, count, positions[token], window, scale, cap, out,
        )  # fmt: skip


@cpu_kernel
def attend_by_tiles(
    start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
    window, scale, cap, out,
):  # fmt: skip
    """See :func:`attend_function`."""
    attend_items_by_tiles(
        start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
        window, scale, cap, out,
    )  # fmt: skip


@cpu_kernel
def attend_by_vectors(
    start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
    window, scale, cap, out,
):  # fmt: skip
    """See :func:`attend_function`."""
    attend_items_by_vectors(
        start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group, head_size,
        window, scale, cap, out,
    )  # fmt: skip


def attend_function(dtype: np.dtype) -> Any:
    """Return the device function that attends, for a cache of this type on this CPU.

    Called as ``f(start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group,
    head_size, window, scale, cap, out)``. No error check.

    Parameters of the function
    --------------------------
    start, stop : int
        A range of the items that ``plan_attention`` counted.
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
    return attend_items_by_tiles if _has_tiles(dtype) else attend_items_by_vectors


def attend_kernel(dtype: np.dtype) -> Any:
    """Return the kernel around :func:`attend_function`, with the same arguments."""
    return attend_by_tiles if _has_tiles(dtype) else attend_by_vectors


def _has_tiles(dtype: np.dtype) -> bool:
    """Return whether tile registers are used: they know no float32."""
    return simd_path() == "amx" and dtype != np.float32
