"""Causal attention over keys and values that lie in fixed blocks.

Tokens of many sequences stand one after another (no padding); each attends to the earlier tokens of
its own sequence through that sequence's row of the block table. Softmax runs over tiles of 64 keys
that start at fixed positions (multiples of 64), with a running maximum; all sums are in one order.
What a token may not see counts as an exact zero, so its result does not depend on which tokens it
is computed with, nor on the chunks or threads: it is the same to the bit.

A step of a model, in order:

1. ``plan_attention(rows, positions, kv_heads, group, window, breaks, plan)`` -> number of items,
   once a step (once for each window, where layers differ);
2. for each layer ``store_tokens(start, stop, k, v, slots, layer, head_size, cache,
   first_head, end_head)`` over tokens;
3. then ``attend(start, stop, scratch, q, cache, tables, rows, positions, plan, layer, group,
   head_size, window, scale, cap, out)`` over the items.

``store_kv`` and ``attend`` are kernels; others call ``store_tokens`` and ``attend_tiles``.
"""

from numbatch.kernels.scoring.attention.attend import attend
from numbatch.kernels.scoring.attention.layout import (
    BLOCK,
    KV_DTYPES,
    head_width,
    kv_dtype,
    new_cache,
    part_size,
)
from numbatch.kernels.scoring.attention.plan import new_plan, plan_attention
from numbatch.kernels.scoring.attention.scratch import attention_scratch
from numbatch.kernels.scoring.attention.store import store_kv, store_tokens

__all__ = [
    "BLOCK",
    "KV_DTYPES",
    "attend",
    "attention_scratch",
    "head_width",
    "kv_dtype",
    "new_cache",
    "new_plan",
    "part_size",
    "plan_attention",
    "store_kv",
    "store_tokens",
]
