"""How much memory the parts of an engine take, from the model's own sizes."""

from __future__ import annotations

import os

from numbatch.kernels.scoring.matmul import padded
from numbatch.models.decoder import Decoder

__all__ = ["affordable_tokens", "kv_token_bytes", "machine_memory"]

KV_SHARE = 4
"""The KV pool may take one part in so many of the machine's memory, if nobody says otherwise."""


def machine_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def kv_token_bytes(decoder: Decoder) -> int:
    """Return the bytes that a token's keys and values take in the pool."""
    config = decoder.config
    return len(decoder.layers) * 2 * config.kv_heads * padded(config.head_size) * 4


def affordable_tokens(decoder: Decoder) -> int:
    """How many tokens of keys and values fit into the pool's share of the machine's memory."""
    return max(1, machine_memory() // KV_SHARE // kv_token_bytes(decoder))
