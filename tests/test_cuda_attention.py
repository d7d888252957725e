"""Attention on a GPU against a slow reference."""

import naive
import numpy as np
import pytest
from cuda_cases import SIMULATED, THREADS, close, needs_device, on_gpu, rounded

from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

pytestmark = needs_device


def paged(rng, lengths, kv_heads, size, width):
    """Keys and values of sequences, and the same in a cache of shuffled blocks."""
    blocks = [-(-length // 16) for length in lengths]
    order = rng.permutation(sum(blocks) + 3)
    cache = np.full((2, len(order), kv_heads, 16, width), 0x7FC0, np.uint16)  # NaN: not to be read
    tables = np.zeros((len(lengths), max(blocks)), np.int32)
    keys, taken = [], 0
    for row, length in enumerate(lengths):
        own = order[taken : taken + blocks[row]]
        tables[row, : len(own)] = own
        taken += len(own)
        both = rounded(rng.standard_normal((2, length, kv_heads, size)))
        keys.append(both)
        for position in range(length):
            place = (own[position // 16], slice(None), position % 16)
            for part in range(2):
                cache[(part, *place)] = 0
                cache[(part, *place, slice(0, size))] = bfloat16_array(both[part, position])
    return keys, cache, tables


def attend(gpu, kernel, rng, size, width, heads, kv_heads, lengths, new, window, cap):
    """Run an attention kernel on the last ``new`` tokens of sequences; compare with the naive."""
    from numbatch.kernels.scoring.cuda.attention_decode import WARPS, attend_parts_kernel
    from numbatch.kernels.scoring.cuda.attention_merge import HEADS, SPLIT, merge_parts
    from numbatch.kernels.scoring.cuda.attention_plain import attend_plain
    from numbatch.kernels.scoring.cuda.attention_tiles import attend_tiles_kernel

    keys, cache, tables = paged(rng, lengths, kv_heads, size, width)
    counts = [min(new, length) for length in lengths]
    n = sum(counts)
    queries = rounded(rng.standard_normal((n, heads, size)))
    q = np.zeros((n, heads, width), np.uint16)
    q[..., :size] = bfloat16_array(queries)
    row = np.repeat(np.arange(len(lengths)), counts).astype(np.int32)
    positions = np.concatenate(
        [np.arange(length - count, length) for length, count in zip(lengths, counts, strict=True)]
    ).astype(np.int32)
    out = gpu.upload(np.full((n, heads * size), 0x7FC0, np.uint16))
    scale, cap = np.float32(size**-0.5), np.float32(cap)
    arrays = [gpu.upload(each) for each in (q, cache, tables)]
    each = gpu.upload(np.arange(n, dtype=np.int32))
    d_row, d_positions = gpu.upload(row), gpu.upload(positions)
    if kernel == "plain":
        gpu.launch(
            attend_plain, (n, heads), THREADS, *arrays, each, d_row, d_positions, 0, size, window,
            scale, cap, out,
        )  # fmt: skip
    elif kernel == "parts":
        parts = WARPS * (-(-max(lengths) // (SPLIT * WARPS)))
        is_all = n == len(lengths)
        partial = gpu.empty((n, heads, parts, width), np.float32)
        extremes = gpu.empty((n, heads, parts, 2), np.float32)
        gpu.launch(
            attend_parts_kernel(width), (n, kv_heads, parts // WARPS), 32 * WARPS, *arrays, is_all,
            each, d_row, d_positions, 0, window, scale, cap, partial, extremes,
        )  # fmt: skip
        gpu.launch(
            merge_parts,
            (n, -(-heads // HEADS)),
            (width // 4, HEADS),
            partial,
            extremes,
            is_all,
            each,
            d_positions,
            size,
            out,
        )
    else:
        warps = int(kernel)
        starts = np.cumsum(counts) - counts
        tiles = [
            (sequence, begin, min(16 * warps, start + count - begin))
            for sequence, (start, count) in enumerate(zip(starts, counts, strict=True))
            for begin in range(start, start + count, 16 * warps)
        ]
        tile = [gpu.upload(np.array(column, np.int32)) for column in zip(*tiles, strict=True)]
        gpu.launch(
            attend_tiles_kernel(width, warps), (len(tiles), heads), 32 * warps, *arrays, *tile,
            d_positions, 0, size, window, scale, cap, out,
        )  # fmt: skip
    bits = gpu.download(out)
    found = float32_array(bits).reshape(n, heads, size)
    begin = 0
    for (k, v), length, count in zip(keys, lengths, counts, strict=True):
        padding = np.zeros((length - count, heads, size))
        whole = np.concatenate([padding, queries[begin : begin + count]])
        wanted = naive.attention(whole, k, v, float(scale), window, float(cap))[-count:]
        close(found[begin : begin + count], wanted, 6e-3)
        begin += count
    return bits


@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (5, 0.0), (0, 3.0), (40, 2.0)])
def test_plain_attention(gpu, window, cap):
    rng = np.random.default_rng(1)
    attend(gpu, "plain", rng, 20, 32, 4, 2, [9, 70] if not SIMULATED else [5, 18], 3, window, cap)


@on_gpu
@pytest.mark.parametrize(("size", "width"), [(64, 64), (128, 128), (80, 128), (48, 64)])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (33, 0.0), (0, 3.0), (100, 2.0)])
def test_attention_of_many_queries(gpu, size, width, window, cap):
    rng = np.random.default_rng(2)
    for warps in "48":
        attend(gpu, warps, rng, size, width, 8, 2, [1, 16, 63, 64, 65, 130, 301], 200, window, cap)
        attend(gpu, warps, rng, size, width, 2, 2, [300, 17], 5, window, cap)


@on_gpu
def test_a_query_has_the_same_bits_in_any_tile(gpu):
    bits = [
        attend(gpu, warps, np.random.default_rng(3), 64, 64, 4, 2, [200], new, 0, 0.0)[-1]
        for warps, new in (("4", 200), ("4", 1), ("8", 200), ("8", 77), ("1", 200), ("1", 1))
    ]
    # The random queries differ with how many there are; those of the same number must agree.
    assert np.array_equal(bits[0], bits[2])
    assert np.array_equal(bits[0], bits[4])
    assert np.array_equal(bits[1], bits[5])


@on_gpu
@pytest.mark.parametrize(("size", "width"), [(64, 64), (128, 128), (80, 128), (50, 64)])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (33, 0.0), (300, 2.0)])
def test_attention_in_parts(gpu, size, width, window, cap):
    rng = np.random.default_rng(4)
    for heads, kv_heads in ((8, 2), (8, 1), (3, 3)):
        attend(
            gpu, "parts", rng, size, width, heads, kv_heads, [1, 5, 16, 127, 128, 129, 700], 1,
            window, cap,
        )  # fmt: skip


@on_gpu
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (33, 0.0), (300, 2.0)])
def test_attention_of_a_step_is_that_of_its_parts(gpu, width, window, cap):
    from numbatch.kernels.scoring.cuda.attention_decode import WARPS, attend_parts_kernel
    from numbatch.kernels.scoring.cuda.attention_merge import HEADS, merge_parts
    from numbatch.kernels.scoring.cuda.attention_step import (
        SPAN,
        STEP_THREADS,
        attend_step_kernel,
    )
    from numbatch.kernels.scoring.cuda.heads import prepare_heads_words

    rng = np.random.default_rng(7)
    last = np.array([0, 5, 21, 31, 32, 63, 64, 255, 256, -1, 600], np.int32)
    n, heads, kv_heads, parts = len(last), 8, 2, 12
    blocks = 4 * parts * 4
    shape = (4, n * blocks, kv_heads, 16, width)
    cache = bfloat16_array(rng.standard_normal(shape).astype(np.float32))
    pages = rng.permutation(n * blocks).reshape(n, blocks).astype(np.int32)
    for own, length in zip(pages, last, strict=True):  # not to be read
        cache[:, own[max(length, 0) // 16 + 1 :]] = 0x7FC0
        cache[:, own[max(length, 0) // 16], :, max(length, 0) % 16 :] = 0x7FC0
    tables = gpu.upload(pages)
    qkv = gpu.upload(
        bfloat16_array(rng.standard_normal((n, (heads + 2 * kv_heads) * width)).astype(np.float32))
    )
    angles = rng.random((700, width // 2))
    turns = [gpu.upload(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
    positions, rows = gpu.upload(last), gpu.upload(np.arange(n, dtype=np.int32))
    scale, cap = np.float32(width**-0.5), np.float32(cap)
    partial = gpu.empty((n, heads, parts, width), np.float32)
    extremes = gpu.empty((n, heads, parts, 2), np.float32)
    first, second = gpu.upload(cache), gpu.upload(cache)
    q = gpu.zeros((n, heads, width), np.uint16)
    wanted, found = (gpu.zeros((n, heads * width), np.uint16) for _ in range(2))
    gpu.launch(prepare_heads_words, n, 128, qkv, *turns, positions, rows, tables, 2, q, first)
    gpu.launch(
        attend_parts_kernel(width), (n, kv_heads, parts // WARPS), 32 * WARPS, q, first, tables,
        True, rows, rows, positions, 2, window, scale, cap, partial, extremes,
    )  # fmt: skip
    gpu.launch(
        merge_parts, (n, heads // HEADS), (width // 4, HEADS), partial, extremes, True, rows,
        positions, width, wanted,
    )  # fmt: skip
    waits = gpu.zeros(n * kv_heads, np.int32)

    def run(parts, out):
        gpu.launch(
            attend_step_kernel(width), (n, kv_heads, parts), STEP_THREADS, qkv, *turns, second,
            tables, positions, 2, heads, window, scale, cap, partial, extremes, waits, out,
        )  # fmt: skip
        assert not gpu.download(waits).any()
        return float32_array(gpu.download(out))

    for _ in range(2):
        close(run(-(-700 // SPAN), found), float32_array(gpu.download(wanted)), 1e-3)
    stored, own = (np.nan_to_num(float32_array(gpu.download(x))) for x in (second, first))
    close(stored, own, 1e-4)
    # One block is enough for the shorter ones, which then write their results at once.
    gpu.write(positions, np.where(last < SPAN, last, -1).astype(np.int32))
    alone = run(1, gpu.zeros((n, heads * width), np.uint16))
    close(alone[last < SPAN], float32_array(gpu.download(found))[last < SPAN], 1e-3)
