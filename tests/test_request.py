import numpy as np
import pytest

from numbatch import InputError, Request, SamplingParams


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, should be a number from 0 to 1e.06"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "warm"}, "temperature is 'warm'"),
        ({"temperature": True}, "temperature is True"),
        ({"top_p": 0}, r"top_p is 0, should be a number in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -1}, r"min_p is -1, should be a number in \[0, 1\]"),
        ({"top_k": -2}, "top_k is -2, should be a whole number from -1 to"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_k": 2**63}, "top_k is 9223372036854775808"),
        ({"temperature": 10**400}, "temperature is 1000"),
        ({"presence_penalty": 1e300}, "presence_penalty is 1e.300"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"presence_penalty": float("inf")}, "presence_penalty is inf"),
        ({"frequency_penalty": None}, "frequency_penalty is None"),
        ({"max_tokens": 0}, "max_tokens is 0, should be a whole number from 1 to"),
        ({"max_tokens": 10.0}, "max_tokens is 10.0"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"stop": [""]}, r"stop is \[''\], should be a text or a list of texts, none empty"),
        ({"stop": [1]}, r"stop is \[1\]"),
        ({"stop": 5}, "stop is 5"),
        ({"stop_token_ids": [-1]}, r"stop_token_ids is \[-1\]"),
        ({"stop_token_ids": 3}, "stop_token_ids is 3"),
        ({"logprobs": 101}, "logprobs is 101, should be a whole number from 0 to 100"),
        ({"ignore_eos": 1}, "ignore_eos is 1, should be true or false"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        SamplingParams(**values)


def test_values_of_numpy_and_single_strings_are_taken():
    params = SamplingParams(
        temperature=np.float32(0.5), top_k=np.int64(3), stop="end", stop_token_ids=np.array([4])
    )
    assert (params.stop, params.stop_token_ids) == (("end",), (4,))
    assert SamplingParams(stop=None, stop_token_ids=None).stop == ()


def test_penalties_are_recognised():
    assert not SamplingParams().has_penalties
    assert SamplingParams(presence_penalty=0.1).has_penalties
    assert SamplingParams(repetition_penalty=0.9).has_penalties


@pytest.mark.parametrize("name", ["", None, 1.5, True, ["a"], {"a": 1}, float("nan")])
def test_ids_are_texts_or_whole_numbers(name):
    with pytest.raises(InputError, match=r"an id is .*, should be a non-empty text or a whole"):
        Request(name, "x")


def test_ids_are_plain_texts_and_numbers():
    assert type(Request(np.int64(3), "x").id) is int
    assert type(Request(np.str_("a"), "x").id) is str
