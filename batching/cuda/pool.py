"""The memory for keys and values on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.batching.kv_pool import KVPool
from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu
from numbatch.models.decoder import DecoderConfig

__all__ = ["CudaKVPool", "kv_token_bytes", "padded_head"]


def padded_head(size: int) -> int:
    """Return a head's size with padding: 64 or 128 where that is enough, for the tiles."""
    for width in (64, 128):
        if width // 2 < size <= width:
            return width
    return -(-size // 16) * 16


def kv_token_bytes(config: DecoderConfig, layers: int) -> int:
    """Return the bytes that a token's keys and values take."""
    return layers * 2 * config.kv_heads * padded_head(config.head_size) * 2


class CudaKVPool(KVPool):
    """A KV pool whose blocks lie on a GPU.

    Parameters
    ----------
    gpu : Gpu
    config, layers, tokens
        As for :class:`KVPool`.

    Attributes
    ----------
    cache : uint16 array, shape (2 * layers, blocks, kv_heads, block_size, padded head size)
        bfloat16; a layer's keys, then its values.

    Raises
    ------
    DeviceError
        If there is no memory for so many tokens.
    """

    def __init__(self, gpu: Gpu, config: DecoderConfig, layers: int, tokens: int) -> None:
        self._gpu = gpu
        super().__init__(config, layers, tokens, "bfloat16")

    def _allocate(self, config: DecoderConfig, layers: int, tokens: int) -> Any:
        width = padded_head(config.head_size)
        shape = (2 * layers, self.blocks, config.kv_heads, self.block_size, width)
        try:
            return self._gpu.zeros(shape, np.uint16)
        except MemoryError as error:
            needed, (free, _) = kv_token_bytes(config, layers) * tokens, self._gpu.memory()
            raise DeviceError(
                f"a KV pool of {tokens} tokens needs {needed / 2**30:.1f} GiB of the GPU's memory, "
                f"{free / 2**30:.1f} GiB are free; ask for less with kv_tokens"
            ) from error
