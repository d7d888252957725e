"""CUDA kernels against slow references, on a GPU or in Numba's simulator."""

import naive
import numpy as np
import pytest

from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu, cuda, cuda_kernel, is_simulated
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.cuda import logprob, rows
from numbatch.kernels.scoring.cuda.dense import Dense
from numbatch.kernels.scoring.cuda.packing import pack_matrix, unpacked
from numbatch.kernels.scoring.cuda.sampling import RECORD, sample_kernel
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

SIMULATED = is_simulated()


def _has_gpu():
    try:
        Gpu()
    except DeviceError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not (SIMULATED or _has_gpu()), reason="needs a GPU, or NUMBA_ENABLE_CUDASIM=1"
)
on_gpu = pytest.mark.skipif(SIMULATED, reason="the simulator has no tensor cores")
THREADS = 4 if SIMULATED else 128


@pytest.fixture(scope="module")
def gpu():
    return Gpu()


def rounded(x):
    """Values that bfloat16 holds, as float32."""
    return float32_array(bfloat16_array(np.asarray(x, np.float32)))


def close(found, wanted, tolerance):
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


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
    from numbatch.kernels.scoring.cuda.attention_decode import (
        SPLIT,
        WARPS,
        attend_parts_kernel,
        merge_parts,
    )
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
            merge_parts, (n, heads), width, partial, extremes, is_all, each, d_positions, size, out
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
@pytest.mark.parametrize(("size", "width"), [(64, 64), (128, 128), (80, 128)])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (33, 0.0), (300, 2.0)])
def test_attention_in_parts(gpu, size, width, window, cap):
    rng = np.random.default_rng(4)
    for heads, kv_heads in ((8, 2), (8, 1), (3, 3)):
        attend(
            gpu, "parts", rng, size, width, heads, kv_heads, [1, 5, 16, 127, 128, 129, 700], 1,
            window, cap,
        )  # fmt: skip


def quantized(rng, format, shape):
    import gguf

    kind = gguf.GGMLQuantizationType(format)
    return gguf.quants.quantize(rng.standard_normal(shape).astype(np.float32), kind)


FORMATS = [formats.F32, formats.F16, formats.Q4_0, formats.Q4_1, formats.Q8_0, formats.Q5_1]


@pytest.mark.parametrize("format", FORMATS)
def test_packing_keeps_every_weight(format):
    import gguf

    rng = np.random.default_rng(format)
    data = quantized(rng, format, (5, 320)).view(np.uint8).reshape(5, -1)
    wanted = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(format)).reshape(5, 320)
    packed = pack_matrix(data, format, 320)
    if packed.kind == "plain":
        wanted = rounded(wanted)
    assert np.array_equal(unpacked(packed), wanted)
    assert (packed.kind == "plain") == (format not in (formats.Q4_0, formats.Q4_1, formats.Q8_0))


