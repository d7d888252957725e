"""A user's own function in the sampler: what it does, what it costs in errors."""

import naive
import numba
import numpy as np
import pytest
from tiny_models import write_huggingface

from numbatch.batching.engine import Engine
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.results import FailedResult
from numbatch.errors import InputError
from numbatch.models.load import load_model

NEVER = np.array([3, 5, 7])


@numba.njit
def only_argument(logits, argument, position):
    kept = logits[argument]
    logits[:] = -np.inf
    logits[argument] = kept


@numba.njit
def count_up(logits, argument, position):
    logits[argument + position] = 1000


@numba.njit
def ban(logits, argument, position):
    for token in NEVER:
        logits[token] = -np.inf


@numba.njit
def ban_all(logits, argument, position):
    logits[:] = -np.inf


@numba.njit
def write_nan(logits, argument, position):
    if position == argument:
        logits[4] = np.nan


@numba.njit
def raise_late(logits, argument, position):
    logits[0] = 7
    if position >= argument:
        raise ValueError("no more than that")


@numba.njit
def out_of_bounds(logits, argument, position):
    if argument >= logits.size:
        raise IndexError("argument is outside of the vocabulary")
    logits[argument] += 1


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return Engine(load_model(folder))


def generate(engine, *params):
    requests = [Request(i, np.array([1, 2, 3]), each) for i, each in enumerate(params)]
    results = {result.id: result for result in engine.run(requests)}
    return [results[i] for i in range(len(params))]


def with_processor(function, argument=0, **options):
    options = {"max_tokens": 5, "ignore_eos": True, "seed": 1} | options
    return SamplingParams(logits_processor=function, logits_processor_arg=argument, **options)


def test_a_function_is_told_the_argument_and_the_position(engine):
    alone, counting, greedy = generate(
        engine,
        with_processor(only_argument, 9),
        with_processor(count_up, 10),
        with_processor(count_up, 20, temperature=0, top_k=3),
    )
    assert alone.token_ids.tolist() == [9] * 5
    assert counting.token_ids.tolist() == [10, 11, 12, 13, 14]
    assert greedy.token_ids.tolist() == [20, 21, 22, 23, 24]


def test_log_probabilities_are_those_of_the_model(engine):
    """As vLLM reports them: before processor and penalties."""
    options = {"temperature": 0, "max_tokens": 1, "logprobs": 9, "ignore_eos": True}
    (plain,) = generate(engine, SamplingParams(**options))
    fifth = int(plain.top_token_ids[0, 4])
    (forced,) = generate(engine, with_processor(only_argument, fifth, **options))
    assert np.array_equal(plain.top_logprobs, forced.top_logprobs)
    assert forced.token_ids.tolist() == [fifth]
    assert forced.logprobs[0] == plain.top_logprobs[0, 4]


def test_banned_tokens_are_not_drawn_and_others_draw_as_without(engine):
    options = {"max_tokens": 40, "temperature": 5.0, "ignore_eos": True}
    results = generate(engine, *(with_processor(ban, seed=s, **options) for s in range(20)))
    drawn = np.concatenate([result.token_ids for result in results])
    assert len(np.unique(drawn)) > 20
    assert not np.isin(drawn, NEVER).any()
    mixed = generate(
        engine, with_processor(ban, seed=4, **options), SamplingParams(seed=4, **options)
    )
    alone = generate(engine, SamplingParams(seed=4, **options))
    assert np.array_equal(mixed[0].token_ids, results[4].token_ids)
    assert np.array_equal(mixed[1].token_ids, alone[0].token_ids)


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (raise_late, 2, "logits_processor raised ValueError: no more than that"),
        (out_of_bounds, 10**6, "raised IndexError: argument is outside of the vocabulary"),
        (write_nan, 3, "that of token 4 is NaN"),
        (ban_all, 0, "all are -inf, so every token is banned"),
    ],
)
def test_what_a_function_does_wrong_fails_its_request_alone(engine, function, argument, message):
    good = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    before, failed, after = generate(engine, good, with_processor(function, argument), good)
    assert isinstance(failed, FailedResult)
    assert message in failed.error
    assert np.array_equal(before.token_ids, after.token_ids)
    assert len(before.token_ids) == 5


def test_what_is_no_processor_is_refused_at_once():
    def plain(logits, argument, position):
        pass

    with pytest.raises(InputError, match=r"not compiled .*plain.* should be one decorated with"):
        SamplingParams(logits_processor=plain)
    with pytest.raises(InputError, match="logits_processor is no function"):
        SamplingParams(logits_processor="f")
    with pytest.raises(InputError, match=r"takes \(logits, argument\), should take three"):
        SamplingParams(logits_processor=numba.njit(lambda logits, argument: None))
    with pytest.raises(InputError, match=r"takes .*should take three"):
        SamplingParams(logits_processor=numba.njit(lambda logits, *rest: None))
    with pytest.raises(InputError, match=r"logits_processor_arg is 1\.5"):
        SamplingParams(logits_processor_arg=1.5)


def test_what_does_not_compile_is_refused_with_numbas_words(engine):
    wrong = numba.njit(lambda logits, argument, position: logits.no_such_thing)
    with pytest.raises(InputError, match=r"(?s)does not compile: .*no_such_thing"):
        engine.submit(Request("a", np.array([1, 2]), SamplingParams(logits_processor=wrong)))
    (failed, good) = generate(
        engine, SamplingParams(logits_processor=wrong), SamplingParams(max_tokens=2)
    )
    assert "no_such_thing" in failed.error
    assert len(good.token_ids) == 2


def test_defaults_of_further_arguments_are_kept(engine):
    @numba.njit
    def boost(logits, argument, position, by=50.0):
        logits[argument] += by

    (result,) = generate(engine, with_processor(boost, 11, temperature=0))
    assert result.token_ids.tolist() == [11] * 5


def test_penalties_come_after_the_function(engine):
    @numba.njit
    def two(logits, argument, position):
        logits[:] = 0
        logits[8], logits[9] = 2.0, 1.9

    params = with_processor(two, temperature=0, presence_penalty=0.5, max_tokens=4)
    (result,) = generate(engine, params)
    assert result.token_ids.tolist() == [8, 9, 8, 8]
    row = np.zeros(12)
    row[8], row[9] = 2.0, 1.9
    assert naive.penalize(row, [], [8], 1, 0.5, 0).argmax() == 9
