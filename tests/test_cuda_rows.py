"""What happens to rows between products on a GPU, against slow references."""

import naive
import numpy as np
import pytest
from cuda_cases import SIMULATED, THREADS, close, needs_device, rounded

from numbatch.kernels.scoring.cuda import activation, norms
from numbatch.kernels.scoring.cuda.heads import prepare_heads, prepare_heads_words
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

pytestmark = needs_device


@pytest.mark.parametrize("width", [37, 60, 52, 4 * 517])
def test_norms(gpu, width):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((4, width)).astype(np.float32) * 3 + 1
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    places = np.array([2, 0, 3], np.int32)
    out = gpu.zeros((3, width + 64 - width % 64), np.uint16)
    args = [gpu.upload(each) for each in (x, places, weight)]
    gpu.launch(norms.rms_norm, 3, THREADS, *args, np.float32(1e-5), out)
    found = float32_array(gpu.download(out))
    close(found[:, :width], naive.rms_norm(x[places], weight, 1e-5), 4e-3)
    assert not found[:, width:].any()
    gpu.launch(norms.layer_norm, 3, THREADS, *args, gpu.upload(bias), np.float32(1e-5), out)
    close(
        float32_array(gpu.download(out))[:, :width],
        naive.layer_norm(x[places], weight, bias, 1e-5), 4e-3,
    )  # fmt: skip
    hidden = gpu.upload(x)
    gpu.launch(norms.add_norm, 4, THREADS, args[0], args[2], np.float32(1e-5), hidden)
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
        prepare_heads, (n, 2), block, gpu.upload(bfloat16_array(qkv)),
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
    for kernel in (prepare_heads, prepare_heads_words):
        q = gpu.zeros((n, heads, size), np.uint16)
        cache = gpu.zeros((4, 5, kv_heads, 16, size), np.uint16)
        if kernel is prepare_heads:
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
    gpu.launch(activation.activate_words, (3, 2), 2 if SIMULATED else 32, code, d_x, 24, out)
    close(float32_array(gpu.download(out))[:, :24], active * up, 5e-3)
    nothing = gpu.zeros(0, np.float32)
    gpu.launch(activation.activate, 3, THREADS, code, True, d_x, nothing, 24, out)
    close(float32_array(gpu.download(out))[:, :24], active * up, 5e-3)
    gpu.launch(activation.activate, 3, THREADS, code, False, d_x, nothing, 24, out)
    close(float32_array(gpu.download(out))[:, :24], active, 5e-3)
