"""Guesses: found where text repeats itself, run where they pay, and never seen in a result."""

import itertools

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import fingerprint, make_requests, model  # noqa: F401 (a fixture)
from tiny_models import VOCABULARY

from numbatch.batching import drafts
from numbatch.batching.backend import make_engine
from numbatch.batching.engine import Engine
from numbatch.batching.request import Request, SamplingParams
from numbatch.errors import InputError
from numbatch.kernels.scoring.drafts import choose_guesses, guess_tokens


def guessed_slowly(tokens, count):
    """What follows the last earlier place of the last three tokens, or else of the last two."""
    for n in (3, 2):
        for end in range(len(tokens) - 1, n - 1, -1):
            if tokens[end - n : end] == tokens[-n:]:
                out = list(tokens)
                while len(out) < len(tokens) + count:
                    out.append(out[end + len(out) - len(tokens)])
                return out[len(tokens) :]
    return None


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 20))
@settings(deadline=None)
def test_guesses_are_those_of_a_slow_search(tokens, count):
    out, found = np.full((2, count), -1), np.empty(2, np.bool_)
    padded = np.array([*tokens, 7, 7, 7], np.int64)  # what stands behind the end is not looked at
    other = np.array([5, 6, 5, 6])
    addresses = np.array([padded.ctypes.data, other.ctypes.data])
    guess_tokens(addresses, np.array([len(tokens), 4]), out, found)
    wanted = guessed_slowly(tokens, count) if len(tokens) > 2 else None
    assert found.tolist() == [wanted is not None, True]
    assert out[0].tolist() == (wanted or [-1] * count)
    assert out[1].tolist() == ([5, 6] * count)[:count]


def chosen(rates, fixed, row, before, tile=1, rooms=None, found=None):
    n = len(rates)
    rooms, found = np.array(rooms or [15] * n), np.array(found or [True] * n)
    counts = np.empty(n, np.int64)
    choose_guesses(found, rooms, np.array(rates), fixed, row, before, tile, np.empty(n), counts)
    return counts.tolist()


def gain(counts, rates, fixed, row):
    """Expected tokens by time."""
    tokens = sum(sum(r**j for j in range(c + 1)) for r, c in zip(rates, counts, strict=True))
    return tokens / (fixed + row * (len(rates) + sum(counts)))


@given(
    st.lists(st.floats(0.4, 0.98), min_size=1, max_size=3),  # 0.4 ** 4 is still run
    st.floats(0, 100),
    st.floats(0.01, 10),
)
@settings(deadline=None)
def test_no_other_counts_are_expected_to_give_more_for_the_time(rates, fixed, row):
    counts = chosen(rates, fixed, row, len(rates), rooms=[4] * len(rates))
    best = max(
        gain(others, rates, fixed, row) for others in itertools.product(range(5), repeat=len(rates))
    )
    assert gain(counts, rates, fixed, row) >= best * (1 - 1e-9)


def test_guesses_are_counted_where_there_are_any_and_room():
    assert chosen([0.9, 0.9, 0.9], 50.0, 1.0, 3, rooms=[3, 0, 9], found=[True, True, False]) == [
        3,
        0,
        0,
    ]
    assert chosen([0.5], 0.0, 1.0, 1) == [0]  # a row costs as much as a step


def test_half_of_the_time_goes_by_whole_tiles():
    assert chosen([0.9], 10.0, 1.0, 1, rooms=[40]) == [10]
    assert chosen([0.9], 10.0, 1.0, 1, tile=16, rooms=[40]) == [14]  # up to 15 they are cheaper
    assert chosen([0.4], 10.0, 1.0, 16) == [2]
    assert chosen([0.4], 10.0, 1.0, 16, tile=16) == [0]  # the first costs a tile


class Counted(Engine):
    """Counts steps, and guesses that were run."""

    steps = guesses = 0

    def _run(self, chunks):
        self.steps += 1
        self.guesses += sum(chunk.guesses for chunk in chunks)
        return super()._run(chunks)


