"""Each kernel of the forward pass against its slow reference in naive.py."""

import math

import naive
import numpy as np
import pytest

from numbatch.kernels.scoring import activation, formats, logprob, norm, rotary
from numbatch.kernels.scoring.activations import FLOAT32, Activations
from numbatch.kernels.scoring.matmul import matmul_call, padded, tile_scratch
from numbatch.kernels.scoring.product import MATRIX, matrix_record, product_memory
from numbatch.kernels.threads import ThreadTeam

NO_BIAS = np.empty(0, np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def packed(weights):
    data = np.ascontiguousarray(weights, np.float32).view(np.uint8).reshape(len(weights), -1)
    data.flags.writeable = False
    return data


def widened(x):
    out = np.zeros((len(x), padded(x.shape[1])), np.float32)
    out[:, : x.shape[1]] = x
    return out


def product(x, weights, bias=NO_BIAS, threads=2):
    out = np.full((len(x), len(weights)), np.nan, np.float32)
    columns = weights.shape[1]
    args = (widened(x), packed(weights), formats.F32, columns, bias, out)
    ThreadTeam(threads).run(matmul_call(*args, tile_scratch(threads, columns)))
    return out


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (17, 48), (64, 33)])
def test_matmul_is_the_product(rng, tokens, shape):
    x = rng.standard_normal((tokens, shape[1])).astype(np.float32)
    weights = rng.standard_normal(shape).astype(np.float32)
    bias = rng.standard_normal(shape[0]).astype(np.float32)
    exact = x.astype(np.float64) @ weights.T.astype(np.float64) + bias
    np.testing.assert_allclose(product(x, weights, bias), exact, atol=2e-5)


def test_matmul_gives_the_same_bits_in_any_batch_and_on_any_number_of_threads(rng):
    x = rng.standard_normal((11, 100)).astype(np.float32)
    weights = rng.standard_normal((37, 100)).astype(np.float32)
    whole = product(x, weights, threads=1)
    assert np.array_equal(product(x, weights, threads=3), whole)
    for row in range(11):
        assert np.array_equal(product(x[row : row + 1], weights)[0], whole[row])
    assert np.array_equal(product(x[3:8], weights), whole[3:8])


def test_matmul_refuses_shapes_that_do_not_fit():
    data = packed(np.zeros((4, 16)))
    x, out, scratch = (
        np.zeros((2, 16), np.float32),
        np.zeros((2, 4), np.float32),
        tile_scratch(1, 16),
    )
    with pytest.raises(ValueError, match="x is 16 wide, should be 32"):
        matmul_call(x, data, 0, 17, NO_BIAS, out, scratch)
    with pytest.raises(ValueError, match=r"out has shape \(1, 4\), should be \(2, 4\)"):
        matmul_call(x, data, 0, 16, NO_BIAS, out[:1], scratch)
    with pytest.raises(ValueError, match="bias has 3 values, should have 0 or 4"):
        matmul_call(x, data, 0, 16, np.zeros(3, np.float32), out, scratch)
    with pytest.raises(ValueError, match="needs 512"):
        matmul_call(np.zeros((2, 32), np.float32), data, 0, 32, NO_BIAS, out, scratch)


@pytest.mark.parametrize("width", [1, 20, 64])
def test_norms(rng, width):
    x = (rng.standard_normal((5, width)) * 3 + 1).astype(np.float32)
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    out = np.empty_like(x)
    norm.rms_norm(0, 5, x, weight, 1e-5, out)
    np.testing.assert_allclose(out, naive.rms_norm(x, weight, 1e-5), rtol=1e-5, atol=1e-6)
    norm.layer_norm(0, 5, x, weight, bias, 1e-5, out)
    exact = naive.layer_norm(x, weight, bias, 1e-5)
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("pairs", [1, 5, 8])
def test_rotary(rng, interleaved, pairs):
    heads, size = 3, 16
    x = rng.standard_normal((4, heads * size)).astype(np.float32)
    positions = np.array([0, 1, 77, 2000])
    frequencies = (0.5 ** np.arange(pairs)).astype(np.float32)
    cosine, sine = np.empty((2, 4, pairs), np.float32)
    rotary.rotary_table(0, 4, positions, frequencies, 1.0, cosine, sine)
    turned = x.copy()
    rotary.rotate(0, 4, turned, heads, size, pairs, interleaved, cosine, sine)
    for token in range(4):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            exact = naive.rotate(x[token, part], positions[token], frequencies, interleaved)
            np.testing.assert_allclose(turned[token, part], exact, atol=1e-5)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("name", activation.ACTIVATIONS)
