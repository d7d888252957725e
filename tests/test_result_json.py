"""Results as JSON values."""

import json

import numpy as np
import pytest
from fake_llm import FakeTokenizer
from hypothesis import given
from hypothesis import strategies as st

from numbatch.batching.result_json import (
    dump_line,
    finite,
    floats,
    generation_json,
    score_json,
)
from numbatch.batching.results import GenerationResult, ScoreResult


@given(st.lists(st.floats(width=32)))
def test_numbers_read_back_as_the_same_float32(values):
    array = np.array(values, np.float32)
    back = [np.nan if value is None else value for value in json.loads(json.dumps(floats(array)))]
    wanted = np.where(np.isfinite(array), array, np.float32(np.nan))
    assert np.array_equal(np.array(back, np.float32), wanted, equal_nan=True)


def test_numbers_are_short():
    assert json.dumps(floats(np.array([0.1, -1 / 3, 2.0], np.float32))) == "[0.1, -0.33333334, 2.0]"
    assert finite(-1 / 3) == -0.3333333333
    assert finite(np.inf) is None
    assert floats(np.empty(0, np.float32)) == []


def generation(**changes):
    values = {
        "id": 5,
        "prompt": "ab",
        "prompt_token_ids": np.array([97, 98]),
        "text": "é\u2028",
        "token_ids": np.array([0xC3, 0xA9]),
        "logprobs": np.array([-0.5, np.nan], np.float32),
        "finish_reason": "stop",
    }
    return generation_json(GenerationResult(**(values | changes)), FakeTokenizer())


def test_a_generation():
    assert generation() == {
        "custom_id": 5,
        "text": "é\u2028",
        "finish_reason": "stop",
        "token_ids": [0xC3, 0xA9],
        "logprobs": [-0.5, None],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2},
    }
    assert json.loads(dump_line(generation())) == generation()


def test_log_probabilities_of_the_prompt_where_they_were_asked_for():
    record = generation(
        prompt_logprobs=np.array([np.nan, -2], np.float32),
        prompt_top_token_ids=np.array([[-1], [99]]),
        prompt_top_logprobs=np.array([[np.nan], [-0.25]], np.float32),
    )
    assert record["prompt_logprobs"] == [None, -2]
    likeliest = {"token_id": 99, "token": "c", "logprob": -0.25}
    assert record["prompt_top_logprobs"] == [None, [likeliest]]


@pytest.mark.parametrize("reason", ["\n", 7])
def test_what_stopped_a_generation_is_said(reason):
    assert generation(stop_reason=reason)["stop_reason"] == reason


def test_likeliest_tokens_are_listed_where_asked_for():
    ids = np.array([[97, 0xC3], [98, 99]])
    values = np.array([[-0.25, -2], [-np.inf, -1]], np.float32)
    assert generation(top_token_ids=ids, top_logprobs=values)["top_logprobs"] == [
        [
            {"token_id": 97, "token": "a", "logprob": -0.25},
            {"token_id": 0xC3, "token": "\ufffd", "logprob": -2.0},
        ],
        [
            {"token_id": 98, "token": "b", "logprob": None},
            {"token_id": 99, "token": "c", "logprob": -1.0},
        ],
    ]


def score(logprobs, greedy, **options):
    array = np.array(logprobs, np.float32)
    tokens = np.arange(len(array))
    result = ScoreResult("s", "", tokens, array, np.array(greedy))
    return score_json(result, **options)


def test_a_scored_text():
    assert score([np.nan, -1, -3], [False, True, False], is_continuation=False) == {
        "custom_id": "s",
        "token_ids": [0, 1, 2],
        "logprobs": [None, -1.0, -3.0],
        "sum_logprob": -4.0,
        "perplexity": 7.389056099,
        "tokens_scored": 2,
    }
    assert score([np.nan], [False], is_continuation=False)["perplexity"] is None


def test_a_continuation_is_greedy_if_each_scored_token_is():
    assert score([np.nan, -1, -3], [False, True, True], is_continuation=True)["is_greedy"] is True
    assert score([np.nan, -1, -3], [True, True, False], is_continuation=True)["is_greedy"] is False


@given(st.dictionaries(st.text(), st.text()))
def test_what_is_written_is_one_line_for_every_reader(record):
    line = dump_line(record)
    assert len(line.splitlines()) == 1
    assert json.loads(line) == record


def test_numbers_that_json_lacks_are_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_line({"a": float("nan")})