def looping(count=6, **params):
    """Return requests whose continuation repeats itself, as that of small models does."""
    rng = np.random.default_rng(5)
    return [
        Request(
            i,
            np.tile(rng.integers(0, VOCABULARY - 2, 5), 4),
            SamplingParams(**{"temperature": 0, "max_tokens": 60, "ignore_eos": True, **params}),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"logprobs": 3},
        {"temperature": 0.3, "seed": 4, "top_p": 0.9},
        {"repetition_penalty": 1.05, "presence_penalty": 0.1},
        {"frequency_penalty": -20.0},
        {"max_tokens": 1},
        {"max_tokens": 2},
        {"ignore_eos": False, "stop_token_ids": list(range(0, VOCABULARY, 9))},
        {"stop": ["e", "on"]},
    ],
)
def test_results_are_the_same_bits_with_and_without_guesses(model, params):  # noqa: F811
    requests = looping(**params)
    plain = Engine(model, num_speculative_tokens=0)
    wanted = {r.id: r for r in plain.run(requests)}
    for most in (1, 4, 40):
        found = {r.id: r for r in Engine(model, num_speculative_tokens=most).run(requests)}
        assert fingerprint(found.values()) == fingerprint(wanted.values())
        for i, result in found.items():
            assert result.finish_reason == wanted[i].finish_reason
            assert result.stop_reason == wanted[i].stop_reason
            np.testing.assert_array_equal(result.top_token_ids, wanted[i].top_token_ids)
            np.testing.assert_array_equal(result.top_logprobs, wanted[i].top_logprobs)


def test_text_that_repeats_itself_takes_fewer_steps(model, monkeypatch):  # noqa: F811
    monkeypatch.setattr(drafts, "WARM_UP", 1 << 30)  # whatever steps take here
    plain, drafting = Counted(model, num_speculative_tokens=0), Counted(model)
    again = {"frequency_penalty": -20.0}
    assert fingerprint(plain.run(looping(**again))) == fingerprint(drafting.run(looping(**again)))
    assert plain.guesses == 0
    assert drafting.guesses > 0
    assert drafting.steps < 0.5 * plain.steps


@pytest.mark.parametrize(("sequences", "budget", "kv"), [(3, 5, 200), (6, 40, 180), (2, 100, 100)])
def test_guesses_take_only_what_room_is_left(model, sequences, budget, kv):  # noqa: F811
    sizes = {"max_num_seqs": sequences, "max_num_batched_tokens": budget, "kv_tokens": kv}
    engine = Counted(model, num_speculative_tokens=30, **sizes)
    requests = [*looping(), *make_requests()]
    wanted = fingerprint(Engine(model, num_speculative_tokens=0).run(requests))
    pool, found = engine.scheduler.pool, {}

    def sink(sequence, result):
        found[result.id] = result

    for request in requests:
        engine.submit(request, sink)
    while engine.scheduler.running or engine.scheduler.waiting:
        engine.step()
        pool.check([sequence.blocks for sequence in engine.scheduler.running])
    assert fingerprint(found.values()) == wanted
    assert engine.guesses > 0
    assert pool.free_blocks == pool.blocks


def test_rows_of_logits_are_held_a_few_at_a_time(model, monkeypatch):  # noqa: F811
    wanted = fingerprint(Engine(model, num_speculative_tokens=0).run(looping()))
    monkeypatch.setattr("numbatch.batching.engine.logit_rows", lambda sequences: 3)
    engine = Counted(model)
    assert fingerprint(engine.run(looping())) == wanted
    assert engine.guesses > 0
    assert len(engine.forward._logits) <= 3


def test_without_memory_a_step_is_run_again_without_guesses(model):  # noqa: F811
    engine = Counted(model)
    run, failed = engine.forward.run, []

    def fail_with_guesses(batch):
        if len(batch.tokens) > len(batch.tables) and engine.scheduler.running[0].length > 20:
            failed.append(len(batch.tokens))
            raise MemoryError
        return run(batch)

    engine.forward.run = fail_with_guesses
    wanted = fingerprint(Engine(model, num_speculative_tokens=0).run(looping()))
    assert fingerprint(engine.run(looping())) == wanted
    assert failed


@numba.njit
def leave(logits, argument, position):
    """Change nothing."""


def test_a_function_of_the_user_is_called_for_no_draw_that_may_be_dropped(model):  # noqa: F811
    engine = Counted(model)
    requests = looping(2, logits_processor=leave)
    assert fingerprint(engine.run(requests)) == fingerprint(Engine(model).run(looping(2)))
    assert engine.guesses == 0


def test_what_a_step_takes_is_learnt_from_steps(model):  # noqa: F811
    drafter = Engine(model)._drafter
    assert drafter._costs() == drafts.UNKNOWN
    for tokens in [1, 8, 32] * 20:
        drafter._time.observe(tokens, tokens, 0, 1e-2 + 1e-3 * tokens)
    fixed, row = drafter._costs()
    assert 9e-3 < fixed < 11e-3
    assert 9e-4 < row < 11e-4


def test_fewer_than_no_guesses_are_an_error(model):  # noqa: F811
    with pytest.raises(InputError, match="num_speculative_tokens is -1"):
        Engine(model, num_speculative_tokens=-1)


def test_guesses_on_a_gpu_are_an_error(model):  # noqa: F811
    with pytest.raises(InputError, match='num_speculative_tokens is for device="cpu"'):
        make_engine(model, "cuda", num_speculative_tokens=4)