def test_activations(rng, name, gated):
    gate, up = rng.standard_normal((2, 3, 48)).astype(np.float32) * 4
    x = (gate if gated else up).astype(np.float64)
    exact = {
        "silu": x / (1 + np.exp(-x)),
        "gelu": x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
        "gelu_tanh": 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    }[name] * (up if gated else 1)
    activation.activate(0, 3, activation.ACTIVATIONS[name], gated, gate, up)
    np.testing.assert_allclose(up, exact, rtol=1e-5, atol=1e-5)


def test_activations_of_extremes_are_no_nan():
    x = np.zeros((1, 16), np.float32)
    x[0, :6] = [-np.inf, -200, -1e-30, 0, 200, 3e38]
    activation.activate(0, 1, activation.ACTIVATIONS["silu"], False, x, x)
    assert np.isfinite(x[0, 1:]).all()


def logprobs(hidden, weights, targets, bias=None, scale=1.0, cap=0.0, threads=1):
    """Log-probabilities in float32 arithmetic."""
    columns, data = weights.shape[1], packed(weights)
    bias = np.zeros(padded(len(weights)), np.float32) if bias is None else widened(bias[None])[0]
    record = matrix_record(data, formats.F32, columns, bias.ctypes.data)
    activations = Activations.empty(FLOAT32, len(hidden), columns)
    activations.floats[: len(hidden) * padded(columns)] = widened(hidden).ravel()
    memory = np.zeros((threads, product_memory(FLOAT32, columns, len(hidden))), np.uint8)
    return logprob.logprobs(
        *(ThreadTeam(threads), FLOAT32, np.array([record], MATRIX), activations.arrays),
        *(scale, cap, targets, memory, logprob.logprob_scratch(threads)),
    )


@pytest.mark.parametrize("vocabulary", [1, 5, 256, 700])
@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_logprobs(rng, vocabulary, cap):
    hidden = rng.standard_normal((130, 24)).astype(np.float32)
    weights = rng.standard_normal((vocabulary, 24)).astype(np.float32)
    bias = rng.standard_normal(vocabulary).astype(np.float32)
    targets = rng.integers(0, vocabulary, 130)
    logits = naive.softcap((hidden.astype(np.float64) @ weights.T + bias) * 0.5, cap)
    exact = naive.log_softmax(logits)[np.arange(130), targets]
    found, greedy = logprobs(hidden, weights, targets, bias, 0.5, cap, threads=3)
    np.testing.assert_allclose(found, exact, atol=2e-5)
    assert np.array_equal(greedy, logits.argmax(axis=1) == targets)
    alone, _ = logprobs(hidden, weights, targets, bias, 0.5, cap)
    assert np.array_equal(alone, found)


def test_logprobs_of_extreme_logits_stay_finite():
    hidden = np.ones((1, 16), np.float32)
    weights = np.full((300, 16), -1e4, np.float32)
    weights[299] = 1e4
    found, greedy = logprobs(hidden, weights, np.array([299]))
    assert found.tolist() == [0]
    assert greedy.tolist() == [True]
    found, greedy = logprobs(hidden, weights, np.array([0]))
    assert found.tolist() == [-320000]
    assert greedy.tolist() == [False]


def test_logprobs_of_nan_are_nan():
    hidden = np.full((1, 16), np.nan, np.float32)
    found, _ = logprobs(hidden, np.ones((300, 16)), np.array([3]))
    assert np.isnan(found).all()


def test_logprobs_refuse_targets_outside_the_vocabulary():
    with pytest.raises(ValueError, match="targets run to 5, the vocabulary has 5 tokens"):
        logprobs(np.ones((1, 16), np.float32), np.ones((5, 16)), np.array([5]))


def test_logprobs_refuse_more_targets_than_there_is_room_for():
    count = logprob.TOKENS + 1
    with pytest.raises(ValueError, match=f"there are {count} targets, should be at most"):
        logprobs(np.ones((count, 16), np.float32), np.ones((5, 16)), np.zeros(count, np.int64))