@on_gpu
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tokens", [1, 8, 9, 35])
def test_products_with_few_inputs(gpu, format, tokens):
    from numbatch.kernels.scoring.cuda import matvec

    rng = np.random.default_rng(tokens)
    height, columns = 200, 2400 if format != formats.F32 else 500
    data = quantized(rng, format, (height, columns)).view(np.uint8).reshape(height, -1)
    packed = pack_matrix(data, format, columns)
    weights = unpacked(packed).astype(np.float64)
    padded = -(-columns // 256) * 256
    x = np.zeros((tokens + 1, padded), np.float32)
    x[:, :columns] = rounded(rng.standard_normal((tokens + 1, columns)))
    x[tokens] = np.nan  # not to be read
    nothing = np.zeros((1, 1), np.uint16)
    arrays = [
        gpu.upload(nothing if each is None else each)
        for each in (packed.words, packed.scales, packed.leasts)
    ]
    d_x = gpu.upload(bfloat16_array(x))
    wanted = x[:tokens, :columns].astype(np.float64) @ weights.T
    kernel = matvec.matvec_kernel(packed.kind, matvec.tiles_of(tokens), packed.leasts is not None)
    half = gpu.zeros((tokens, height + 7), np.uint16)
    full = gpu.upload(np.ones((tokens, height + 7), np.float32))

    def run(mode, count, apart, scale=1.0, cap=0.0):
        blocks = matvec.matvec_blocks(mode, count, tokens)
        gpu.launch(
            kernel, blocks, matvec.THREADS, *arrays, count, d_x, tokens, mode, apart, 0,
            np.float32(scale), np.float32(cap), 7, half, full,
        )  # fmt: skip

    run(matvec.STORE, height, 0)
    close(float32_array(gpu.download(half))[:, 7:], wanted, 4e-3)
    run(matvec.ADD, height, 0)
    close(gpu.download(full)[:, 7:] - 1, wanted, 2e-5)
    run(matvec.LOGITS, height, 0, 0.1, 5.0)
    close(gpu.download(full)[:, 7:], naive.softcap(wanted * np.float32(0.1), 5.0), 2e-5)
    run(matvec.GATED, 96, 100)
    gate, up = wanted[:, :96], wanted[:, 100:196]
    close(float32_array(gpu.download(half))[:, 7:103], gate / (1 + np.exp(-gate)) * up, 4e-3)


@on_gpu
@pytest.mark.parametrize("tokens", [65, 130, 300])
@pytest.mark.parametrize("sizes", [(2, 8), (2, 4), (1, 4)])
def test_products_with_many_inputs_have_the_bits_of_those_with_few(gpu, tokens, sizes):
    from numbatch.kernels.scoring.cuda import matmul_tiles, matvec

    rng = np.random.default_rng(tokens)
    height, columns = 300, 2400
    weights = rng.standard_normal((height, 2560)).astype(np.float32)
    weights[:, columns:] = 0
    x = rng.standard_normal((tokens + 5, 2560)).astype(np.float32)
    x[:, columns:] = 0
    x[:3], x[tokens + 3 :] = np.nan, np.nan  # not to be read
    d_weights, d_x = gpu.upload(bfloat16_array(weights)), gpu.upload(bfloat16_array(x))
    d_few = gpu.upload(bfloat16_array(x[3 : tokens + 3]))
    wanted = rounded(x[3 : tokens + 3]).astype(np.float64) @ rounded(weights).T.astype(np.float64)
    nothing = gpu.zeros((1, 1), np.uint16)

    def run(mode, count, apart, scale=1.0, cap=0.0):
        found = []
        for kernel in ("few", "many"):
            half = gpu.zeros((tokens, height + 7), np.uint16)
            full = gpu.upload(np.ones((tokens, height + 7), np.float32))
            rest = (mode, apart, 0, np.float32(scale), np.float32(cap), 7, half, full)
            if kernel == "few":
                gpu.launch(
                    matvec.matvec_kernel("plain", 2), matvec.matvec_blocks(mode, count, tokens),
                    matvec.THREADS, d_weights, nothing, nothing, count, d_few, tokens, *rest,
                )  # fmt: skip
            else:
                gpu.launch(
                    matmul_tiles.multiply_tiles_kernel(*sizes),
                    matmul_tiles.tile_blocks(mode, count, tokens, *sizes), matmul_tiles.THREADS,
                    d_weights, count, d_x, 3, tokens, *rest,
                )  # fmt: skip
            found.append((gpu.download(half), gpu.download(full)))
        for few, many in zip(*found, strict=True):
            assert np.array_equal(few.view(np.uint8), many.view(np.uint8))
        return float32_array(found[1][0])[:, 7:], found[1][1][:, 7:]

    close(run(matvec.STORE, height, 0)[0], wanted, 4e-3)
    close(run(matvec.ADD, height, 0)[1] - 1, wanted, 2e-5)
    close(
        run(matvec.LOGITS, height, 0, 0.1, 5.0)[1],
        naive.softcap(wanted * np.float32(0.1), 5.0), 2e-5,
    )  # fmt: skip
    gate, up = wanted[:, :140], wanted[:, 150:290]
    close(run(matvec.GATED, 140, 150)[0][:, :140], gate / (1 + np.exp(-gate)) * up, 4e-3)


@on_gpu
@pytest.mark.parametrize("columns", [250, 1024, 2400])
@pytest.mark.parametrize("height", [200, 37])
def test_products_with_one_input(gpu, height, columns):
    from numbatch.kernels.scoring.cuda import matvec

    rng = np.random.default_rng(columns)
    packed = pack_matrix(
        rng.standard_normal((height, columns)).astype(np.float32).view(np.uint8), formats.F32,
        columns,
    )  # fmt: skip
    weights = gpu.upload(packed.words)
    x = np.zeros((1, packed.words.shape[1]), np.float32)
    x[:, :columns] = rounded(rng.standard_normal(columns))
    d_x = gpu.upload(bfloat16_array(x))
    wanted = x[:, :columns].astype(np.float64) @ unpacked(packed).astype(np.float64).T
    half = gpu.zeros((1, height + 7), np.uint16)
    full = gpu.upload(np.ones((1, height + 7), np.float32))

    def run(mode, count, apart, scale=1.0, cap=0.0):
        gpu.launch(
            matvec.multiply_one, matvec.matvec_blocks(mode, count, 1)[1], matvec.THREADS, weights,
            count, d_x, mode, apart, 0, np.float32(scale), np.float32(cap), 7, half, full,
        )  # fmt: skip

    run(matvec.STORE, height, 0)
    found = float32_array(gpu.download(half))
    close(found[:, 7:], wanted, 4e-3)
    assert not found[:, :7].any()
    run(matvec.ADD, height, 0)
    close(gpu.download(full)[:, 7:] - 1, wanted, 2e-5)
    run(matvec.LOGITS, height, 0, 0.1, 5.0)
    close(gpu.download(full)[:, 7:], naive.softcap(wanted * np.float32(0.1), 5.0), 2e-5)
    inner = height // 2
    run(matvec.GATED, inner, inner)
    gate, up = wanted[:, :inner], wanted[:, inner : 2 * inner]
    found = float32_array(gpu.download(half))[:, 7 : 7 + inner]
    close(found, gate / (1 + np.exp(-gate)) * up, 4e-3)


@pytest.mark.parametrize("format", [formats.Q4_0, formats.Q4_1, formats.Q8_0])
def test_unpacking_on_the_device(gpu, format):
    from numbatch.batching.cuda.products import Products
    from numbatch.batching.cuda.weights import DeviceMatrix

    rng = np.random.default_rng(1)
    data = quantized(rng, format, (3, 64)).view(np.uint8).reshape(3, -1)
    packed = pack_matrix(data, format, 64)
    matrix = DeviceMatrix(
        packed.kind, 3, 64, gpu.upload(packed.words), gpu.upload(packed.scales),
        None if packed.leasts is None else gpu.upload(packed.leasts),
    )  # fmt: skip

    class Weights:
        none16 = None

    out = Products(gpu, Weights(), invariant=False)._unpack(matrix, (1, 3))
    assert np.array_equal(float32_array(gpu.download(out))[:, :64], rounded(unpacked(packed)[1:]))


def test_dense_products(gpu):
    rng = np.random.default_rng(5)
    x, weight = rounded(rng.standard_normal((9, 32))), rounded(rng.standard_normal((20, 32)))
    d_x, d_weight = gpu.upload(bfloat16_array(x)), gpu.upload(bfloat16_array(weight))
    out = gpu.upload(np.ones((9, 24), np.float32))
    dense = Dense(gpu)
    dense.product(d_x, d_weight, 4, 30, out, rows=(2, 18), at=(1, 3), first=5, add=True)
    wanted = np.ones((9, 24))
    wanted[1:5, 3:19] += x[5:, :30] @ weight[2:18, :30].T
    close(gpu.download(out), wanted, 1e-5)
    half = gpu.zeros((9, 20), np.uint16)
    dense.product(d_x, d_weight, 9, 32, half, rows=(0, 20))
    close(float32_array(gpu.download(half)), x @ weight.T, 4e-3)


# The second is held in registers, the last is wider than its threads can hold.
@pytest.mark.parametrize("width", [37, 60, 52, 4 * 517])
def test_norms(gpu, width):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((4, width)).astype(np.float32) * 3 + 1
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    places = np.array([2, 0, 3], np.int32)
    out = gpu.zeros((3, width + 64 - width % 64), np.uint16)
    args = [gpu.upload(each) for each in (x, places, weight)]
    gpu.launch(rows.rms_norm, 3, THREADS, *args, np.float32(1e-5), out)
    found = float32_array(gpu.download(out))
    close(found[:, :width], naive.rms_norm(x[places], weight, 1e-5), 4e-3)
    assert not found[:, width:].any()
    gpu.launch(rows.layer_norm, 3, THREADS, *args, gpu.upload(bias), np.float32(1e-5), out)
    close(
        float32_array(gpu.download(out))[:, :width],
        naive.layer_norm(x[places], weight, bias, 1e-5), 4e-3,
    )  # fmt: skip
    hidden = gpu.upload(x)
    gpu.launch(rows.add_norm, 4, THREADS, args[0], args[2], np.float32(1e-5), hidden)
    close(gpu.download(hidden), x + naive.rms_norm(x, weight, 1e-5), 1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("pairs", "has_norm"), [(6, False), (10, True), (0, False)])
def test_queries_and_keys_are_rotated_and_stored(gpu, interleaved, pairs, has_norm):
    rng = np.random.default_rng(7)
    heads, kv_heads, size, width, n = 3, 2, 20, 32, 3
    qkv = rounded(rng.standard_normal((n, (heads + 2 * kv_heads) * size)))
    bias = rng.standard_normal(qkv.shape[1]).astype(np.float32)
    weights = rng.standard_normal((2, size)).astype(np.float32) if has_norm else np.zeros((2, 0))
    frequencies = rng.random(pairs)
    angles = np.arange(40)[:, None] * frequencies
    positions, row = np.array([5, -1, 33], np.int32), np.array([0, 0, 1], np.int32)
    tables = np.array([[4, 0, 0], [1, 2, 3]], np.int32)
    q = gpu.zeros((n, heads, width), np.uint16)
    cache = gpu.zeros((4, 5, kv_heads, 16, width), np.uint16)
    arrays = [bias, *weights.astype(np.float32)]
    angles_of = [gpu.upload(turn(angles).astype(np.float32)) for turn in (np.cos, np.sin)]
    block = (1, 4) if SIMULATED else (32, 4)
    gpu.launch(
        rows.prepare_heads, (n, 2), block, gpu.upload(bfloat16_array(qkv)),
        *map(gpu.upload, arrays), np.float32(1e-6), *angles_of, interleaved,
        gpu.upload(positions), gpu.upload(row), gpu.upload(tables), 2, size, q, cache,
    )  # fmt: skip
    found_q, found = float32_array(gpu.download(q)), float32_array(gpu.download(cache))
    assert not found_q[1].any()
    assert not found[:2].any()
    for token in (0, 2):
        vectors = (qkv[token] + bias).reshape(-1, size)
        block_of = tables[row[token], positions[token] // 16]
        for head, vector in enumerate(vectors):
            wanted = vector
            if head < heads + kv_heads:
                if has_norm:
                    wanted = naive.rms_norm(vector, weights[int(head >= heads)], 1e-6)
                wanted = naive.rotate(wanted, positions[token], frequencies, interleaved)
            if head < heads:
                stored = found_q[token, head]
            else:
                part, kv_head = divmod(head - heads, kv_heads)
                stored = found[2 + part, block_of, kv_head, positions[token] % 16]
            close(stored[:size], wanted, 6e-3)
            assert not stored[size:].any()


@pytest.mark.parametrize("size", [16, 64])
def test_heads_of_whole_words_are_rotated_alike(gpu, size):
    rng = np.random.default_rng(13)
    heads, kv_heads, n = 3, 2, 3
    qkv = rounded(rng.standard_normal((n, (heads + 2 * kv_heads) * size)))
    angles = np.arange(40)[:, None] * rng.random(size // 2)
    tables = np.array([[4, 0, 0], [1, 2, 3]], np.int32)
    empty, (cosine, sine) = gpu.zeros(0, np.float32), (
        gpu.upload(turn(angles).astype(np.float32)) for turn in (np.cos, np.sin)
    )  # fmt: skip
    places = [np.array([5, -1, 33], np.int32), np.array([0, 0, 1], np.int32), tables]
    d_qkv, places = gpu.upload(bfloat16_array(qkv)), [gpu.upload(each) for each in places]
    found = []
    for kernel in (rows.prepare_heads, rows.prepare_heads_words):
        q = gpu.zeros((n, heads, size), np.uint16)
        cache = gpu.zeros((4, 5, kv_heads, 16, size), np.uint16)
        if kernel is rows.prepare_heads:
            gpu.launch(
                kernel, (n, 2), (1, 4) if SIMULATED else (32, 4), d_qkv, empty, empty, empty,
                np.float32(0), cosine, sine, False, *places, 2, size, q, cache,
            )  # fmt: skip
        else:
            gpu.launch(kernel, n, 5, d_qkv, cosine, sine, *places, 2, q, cache)
        found.append([float32_array(gpu.download(each)) for each in (q, cache)])
    assert found[0][0].any()
    assert found[0][1].any()
    for one, other in zip(*found, strict=True):
        assert np.allclose(one, other, rtol=8e-3, atol=1e-2)
        assert np.mean(one != other) < 1e-2  # a product fused with a sum may round otherwise


@pytest.mark.parametrize("code", [0, 1, 2])
def test_activations(gpu, code):
    import math

    rng = np.random.default_rng(8)
    x = rounded(rng.standard_normal((3, 48)) * 3)
    gate, up = x[:, :24].astype(np.float64), x[:, 24:]
    act = [
        lambda v: v / (1 + math.exp(-v)),
        lambda v: v / 2 * (1 + math.erf(v * 0.5**0.5)),
        lambda v: v / 2 * (1 + math.tanh((2 / math.pi) ** 0.5 * (v + 0.044715 * v**3))),
    ][code]
    active = np.vectorize(act)(gate)
    d_x, out = gpu.upload(bfloat16_array(x)), gpu.zeros((3, 32), np.uint16)
    gpu.launch(rows.activate_words, (3, 2), 2 if SIMULATED else 32, code, d_x, 24, out)
    close(float32_array(gpu.download(out))[:, :24], active * up, 5e-3)
    nothing = gpu.zeros(0, np.float32)
    gpu.launch(rows.activate, 3, THREADS, code, True, d_x, nothing, 24, out)
    close(float32_array(gpu.download(out))[:, :24], active * up, 5e-3)
    gpu.launch(rows.activate, 3, THREADS, code, False, d_x, nothing, 24, out)
    close(float32_array(gpu.download(out))[:, :24], active, 5e-3)


@pytest.mark.parametrize("piece_size", [32, 28])
def test_logprobs_from_pieces(gpu, piece_size):
    rng = np.random.default_rng(9)
    logits = (rng.standard_normal((4, 70)) * 5).astype(np.float32)
    logits[1, 40] = logits[1].max()
    logits[2, 3] = np.nan
    logits[0, 1:40] = -np.inf
    bias = rng.standard_normal(70).astype(np.float32)
    targets = np.array([0, 69, 5, int(np.argmax(naive.softcap((logits[3] + bias) * 2.0, 9.0)))])
    state = [gpu.empty(4, kind) for kind in (np.float32, np.float64, np.int32, np.float32)]
    d_targets = gpu.upload(targets.astype(np.int32))
    for low in range(0, 70, piece_size):
        piece = np.zeros((4, piece_size), np.float32)
        count = min(piece_size, 70 - low)
        piece[:, :count] = logits[:, low : low + count]
        gpu.launch(
            logprob.reduce_piece, 2, 3 if SIMULATED else 96, gpu.upload(piece), 4, low, count,
            gpu.upload(bias), np.float32(2), np.float32(9), d_targets, 0, *state,
        )  # fmt: skip
    found, greedy = gpu.empty(4, np.float32), gpu.empty(4, np.uint8)
    gpu.launch(logprob.finish_logprobs, 1, 4, 4, *state, d_targets, found, greedy)
    wanted = naive.log_softmax(naive.softcap((logits + bias).astype(np.float64) * 2, 9.0))
    wanted = wanted[np.arange(4), targets]
    found = gpu.download(found)
    assert np.isnan(found[2])
    assert np.allclose(found[[0, 1, 3]], wanted[[0, 1, 3]], atol=2e-5)
    assert gpu.download(greedy)[3] == 1
    assert gpu.download(greedy)[0] == 0


def draw(gpu, logits, params, seeds, process=None, prompt=None, wanted=2):
    """Sample rows on the GPU; return tokens, log-probabilities and the likeliest."""
    n, vocabulary = logits.shape
    history = np.array(prompt if prompt is not None else np.zeros((n, 1)), np.int32)
    past = history.shape[1]
    whole = np.array(
        [[params[6], past - 2 if past > 2 else past, seed, past + 9] for seed in seeds]
    )
    counts = gpu.zeros((n, vocabulary), np.int32)
    room = np.concatenate([history, np.zeros((n, 4), np.int32)], 1).astype(np.int32)
    record = gpu.zeros((n, RECORD + 2 * wanted), np.int32)
    gpu.launch(
        sample_kernel(process), n, 4 if SIMULATED else 512, gpu.upload(logits), vocabulary,
        gpu.upload(np.tile(np.array(params[:6], np.float64), (n, 1))),
        gpu.upload(whole.astype(np.int64)), gpu.upload(np.full((n, 1), -1, np.int32)), counts,
        gpu.upload(room), True, gpu.zeros(n, np.int32),
        gpu.upload(np.full(n, past - 1, np.int32)), wanted, record,
    )  # fmt: skip
    assert not gpu.download(counts).any()
    found = gpu.download(record)
    return found[:, 0], found.view(np.float32)[:, 1], found[:, RECORD : RECORD + wanted]


# temperature, top_p, min_p, repetition, presence, frequency, top_k
SAMPLING = [
    (0, 1, 0, 1, 0, 0, 0), (1, 1, 0, 1, 0, 0, 0), (0.7, 0.8, 0, 1, 0, 0, 0),
    (1.3, 1, 0.1, 1, 0, 0, 0), (1, 1, 0, 1, 0, 0, 5), (0.9, 0.9, 0.02, 1.3, 0.4, 0.2, 30),
]  # fmt: skip


@pytest.mark.parametrize("params", SAMPLING)
def test_the_same_coin_draws_the_cpus_token(gpu, params):
    from numbatch.kernels.scoring.sampling import ROW, sample_rows, sampling_scratch

    rng = np.random.default_rng(10)
    n, vocabulary = (4, 90) if SIMULATED else (200, 5000)
    logits = (rng.standard_normal((n, vocabulary)) * 3).astype(np.float32)
    history = rng.integers(0, vocabulary // 4, (n, 7))
    seeds = rng.integers(0, 2**62, n)
    got = draw(gpu, logits, params, seeds, prompt=history)
    sampling = np.empty(n, ROW)
    for i in range(n):
        sampling[i] = (*params[:3], params[6], *params[3:6], 5, seeds[i], 2, 0, 0)
    outputs = (
        np.empty(n, np.int64), np.empty(n, np.float32), np.empty((n, 2), np.int64),
        np.empty((n, 2), np.float32),
    )  # fmt: skip
    offsets = np.arange(n + 1) * 7
    scratch = sampling_scratch(1, vocabulary)[0]
    sample_rows(0, n, scratch, logits.copy(), sampling, history.ravel(), offsets, *outputs)
    assert np.array_equal(got[0], outputs[0])
    assert np.allclose(got[1], outputs[1], atol=1e-5)
    assert np.array_equal(got[2], outputs[2])


def test_bad_logits_end_a_row_alone(gpu):
    logits = np.random.default_rng(11).standard_normal((4, 40)).astype(np.float32)
    logits[1, 7], logits[2] = np.nan, -np.inf
    tokens, _, _ = draw(gpu, logits, SAMPLING[1], [1, 2, 3, 4])
    assert tokens[1] == tokens[2] == -1
    assert (tokens[[0, 3]] >= 0).all()


def test_a_users_function_is_compiled_in(gpu):
    from numbatch.kernels.cuda import cuda_device

    @cuda_device
    def only_even(logit, token, request, position):
        return logit if token % 2 == 0 else logit - np.float32(100)

    logits = np.random.default_rng(12).standard_normal((6, 50)).astype(np.float32)
    tokens, _, _ = draw(gpu, logits, SAMPLING[1], range(6), only_even)
    assert (tokens % 2 == 0).all()


@on_gpu
def test_a_launch_that_fails_names_the_kernel_and_its_shape(gpu):
    @cuda_kernel
    def touch(x):
        x[cuda.threadIdx.x] = 1

    with pytest.raises(DeviceError, match="kernel touch with 1 blocks of 5000 threads"):
        gpu.launch(touch, 1, 5000, gpu.zeros(5, np.float32))


@on_gpu
def test_there_is_no_gpu_a_thousand():
    with pytest.raises(DeviceError, match="there is no GPU 1000"):
        Gpu(1000)
