import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.kernels.scoring.row_states import reduce_rows, state_numbers
from numbatch.kernels.scoring.sampling import (
    NO_LOGITS,
    NO_TOKEN,
    ROW,
    coin,
    sample_rows,
    sampling_scratch,
)
from numbatch.kernels.threads import Call, ThreadTeam

NEUTRAL = (1.0, 1.0, 0.0, 0, 1.0, 0.0, 0.0, 0, 0, 0, 0, 0)


def row(**changes):
    return tuple(changes.get(name, value) for name, value in zip(ROW.names, NEUTRAL, strict=True))


def states_of(logits):
    states = np.empty((len(logits), state_numbers(logits.shape[1])), np.float32)
    reduce_rows(0, len(logits), logits, states)
    return states


def draw(logits, rows, histories=None, top=0, threads=1):
    logits = np.array(logits, np.float32)
    n, vocabulary = logits.shape
    histories = histories or [[]] * n
    offsets = np.cumsum([0, *map(len, histories)])
    history = np.array([token for each in histories for token in each], np.int64)
    chosen, logprob = np.empty(n, np.int64), np.empty(n, np.float32)
    ids, values = np.empty((n, top), np.int64), np.empty((n, top), np.float32)
    args = (
        logits,
        states_of(logits),
        np.array(rows, ROW),
        history,
        offsets,
        chosen,
        logprob,
        ids,
        values,
    )
    ThreadTeam(threads).run(Call(sample_rows, n, args, sampling_scratch(threads, vocabulary)))
    return chosen, logprob, ids, values


def test_the_coin_is_uniform_and_has_no_state():
    coins = np.array([coin(np.uint64(3), np.uint64(i)) for i in range(20000)])
    assert 0 <= coins.min() < coins.max() < 1
    counts = np.histogram(coins, 20, (0, 1))[0]
    assert np.sum((counts - 1000) ** 2 / 1000) < 50  # chi-squared, 19 degrees: p about 1e-4
    assert coin(np.uint64(3), np.uint64(5)) == coins[5]
    other = np.array([coin(np.uint64(4), np.uint64(i)) for i in range(20000)])
    assert abs(np.corrcoef(coins, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(coins[1:], coins[:-1])[0, 1]) < 0.03


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.05},
    ],
)
def test_draws_follow_the_stated_distribution(params):
    logits = np.random.default_rng(1).standard_normal(12) * 2
    n = 20000
    rows = [row(seed=11, position=i, **params) for i in range(n)]
    chosen, _, _, _ = draw(np.tile(logits, (n, 1)), rows)
    full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | params
    expected = naive.sampling_probabilities(np.float32(logits), **full) * n
    counts = np.bincount(chosen, minlength=12)
    assert np.all(counts[expected == 0] == 0)
    kept = expected > 0
    chi = np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept])
    assert chi < 45  # at most 11 degrees of freedom: p below 1e-5


@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, 41),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_what_is_drawn_was_admitted(logits, temperature, top_k, top_p, min_p, seed):
    params = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    (token,), (logprob,), _, _ = draw([logits], [row(seed=seed, **params)])
    # A hair more than the limits: the reference rounds at another place.
    loose = params | {"top_p": min(1, top_p * (1 + 1e-6)), "min_p": min_p * (1 - 1e-9)}
    assert naive.sampling_probabilities(np.float32(logits), **loose)[token] > 0
    assert logprob == pytest.approx(naive.log_softmax(np.float32(logits))[token], abs=1e-4)


def test_temperature_0_takes_the_first_of_the_likeliest():
    chosen, _, _, _ = draw([[1, 5, 5, 0], [9, 1, 1, 1]], [row(temperature=0)] * 2)
    assert chosen.tolist() == [1, 0]


