"""Packed weights and products on a GPU against slow references."""

import naive
import numpy as np
import pytest
from cuda_cases import FORMATS, close, needs_device, on_gpu, quantized, rounded

from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.cuda.dense import Dense
from numbatch.kernels.scoring.cuda.dense_tiles import FEWEST_TOKENS
from numbatch.kernels.scoring.cuda.packing import pack_matrix, unpacked
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

pytestmark = needs_device


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
    from numbatch.kernels.scoring.cuda import matvec, results

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

    def run(mode, count, apart, scale=1.0, cap=0.0, most=None):
        blocks = matvec.matvec_blocks(mode, count, tokens, most)
        gpu.launch(
            kernel, blocks, matvec.THREADS, *arrays, count, d_x, tokens, mode, apart, 0,
            np.float32(scale), np.float32(cap), 7, half, full,
        )  # fmt: skip

    run(results.STORE, height, 0)
    stored = gpu.download(half)
    close(float32_array(stored)[:, 7:], wanted, 4e-3)
    if matvec.goes_on_to_further_rows(
        packed.kind, matvec.tiles_of(tokens), packed.leasts is not None
    ):
        gpu.write(half, np.zeros_like(stored))
        run(results.STORE, height, 0, most=1)  # few blocks, which go on to further rows
        np.testing.assert_array_equal(gpu.download(half), stored)
    run(results.ADD, height, 0)
    close(gpu.download(full)[:, 7:] - 1, wanted, 2e-5)
    run(results.LOGITS, height, 0, 0.1, 5.0)
    close(gpu.download(full)[:, 7:], naive.softcap(wanted * np.float32(0.1), 5.0), 2e-5)
    run(results.GATED, 96, 100)
    gate, up = wanted[:, :96], wanted[:, 100:196]
    close(float32_array(gpu.download(half))[:, 7:103], gate / (1 + np.exp(-gate)) * up, 4e-3)


@on_gpu
@pytest.mark.parametrize("tokens", [65, 130, 300])
@pytest.mark.parametrize("sizes", [(2, 8), (2, 4), (1, 4)])
def test_products_with_many_inputs_have_the_bits_of_those_with_few(gpu, tokens, sizes):
    from numbatch.kernels.scoring.cuda import matmul_tiles, matvec, results

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

    close(run(results.STORE, height, 0)[0], wanted, 4e-3)
    close(run(results.ADD, height, 0)[1] - 1, wanted, 2e-5)
    close(
        run(results.LOGITS, height, 0, 0.1, 5.0)[1],
        naive.softcap(wanted * np.float32(0.1), 5.0), 2e-5,
    )  # fmt: skip
    gate, up = wanted[:, :140], wanted[:, 150:290]
    close(run(results.GATED, 140, 150)[0][:, :140], gate / (1 + np.exp(-gate)) * up, 4e-3)


@on_gpu
@pytest.mark.parametrize("columns", [250, 1024, 2400])
@pytest.mark.parametrize("height", [200, 37])
def test_products_with_one_input(gpu, height, columns):
    from numbatch.kernels.scoring.cuda import matvec, results
    from numbatch.kernels.scoring.cuda.matvec_one import multiply_one

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
            multiply_one, matvec.matvec_blocks(mode, count, 1)[1], matvec.THREADS, weights,
            count, d_x, mode, apart, 0, np.float32(scale), np.float32(cap), 7, half, full,
        )  # fmt: skip

    run(results.STORE, height, 0)
    found = float32_array(gpu.download(half))
    close(found[:, 7:], wanted, 4e-3)
    assert not found[:, :7].any()
    run(results.ADD, height, 0)
    close(gpu.download(full)[:, 7:] - 1, wanted, 2e-5)
    run(results.LOGITS, height, 0, 0.1, 5.0)
    close(gpu.download(full)[:, 7:], naive.softcap(wanted * np.float32(0.1), 5.0), 2e-5)
    inner = height // 2
    run(results.GATED, inner, inner)
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


