"""Requests from the objects of lines: what each key means, and what is refused."""

import pytest
from fake_llm import FakeLLM

from numbatch.batching.commands.line_request import build_task
from numbatch.batching.request import SamplingParams
from numbatch.errors import InputError


def task(**record):
    return build_task(record, 3, "name", FakeLLM())


def test_a_prompt_is_continued_with_the_parameters_beside_it():
    made = task(custom_id="name", prompt="ab", temperature=0.5, top_k=4, stop=["x"], metadata={})
    assert (made.kind, made.line, made.openai) == ("prompt", 3, None)
    assert (made.request.id, made.request.text) == ("name", "ab")
    assert made.request.tokens.tolist() == [97, 98]
    assert made.request.params == SamplingParams(temperature=0.5, top_k=4, stop=["x"])


def test_token_ids_are_taken_as_they_are():
    assert task(prompt=[5, 6]).request.tokens.tolist() == [5, 6]
    scored = task(text=[5, 6]).request
    assert scored.tokens.tolist() == [5, 6]
    assert scored.params is None


def test_messages_are_laid_out_by_the_chat_template():
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    made = task(messages=[{"role": "s", "content": "a"}, {"role": "u", "content": parts}])
    assert made.request.text == "<s>a<u>bc"
    assert bytes(made.request.tokens.tolist()) == b"<s>a<u>bc"
    assert made.request.tokens.dtype == "int64"


def test_a_text_is_scored_from_its_second_token_and_a_continuation_from_its_first():
    assert (task(text="abc").kind, task(text="abc").request.score_from) == ("text", 1)
    made = task(context="abc", continuation="de")
    assert (made.kind, made.request.score_from, made.request.text) == ("continuation", 3, "abcde")
    assert made.request.params is None
    assert task(context="", continuation="de").request.score_from == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"max_completion_tokens": 9}, {"max_tokens": 9}),
        ({"logprobs": 3}, {"logprobs": 3}),
        ({"top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": False}, {"logprobs": None}),
    ],
)
def test_openai_names_of_parameters_are_read(given, wanted):
    assert task(prompt="a", **given).request.params == SamplingParams(**wanted)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "the line has none, should have exactly one of prompt, messages, text"),
        ({"prompt": "a", "text": "b"}, "the line has prompt and text"),
        ({"text": "b", "context": "c", "continuation": "d"}, "text and context and continuation"),
        ({"context": "c"}, "only one of them"),
        ({"continuation": "c"}, "only one of them"),
        ({"promt": "a"}, "unknown key 'promt'; the known ones are custom_id, prompt, messages"),
        ({"text": "a", "temperature": 1}, "temperature goes with prompt and messages only"),
        ({"prompt": ""}, "prompt is empty"),
        ({"text": ""}, "text is empty"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": 5}, "prompt is 5, should be a text or a list of token ids"),
        ({"prompt": {"a": 1}}, 'prompt is {"a": 1}'),
        ({"prompt": [1, "2"]}, 'prompt has "2" at place 1'),
        ({"prompt": [1, True]}, "prompt has true at place 1"),
        ({"prompt": [-1]}, "prompt has -1 at place 0"),
        ({"prompt": [1.0]}, "prompt has 1.0 at place 0"),
        ({"context": "a", "continuation": ""}, "continuation is empty"),
        ({"context": 1, "continuation": "a"}, "context is 1, should be a text"),
        ({"messages": "hello"}, 'messages is "hello", should be a list'),
        ({"messages": [{"role": "u", "content": [{"type": "image_url"}]}]}, "only text"),
        ({"prompt": "a\udc80"}, "lone surrogate"),
        ({"prompt": "a", "stop": ["\ud800"]}, "'stop' holds the lone surrogate"),
        ({"prompt": "a", "temperature": -1}, "temperature is -1, should be a number from 0 to"),
        ({"prompt": "a", "top_p": 0}, "top_p is 0"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens is 0"),
        ({"prompt": "a", "max_tokens": 1, "max_completion_tokens": 1}, "are the same"),
        ({"prompt": "a", "logprobs": False, "top_logprobs": 2}, "logprobs is false"),
        ({"prompt": "a", "stop": 5}, "stop is 5"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_fault(record, said):
    with pytest.raises(InputError) as error:
        task(**record)
    assert said in str(error.value)


def test_a_continuation_needs_tokens_of_its_own():
    llm = FakeLLM()
    llm.encode_pair = lambda context, continuation: (llm.encode(context), len(context))
    with pytest.raises(InputError, match="'b' has no tokens of its own"):
        build_task({"context": "a", "continuation": "b"}, 1, "name", llm)


def test_a_chat_needs_a_template():
    with pytest.raises(InputError, match="no chat template"):
        build_task({"messages": [{"role": "u", "content": "a"}]}, 1, "x", FakeLLM(chat=False))