@settings(max_examples=60, deadline=None)
@given(
    history=st.lists(st.integers(0, 9), max_size=30),
    prompt=st.integers(0, 30),
    repetition=st.floats(0.5, 3, width=32),
    presence=st.floats(-2, 2, width=32),
    frequency=st.floats(-2, 2, width=32),
)
def test_penalties(history, prompt, repetition, presence, frequency):
    logits = np.random.default_rng(5).standard_normal((2, 10)).astype(np.float32)
    prompt = min(prompt, len(history))
    changed = logits.copy()
    args = {"repetition": repetition, "presence": presence, "frequency": frequency}
    rows = np.array([row(temperature=0, prompt=prompt, **args), row(temperature=0)], ROW)
    offsets = np.array([0, len(history), len(history)])
    chosen, logprob = np.empty(2, np.int64), np.empty(2, np.float32)
    none = np.empty((2, 0), np.int64), np.empty((2, 0), np.float32)
    scratch = sampling_scratch(1, 10)
    sample_rows(
        0,
        2,
        scratch[0],
        changed,
        states_of(logits),
        rows,
        np.array(history, np.int64),
        offsets,
        chosen,
        logprob,
        *none,
    )
    exact = naive.penalize(logits[0], history[:prompt], history[prompt:], **args)
    np.testing.assert_allclose(changed[0], exact, rtol=1e-5, atol=1e-5)
    assert np.array_equal(changed[1], logits[1])
    assert chosen[0] == changed[0].argmax()
    assert logprob[0] == pytest.approx(naive.log_softmax(logits[0])[chosen[0]], abs=1e-5)