@on_gpu
def test_large_dense_products(gpu):
    tokens, rows, columns = FEWEST_TOKENS + 3, 4096, 520
    rng = np.random.default_rng(6)
    x = rounded(rng.standard_normal((tokens, columns)))
    weight = rounded(rng.standard_normal((rows + 8, columns)))
    d_x, d_weight = gpu.upload(bfloat16_array(x)), gpu.upload(bfloat16_array(weight))
    dense, wanted = Dense(gpu), x @ weight.T
    for first, low in ((0, 0), (3, 8)):  # three rows end at no multiple of 256 bytes
        count = tokens - first
        half = gpu.zeros((tokens, rows), np.uint16)
        own = {"first": first, "rows": (low, low + rows)}
        dense.product(d_x, d_weight, count, columns, half, **own)
        part = wanted[first:, low : low + rows]
        close(float32_array(gpu.download(half))[:count], part, 4e-3)
        full = gpu.upload(np.ones((tokens, rows), np.float32))
        dense.product(d_x, d_weight, count, columns, full, **own)
        close(gpu.download(full)[:count], part, 1e-5)
        dense.product(d_x, d_weight, count, columns, full, add=True, **own)
        close(gpu.download(full)[:count], 2 * part, 1e-5)


@on_gpu
@pytest.mark.parametrize("shape", [0, 1])
@pytest.mark.parametrize("columns", [480, 2400, 4608, 7200])
def test_products_of_four_bits_with_one_input(gpu, columns, shape):
    from numbatch.kernels.scoring.cuda import matvec_packed, results

    rng = np.random.default_rng(columns)
    height = 224
    data = quantized(rng, formats.Q4_0, (height, columns)).view(np.uint8).reshape(height, -1)
    packed = pack_matrix(data, formats.Q4_0, columns)
    weights = unpacked(packed).astype(np.float64)
    x = np.zeros((1, -(-columns // 256) * 256), np.float32)
    x[:, :columns] = rounded(rng.standard_normal((1, columns)))
    wanted = weights @ x[0, :columns]
    words, scales = gpu.upload(packed.words), gpu.upload(packed.scales)
    d_x = gpu.upload(bfloat16_array(x))
    kernel = matvec_packed.multiply_packed_kernel(shape, columns > 4096)
    half, full = gpu.zeros((1, height), np.uint16), gpu.zeros((1, height), np.float32)
    none, squares = gpu.zeros(0, np.float32), gpu.zeros(height // 16, np.float32)
    weight = rng.standard_normal(height).astype(np.float32)
    next_x = gpu.zeros((1, 256), np.uint16)

    def run(mode, rows, blocks, given=none, apart=0):
        gpu.launch(
            kernel, blocks, matvec_packed.THREADS, words, scales, rows, d_x, given, columns,
            np.float32(0.5), mode, apart, 0, np.float32(3), np.float32(0), half, full,
            gpu.upload(weight), next_x, squares,
        )  # fmt: skip

    for count in (14, 3):  # fewer than groups of rows: each goes on to further ones
        gpu.write(full, np.ones((1, height), np.float32))
        run(results.ADD, height, count)
        found = gpu.download(full)[0]
        close(found, 1 + wanted, 1e-4)
        close(float32_array(gpu.download(next_x))[0, :height], found * weight, 8e-3)
        close(gpu.download(squares), (found.reshape(-1, 16) ** 2).sum(axis=1), 1e-5)
        run(results.LOGITS, height, count)
        close(gpu.download(full)[0], 3 * wanted, 1e-4)
        run(results.STORE, height, count)
        close(float32_array(gpu.download(half))[0], wanted, 8e-3)
    given = rng.random(40).astype(np.float32)
    root = 1 / np.sqrt(given.sum(dtype=np.float64) / columns + 0.5)
    run(results.GATED, 112, 2, gpu.upload(given), 112)
    gate, up = wanted[:112] * root, wanted[112:] * root
    found = float32_array(gpu.download(half))[0, :112]
    close(found, gate / (1 + np.exp(-gate)) * up, 8e-3)
