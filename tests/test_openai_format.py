"""OpenAI's batch format: what is read, what is refused by name, and the shape of answers."""

import pytest
from fake_llm import FakeLLM

from numbatch.batching.commands.line_request import build_task
from numbatch.batching.commands.openai_format import Answerer, is_openai, refusal
from numbatch.batching.request import SamplingParams
from numbatch.errors import InputError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}


def line(body, /, **changes):
    url = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    return {"custom_id": "a", "method": "POST", "url": url, "body": body} | changes


def task(body, /, **changes):
    return build_task(line(body, **changes), 2, "a", FakeLLM())


def answer(body):
    llm = FakeLLM()
    made = build_task(line(body), 2, "a", llm)
    (result,) = llm.engine.run([made.request])
    record = Answerer(llm.tokenizer, "tiny", 1_700_000_000).answer(result, made.line, made.openai)
    assert record["id"] == "batch_req_2"
    assert record["custom_id"] == "a"
    assert record["error"] is None
    assert record["response"]["status_code"] == 200
    return record["response"]["body"]


def test_its_lines_are_told_from_numbatchs_own():
    assert is_openai(line(CHAT))
    assert is_openai({"body": {}})
    assert not is_openai({"custom_id": "a", "prompt": "b"})


def test_parameters_of_a_chat():
    made = task(CHAT | {"max_completion_tokens": 7, "temperature": 0, "top_p": 0.5, "stop": "x"})
    assert made.kind == "messages"
    assert made.request.text == "<user>hi"
    assert made.request.params == SamplingParams(max_tokens=7, temperature=0, top_p=0.5, stop="x")


def test_a_chat_that_names_no_length_may_fill_the_context():
    assert task(CHAT).request.params.max_tokens == FakeLLM().engine.context
    assert task(COMPLETION).request.params.max_tokens == 16


def test_keys_that_ask_for_nothing_are_read():
    neutral = {"n": 1, "stream": False, "logit_bias": {}, "user": "u", "store": True, "seed": None}
    assert task(COMPLETION | neutral).request.params == SamplingParams()


@pytest.mark.parametrize(
    ("body", "changes", "said"),
    [
        (CHAT, {"method": "GET"}, 'method is "GET", should be "POST"'),
        (
            CHAT,
            {"url": "/v1/embeddings"},
            'url is "/v1/embeddings", should be /v1/chat/completions',
        ),
        (CHAT, {"url": ["a"]}, 'url is ["a"]'),
        (CHAT, {"body": "x"}, 'body is "x", should be an object'),
        (CHAT, {"url": "/v1/completions"}, "unknown key 'messages'"),
        (CHAT, {"temperature": 1}, "unknown key 'temperature'; the known ones are custom_id"),
        ({"model": "m"}, {}, "the body has no prompt"),
        (CHAT | {"n": 2}, {}, "n is 2, only 1 is supported"),
        (CHAT | {"stream": True}, {}, "stream is true, only false"),
        (CHAT | {"tools": [{"type": "function"}]}, {}, "tools is"),
        (CHAT | {"response_format": {"type": "json_object"}}, {}, "response_format is"),
        (CHAT | {"temprature": 1}, {}, "unknown key 'temprature'"),
        (CHAT | {"temperature": 3e400}, {}, "temperature is inf"),
        (COMPLETION | {"echo": True}, {}, "only with max_tokens 0"),
        (COMPLETION | {"echo": True, "max_tokens": 0, "logprobs": 1}, {}, "logprobs can be 0"),
        (COMPLETION | {"prompt": ["a", "b"]}, {}, 'prompt has "a" at place 0'),
        (COMPLETION | {"prompt": "\ud800"}, {}, "'body' holds the lone surrogate"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(body, changes, said):
    with pytest.raises(InputError) as error:
        task(body, **changes)
    assert said in str(error.value)


def test_the_answer_to_a_chat():
    assert answer(CHAT | {"max_tokens": 2}) == {
        "id": "chatcmpl-2",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ii", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
    }


def test_log_probabilities_of_a_chat():
    body = answer(CHAT | {"max_tokens": 1, "logprobs": True, "top_logprobs": 2})
    assert body["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "i",
                "logprob": -0.1,
                "bytes": [105],
                "top_logprobs": [
                    {"token": "A", "logprob": -1.5, "bytes": [65]},
                    {"token": "B", "logprob": -2.5, "bytes": [66]},
                ],
            }
        ],
        "refusal": None,
    }


def test_log_probabilities_of_a_completion():
    body = answer(COMPLETION | {"max_tokens": 2, "logprobs": 1})
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == "ii"
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["i", "i"],
        "token_logprobs": [-0.1, -0.1],
        "top_logprobs": [{"i": -0.1, "A": -1.5}] * 2,
        "text_offset": [0, 1],
    }


def test_half_a_character_is_named_by_its_bytes():
    body = answer({"prompt": [0xC3], "max_tokens": 1, "logprobs": 0})
    assert body["choices"][0]["logprobs"]["tokens"] == ["bytes:\\xc3"]


@pytest.mark.parametrize("prompt", ["abc", [97, 98, 99]])
def test_an_echo_without_output_scores_the_prompt(prompt):
    body = answer({"prompt": prompt, "echo": True, "max_tokens": 0, "logprobs": 0})
    assert body["choices"][0]["text"] == "abc"
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -0.5, -0.5],
        "top_logprobs": None,
        "text_offset": [0, 1, 2],
    }
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


def test_an_error_has_a_code_a_message_and_the_line():
    assert refusal("a", 4, "line 4: no") == {
        "id": "batch_req_4",
        "custom_id": "a",
        "response": None,
        "error": {
            "code": "invalid_request",
            "message": "line 4: no",
            "param": None,
            "line": 4,
        },
    }
