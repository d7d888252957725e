"""States of tiles of logits against float64, and the same bits from any width of tile."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.logit_tiles import (
    BOUND,
    SEGMENT,
    STATE,
    finish_lanes,
    keep_largest,
    merge_segments,
    reduce_tile,
    start_lanes,
)


@cpu_kernel
def _reduce(logits, stride, tokens, size, width, targets, state, largest, sums, seen, before):
    for segment in range((size + SEGMENT - 1) // SEGMENT):
        for token in range(tokens):
            start_lanes(state, token * STATE)
        for low in range(segment * SEGMENT, min(size, (segment + 1) * SEGMENT), width):
            part = logits[low:]
            wide = min(width, size - low)
            reduce_tile(part, stride, tokens, low, wide, targets, state, seen, before)
        for token in range(tokens):
            largest[token, segment], sums[token, segment] = finish_lanes(state, token * STATE)


@cpu_kernel
def _merge(largest, sums, targets, seen, before, out, greedy):
    for token in range(targets.size):
        out[0, token], greedy[token], out[1, token] = merge_segments(
            largest[token], sums[token], targets[token], seen[token], before[token]
        )


@cpu_kernel
def _keep(logits, width, size, values, ids):
    for low in range(0, logits.size, width):
        keep_largest(logits, low, min(width, logits.size - low), low, values, ids, 0, size)


def reduce_logits(logits, targets, width=256):
    logits = np.ascontiguousarray(logits, np.float32)
    tokens, size = logits.shape
    segments = -(-size // SEGMENT)
    largest, sums = np.empty((2, tokens, segments), np.float32)
    seen, before = np.full((2, tokens), np.nan, np.float32)
    state = np.empty(tokens * STATE, np.float32)
    targets = np.asarray(targets, np.int64)
    flat = logits.reshape(-1)
    _reduce(flat, size, tokens, size, width, targets, state, largest, sums, seen, before)
    out, greedy = np.empty((2, tokens)), np.empty(tokens, np.bool_)
    _merge(largest, sums, targets, seen, before, out, greedy)
    return out[0], greedy, out[1]


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 1000, 1024, 1025, 5003])
@pytest.mark.parametrize("scale", [0.1, 3, 200])
def test_log_probabilities(size, scale):
    rng = np.random.default_rng(size)
    logits = (rng.standard_normal((6, size)) * scale + rng.uniform(-30, 30)).astype(np.float32)
    targets = rng.integers(0, size, 6)
    targets[:2] = logits[:2].argmax(1)
    logprob, greedy, norm = reduce_logits(logits, targets)
    exact = naive.log_softmax(logits)
    np.testing.assert_allclose(logprob, exact[range(6), targets], rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(norm, logits[:, 0] - exact[:, 0], rtol=1e-6, atol=3e-7)
    assert np.array_equal(greedy, logits.argmax(1) == targets)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 2100),
    tokens=st.integers(1, 4),
    spread=st.sampled_from([0.0, 1.0, 40.0, 1000.0]),
    seed=st.integers(0, 1000),
)
def test_the_bits_do_not_depend_on_the_width_of_tiles(size, tokens, spread, seed):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.standard_normal((tokens, size)) * spread, 1).astype(np.float32)
    logits[rng.random(logits.shape) < 0.02] = -np.inf
    logits[:, rng.integers(0, size)] = spread
    targets = rng.integers(0, size, tokens)
    found = [np.stack(reduce_logits(logits, targets, width)) for width in (16, 64, 256, SEGMENT)]
    assert all(np.array_equal(found[0], each, equal_nan=True) for each in found[1:])
    alone = [reduce_logits(logits[i : i + 1], targets[i : i + 1]) for i in range(tokens)]
    assert np.array_equal(np.hstack(alone), found[0], equal_nan=True)


@pytest.mark.parametrize("place", [0, 3, 300, 1500, 2999])
def test_only_the_first_of_equal_logits_is_greedy(place):
    logits = np.zeros((4, 3000), np.float32)
    logits[:, [place, 2999]] = 5
    logits[3, min(place + 1, 2999)] = 5
    targets = [place, 2999, place, max(place - 1, 0)]
    _, greedy, _ = reduce_logits(logits, targets)
    assert np.array_equal(greedy, logits.argmax(1) == targets)


def test_banned_and_far_logits_have_no_weight():
    logits = np.full((4, 3000), -np.inf, np.float32)
    logits[0, 2000] = 3
    logits[1] = np.finfo(np.float32).min
    logits[1, 7] = 0
    logits[2] = -1e9
    logits[2, [5, 2500]] = -8
    logits[3, 16] = -BOUND
    logprob, greedy, _ = reduce_logits(logits, [2000, 7, 5, 16])
    np.testing.assert_allclose(logprob, [0, 0, -np.log(2), 0], atol=1e-7)
    assert greedy.all()
    assert reduce_logits(logits, [0, 0, 0, 0])[0][0] == -np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2 * BOUND])
@pytest.mark.parametrize("place", [0, 17, 1023, 1024, 2998])
def test_a_row_with_a_logit_that_is_no_number_is_nan_alone(bad, place):
    logits = np.random.default_rng(0).standard_normal((3, 2999)).astype(np.float32)
    whole = reduce_logits(logits, [1, 2, 3])[0]
    logits[1, place] = bad
    logprob, _, _ = reduce_logits(logits, [1, 2, 3])
    assert np.isnan(logprob[1])
    assert np.array_equal(logprob[[0, 2]], whole[[0, 2]])
    assert np.isnan(reduce_logits(np.full((1, 40), -np.inf, np.float32), [3])[0])


@pytest.mark.parametrize("size", [1, 4, 20])
@pytest.mark.parametrize("width", [16, 256, 1000])
def test_the_largest_are_kept_in_order(size, width):
    logits = np.round(np.random.default_rng(size).standard_normal(997), 1).astype(np.float32)
    values, ids = np.full(size, -np.inf, np.float32), np.full(size, -1)
    _keep(logits, width, size, values, ids)
    order = np.argsort(-logits, kind="stable")[:size]
    assert np.array_equal(ids, order)
    assert np.array_equal(values, logits[order])
