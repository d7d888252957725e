"""How keys and values lie in memory.

The cache is an array of shape (blocks, layers, kv_heads, 2, part) and of one of three types:
float32, bfloat16 (an array of uint16), or int8. A block holds 16 consecutive tokens of a sequence.
A part is one head's keys (``[..., 0, :]``) or values (``[..., 1, :]``) in the block, laid out so
that a vector or a tile register is loaded from consecutive memory:

* keys: pairs of dimensions, then the 16 tokens: element (dimension ``d``, token ``t``) is in pair
  ``d // 2`` and lane ``t``;
* values: pairs of tokens, then the dimensions: element (token ``t``, dimension ``d``) is in pair
  ``t // 2`` and lane ``d % 16`` of group ``d // 16``.

The two of a pair are neighbours in bfloat16; in the other types the 16 first ones come before the
16 second ones (:mod:`numbatch.kernels.simd_bfloat16`). Dimensions are padded to a multiple of 16
by zeros. In int8 a part ends with a float32 factor for each of its 16 tokens.

Values are always finite: what a masked token adds is its value times an exact zero, which must be
zero. So a token whose value is not finite is stored with NaN as its key and zero as its value, and
whoever sees it gets NaN, and nobody else. For the same reason a new cache is filled with zeros.
"""

from __future__ import annotations

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.aligned import aligned
from numbatch.kernels.simd import LANES

__all__ = ["BLOCK", "KV_DTYPES", "head_width", "kv_dtype", "new_cache", "part_size"]

BLOCK = LANES
"""Tokens in a block: keys are compared with a query as one vector."""

KV_DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}
"""The types of a cache by their names; an array of uint16 holds bfloat16."""


def kv_dtype(name: str) -> np.dtype:
    """Return the NumPy type that holds ``name``.

    Raises
    ------
    InputError
        If it is not one of ``KV_DTYPES``.
    """
    if name not in KV_DTYPES:
        raise InputError(f"kv_dtype is {name!r}, should be one of {', '.join(KV_DTYPES)}")
    return np.dtype(KV_DTYPES[name])


def head_width(head_size: int) -> int:
    """Return a head's size with its padding."""
    return -(-head_size // LANES) * LANES


def part_size(head_size: int, dtype: np.dtype) -> int:
    """Return the elements of a block's keys, or values, of one head and layer."""
    factors = 4 * BLOCK if dtype == np.int8 else 0
    return BLOCK * head_width(head_size) + factors


def new_cache(
    blocks: int, layers: int, kv_heads: int, head_size: int, dtype: np.dtype
) -> np.ndarray:
    """Return a cache of zeros; the system gives its memory as it is written.

    Blocks come first because memory is given in pages of up to 2 MB: with the layers first, one
    block would take a page in each layer. The array begins at a cache line, because a tile that
    crosses lines loads six times slower.
    """
    return aligned((blocks, layers, kv_heads, 2, part_size(head_size, dtype)), dtype)