@pytest.mark.parametrize("top", [1, 3, 8, 50])
def test_top_logprobs_are_sorted_and_exact(top):
    logits = np.random.default_rng(2).standard_normal((3, 50)).astype(np.float32)
    logits[1, 7:12] = 4  # ties: the first ids come first
    _, _, ids, values = draw(logits, [row()] * 3, top=top)
    exact = naive.log_softmax(logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    assert np.array_equal(ids, order)
    np.testing.assert_allclose(values, np.take_along_axis(exact, order, axis=1), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_no_number_is_reported_alone(bad):
    chosen, logprob, _, _ = draw([[0, 1], [bad, 1], [3, 2]], [row(temperature=0)] * 3)
    assert chosen.tolist() == [1, -1, 0]
    assert np.isnan(logprob[1])
    assert np.isfinite(logprob[[0, 2]]).all()


def test_banned_tokens_are_never_drawn():
    rows = [row(seed=s) for s in range(200)]
    chosen, _, _, _ = draw([[-np.inf, 0, -np.inf, 0]] * 200, rows)
    assert set(chosen.tolist()) == {1, 3}


def test_a_request_draws_the_same_in_any_batch_and_on_any_threads():
    logits = np.random.default_rng(3).standard_normal((40, 300)).astype(np.float32)
    rows = [row(seed=i % 7, position=i, top_p=0.9) for i in range(40)]
    whole = draw(logits, rows)[0]
    assert np.array_equal(draw(logits, rows, threads=3)[0], whole)
    back = draw(logits[::-1], rows[::-1])[0][::-1]
    assert np.array_equal(back, whole)


SETTINGS = [
    {},
    {"temperature": 0.7},
    {"top_k": 50},
    {"top_k": 1},
    {"top_k": 700, "top_p": 0.9},
    {"top_k": 9000},
    {"top_p": 0.95},
    {"top_p": 0.3, "temperature": 3.0},
    {"top_p": 1e-9},
    {"top_p": 0.999999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"min_p": 1e-12, "top_p": 0.9},
    {"temperature": 1e-300},
    {"temperature": 1e-3, "top_k": 5},
    {"temperature": 1e6, "top_p": 0.5},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
]


@pytest.mark.parametrize("kind", ["normal", "ties", "peaked", "mostly banned", "equal"])
@pytest.mark.parametrize("size", [1, 5, 16, 257, 4099])
def test_the_token_is_where_the_coin_falls(size, kind):
    """The sum of the exact probabilities up to the token, in the vocabulary's order."""
    rng = np.random.default_rng(size)
    logits = {
        "normal": rng.standard_normal(size) * 3 + 7,
        "ties": rng.integers(0, 6, size),
        "peaked": rng.standard_normal(size) + 40 * (np.arange(size) == size // 2),
        "mostly banned": np.where(rng.random(size) < 0.9, -np.inf, rng.standard_normal(size)),
        "equal": np.full(size, -3e4),
    }[kind].astype(np.float32)
    logits[size - 1] = max(logits[size - 1], np.float32(-3e4))
    for number, params in enumerate(SETTINGS):
        rows = [row(seed=number, position=i, **params) for i in range(12)]
        chosen, _, _, _ = draw(np.tile(logits, (12, 1)), rows)
        full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | params
        # The hair's breadth of float32 weights may decide about one group of ties.
        exact = [
            naive.sampling_probabilities(logits, **full | {"top_p": top_p})
            for top_p in (full["top_p"] * (1 - 1e-6), full["top_p"], full["top_p"] * (1 + 1e-6))
            if top_p <= 1
        ]
        for i, token in enumerate(chosen):
            u = coin(np.uint64(number), np.uint64(i))
            fits = [
                probabilities[token] > 0
                and probabilities[:token].sum() - 3e-6
                <= u
                <= probabilities[: token + 1].sum() + 3e-6
                for probabilities in exact
            ]
            assert any(fits), (params, u, token)


def test_log_probabilities_of_a_whole_vocabulary():
    rng = np.random.default_rng(8)
    logits = (rng.standard_normal((3, 49152)) * 4).astype(np.float32)
    logits[2] += 1000
    chosen, logprob, ids, values = draw(logits, [row(temperature=0)] * 3, top=20)
    exact = naive.log_softmax(logits)
    assert np.array_equal(chosen, logits.argmax(1))
    np.testing.assert_allclose(logprob, exact[range(3), chosen], rtol=3e-7)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :20]
    assert np.array_equal(ids, order)
    np.testing.assert_allclose(values, np.take_along_axis(exact, order, 1), rtol=3e-7)


def test_more_likeliest_tokens_than_there_are():
    _, _, ids, values = draw([[1, 3, -np.inf, 2]], [row()], top=6)
    assert ids[0].tolist() == [1, 3, 0, -1, -1, -1]
    assert np.isneginf(values[0, 3:]).all()


@pytest.mark.parametrize(
    ("logits", "token"),
    [
        ([-np.inf, -2e6, 5, 1], 2),
        ([np.nan, 0, 1, 2], NO_LOGITS),
        ([0, 0, 0, -np.nan], NO_LOGITS),
        ([np.inf, 0, 0, 0], NO_LOGITS),
        ([-np.inf] * 4, NO_LOGITS),
        ([1e7, 0, 0, 0], NO_LOGITS),
        ([-1e30] * 4, NO_LOGITS),
        ([np.finfo(np.float32).min, 0, 3, 3], 2),
    ],
)
@pytest.mark.parametrize("length", [4, 16, 50, 600])
def test_rows_at_the_edge(logits, token, length):
    line = np.concatenate([logits, np.full(length - 4, logits[3])])
    chosen, logprob, _, _ = draw([line, line], [row(temperature=0), row(top_k=1)])
    assert chosen[0] == token
    assert chosen[1] == token or (token >= 0 and line[chosen[1]] == line[token])
    assert np.isnan(logprob).all() == (token < 0)


def test_penalties_that_leave_no_number_are_told_apart():
    rows = [row(temperature=0, prompt=1, repetition=np.float32(1e-44)), row(temperature=0)]
    chosen, logprob, _, _ = draw([[1e6, 0], [1, 0]], rows, [[0], []])
    assert chosen.tolist() == [NO_TOKEN, 0]
    assert np.isnan(logprob[0])
