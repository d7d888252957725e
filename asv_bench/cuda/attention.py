"""Attention alone against torch's SDPA (FlashAttention), Llama-3.1-8B's heads."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from asv_bench.cuda.common import copy_bandwidth, limits, row, seconds_of, torch_seconds
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.scoring.cuda.attention_decode import WARPS, attend_parts_kernel
from numbatch.kernels.scoring.cuda.attention_merge import HEADS as MERGED
from numbatch.kernels.scoring.cuda.attention_merge import SPLIT, merge_parts
from numbatch.kernels.scoring.cuda.attention_tiles import attend_tiles_kernel

HEADS, KV_HEADS = 32, 8


def _on_device(gpu: Gpu, tensor: torch.Tensor) -> Any:
    """Return a torch tensor as an array of ours; bfloat16 as uint16."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    array = gpu.empty(tuple(tensor.shape), np.dtype(str(tensor.dtype).split(".")[-1]))
    cupy.asarray(array)[...] = cupy.from_dlpack(tensor.contiguous())
    return array


def _problem(sequences: int, length: int, size: int) -> tuple[Any, ...]:
    """Return k and v of torch, the same paged in shuffled blocks, and the tables."""
    blocks = length // 16
    k, v = torch.randn(2, sequences, KV_HEADS, length, size, device="cuda", dtype=torch.bfloat16)
    tables = torch.randperm(sequences * blocks, device="cuda", dtype=torch.int32)
    tables = tables.reshape(sequences, blocks)
    cache = torch.empty(
        2, sequences * blocks, KV_HEADS, 16, size, device="cuda", dtype=torch.bfloat16
    )
    for part, x in enumerate((k, v)):
        paged = x.reshape(sequences, KV_HEADS, blocks, 16, size).transpose(1, 2)
        cache[part, tables.flatten().long()] = paged.reshape(-1, KV_HEADS, 16, size)
    return k, v, cache, tables


def prefill(size: int, sequences: int = 4, length: int = 4096) -> None:
    """Time causal attention of whole sequences."""
    gpu = Gpu()
    k, v, cache, tables = _problem(sequences, length, size)
    q = torch.randn(sequences, HEADS, length, size, device="cuda", dtype=torch.bfloat16)

    def peer() -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    scale = np.float32(size**-0.5)
    flat = q.transpose(1, 2).reshape(sequences * length, HEADS, size)
    arrays = [_on_device(gpu, each) for each in (flat, cache, tables)]
    positions = gpu.upload(np.tile(np.arange(length, dtype=np.int32), sequences))
    out = gpu.empty((sequences * length, HEADS * size), np.uint16)
    operations = 4 * sequences * HEADS * size * length * (length + 1) / 2
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        wanted = peer().transpose(1, 2).reshape(sequences * length, -1)
        flash = torch_seconds(peer)
    best = torch_seconds(peer)
    for warps in (4, 8):
        rows_ = 16 * warps
        begins = np.arange(0, sequences * length, rows_)
        begins = begins[np.argsort(-(begins % length), kind="stable")]
        tile = [gpu.upload(x.astype(np.int32)) for x in
                (begins // length, begins, np.full(len(begins), rows_))]  # fmt: skip

        def ours(warps: int = warps, tile: Any = tile, tiles: int = len(begins)) -> None:
            gpu.launch(
                attend_tiles_kernel(size, warps), (tiles, HEADS), 32 * warps, *arrays, *tile,
                positions, 0, size, 0, scale, np.float32(0), out,
            )  # fmt: skip

        seconds = seconds_of(ours, gpu.stream, warm=2)
        found = torch.from_dlpack(cupy.asarray(out)).view(torch.bfloat16).float()
        error = (found - wanted.float()).norm() / wanted.float().norm()
        if not error < 1e-2:
            raise RuntimeError(f"attention is off by {error:.1e}")
        row(
            f"prefill {sequences} x {length}, heads of {size}, {warps} warps",
            f"{operations / seconds / 1e12:.0f} TFLOP/s", f"flash {operations / flash / 1e12:.0f}",
            f"any SDPA {operations / best / 1e12:.0f}", f"{flash / seconds:.2f}",
        )  # fmt: skip


def decode(size: int, sequences: int, length: int) -> None:
    """Time attention of one new token a sequence."""
    gpu = Gpu()
    k, v, cache, tables = _problem(sequences, length, size)
    q = torch.randn(sequences, HEADS, 1, size, device="cuda", dtype=torch.bfloat16)

    def peer() -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, enable_gqa=True)

    arrays = [_on_device(gpu, each) for each in (q[:, :, 0], cache, tables)]
    each = gpu.upload(np.arange(sequences, dtype=np.int32))
    positions = gpu.upload(np.full(sequences, length - 1, np.int32))
    parts = WARPS * -(-length // (SPLIT * WARPS))
    partial = gpu.empty((sequences, HEADS, parts, size), np.float32)
    extremes = gpu.empty((sequences, HEADS, parts, 2), np.float32)
    out = gpu.empty((sequences, HEADS * size), np.uint16)

    def ours() -> None:
        gpu.launch(
            attend_parts_kernel(size), (sequences, KV_HEADS, parts // WARPS), 32 * WARPS, *arrays,
            True, each, each, positions, 0, 0, np.float32(size**-0.5), np.float32(0), partial,
            extremes,
        )  # fmt: skip
        gpu.launch(
            merge_parts, (sequences, HEADS // MERGED), (size // 4, MERGED), partial, extremes,
            True, each, positions, size, out,
        )  # fmt: skip

    ours()
    gpu.stream.begin_capture()
    ours()
    graph = gpu.stream.end_capture()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        wanted = peer()[:, :, 0].reshape(sequences, -1).float()
        flash = torch_seconds(peer)
    best = torch_seconds(peer)
    seconds = seconds_of(lambda: graph.launch(gpu.stream), gpu.stream)
    found = torch.from_dlpack(cupy.asarray(out)).view(torch.bfloat16).float()
    error = (found - wanted).norm() / wanted.norm()
    if not error < 1e-2:
        raise RuntimeError(f"attention is off by {error:.1e}")
    size_read = 2 * sequences * KV_HEADS * length * size * 2
    row(
        f"decode {sequences} x {length}, heads of {size}",
        f"{size_read / seconds / 1e12:.2f} TB/s", f"flash {size_read / flash / 1e12:.2f}",
        f"any SDPA {size_read / best / 1e12:.2f}", f"{flash / seconds:.2f}",
        f"{size_read / seconds / copy_bandwidth():.0%} of copy",
    )  # fmt: skip


def main() -> None:
    """Print the table; the ratio is to FlashAttention."""
    print(limits())
    for size in (128, 64):
        prefill(size)
    for sequences, length in ((64, 4096), (256, 1024), (1, 4096)):
        decode(128, sequences, length)
