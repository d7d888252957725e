"""Merging of any number of symbols, by a heap: O(n log n), whatever the text."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge

__all__ = ["merge_heap"]

_POSITION = 0xFFFFFFFF


@cpu_device
def _sift_up(heap, size, key):
    at = size
    while at > 0 and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@cpu_device
def _sift_down(heap, size, at):
    """Move the entry ``at`` down to where it belongs; ``size`` entries are in the heap."""
    key = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key


@cpu_device
def _rank(left, right, pairs, shift):
    return np.int64(find_merge(left, right, pairs, shift))


@cpu_device
def merge_heap(symbols, count, following, preceding, ranks, heap, pairs, shift):
    """Merge ``symbols[:count]`` in place; return how many are left.

    No error check. The symbols are a linked list; a heap of ``merged << 32 | position`` gives the
    next merge, and an entry is stale where ``ranks`` says otherwise. All arrays are int64;
    ``heap`` has room for ``3 * count`` entries, the others for ``count``.
    """
    size = np.intp(0)
    for i in range(count):
        following[i] = i + 1
        preceding[i] = i - 1
        ranks[i] = NOTHING
        if i + 1 < count:
            ranks[i] = _rank(symbols[i], symbols[i + 1], pairs, shift)
        if ranks[i] != NOTHING:
            heap[size] = ranks[i] << 32 | i
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, i)
    while size > 0:
        top = heap[0]
        left = top & _POSITION
        if ranks[left] != top >> 32:
            size -= 1
            heap[0] = heap[size]
            _sift_down(heap, size, np.intp(0))
            continue
        right = following[left]
        after = following[right]
        symbols[left] = ranks[left]
        symbols[right] = -1
        ranks[right] = NOTHING
        ranks[left] = NOTHING
        following[left] = after
        if after < count:
            preceding[after] = left
            ranks[left] = _rank(symbols[left], symbols[after], pairs, shift)
        if ranks[left] != NOTHING:
            heap[0] = ranks[left] << 32 | left
        else:
            size -= 1
            heap[0] = heap[size]
        _sift_down(heap, size, np.intp(0))
        before = preceding[left]
        if before >= 0:
            ranks[before] = _rank(symbols[before], symbols[left], pairs, shift)
            if ranks[before] != NOTHING:
                _sift_up(heap, size, ranks[before] << 32 | before)
                size += 1
    kept = np.intp(0)
    for i in range(count):
        if symbols[i] >= 0:
            symbols[kept] = symbols[i]
            kept += 1
    return kept
