"""Each kernel of the forward pass against its slow reference in naive.py."""

import math

import naive
import numpy as np
import pytest

from numbatch.kernels.scoring import activation, formats, logprob, norm, rotary
from numbatch.kernels.scoring.activations import FLOAT32, Activations
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import MATRIX, matrix_record, product_memory
from numbatch.kernels.threads import ThreadTeam


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
@pytest.mark.parametrize("pairs", [1, 5, 8, 20])
def test_rotary(rng, interleaved, pairs):
    heads, size = 3, 40
    x = rng.standard_normal((4, heads * size)).astype(np.float32)
    positions = np.array([0, 1, 77, 2000])
    frequencies = (0.5 ** np.arange(pairs)).astype(np.float32)
    cosine, sine = np.empty((2, 4, 2 * pairs), np.float32)
    rotary.rotary_table(0, 4, positions, frequencies, 1.0, interleaved, cosine, sine)
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
