"""OpenAI's batch format: its input lines, and the shape of its answers.

Source: the OpenAI API reference (Batch, Chat, Completions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from numbatch.batching.commands.jsonl import refuse_unknown, shown
from numbatch.batching.result_json import floats
from numbatch.batching.results import GenerationResult, ScoreResult
from numbatch.errors import InputError

if TYPE_CHECKING:
    from numbatch.models.tokenizer import Tokenizer

__all__ = ["Answerer", "Call", "is_openai", "read", "refusal"]

LINE_KEYS = ("custom_id", "method", "url", "body")
SAMPLING = (
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed"),
    *("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"),
    *("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos"),
)
IGNORED = (
    *("model", "user", "metadata", "store", "service_tier"),
    *("safety_identifier", "prompt_cache_key"),
)
"""They ask for nothing that changes an answer; the model is the one that is loaded."""
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "stream": False,
    "echo": False,
    "suffix": "",
    "logit_bias": {},
    "tools": [],
    "response_format": {"type": "text"},
}
"""Read at the value that asks for nothing; any other is refused."""


@dataclass(frozen=True, slots=True)
class Call:
    """What an answer has to look like: that of a chat or of a completion.

    Parameters
    ----------
    chat : bool
    logprobs : bool
        Whether log-probabilities were asked for.
    """

    chat: bool
    logprobs: bool


def is_openai(record: Mapping[str, Any]) -> bool:
    """Tell whether the object of a line is of OpenAI's format."""
    return any(key in record for key in ("body", "url", "method"))


def read(record: Mapping[str, Any], context: int) -> tuple[dict[str, Any], Call]:
    """Turn the object of a line into one of Numbatch's own format.

    Parameters
    ----------
    record : mapping
    context : int
        The most tokens of a chat's answer where the line does not say, as at OpenAI.

    Raises
    ------
    InputError
        If the line asks for what is not supported, by name.
    """
    refuse_unknown(record, LINE_KEYS)
    if record.get("method", "POST") != "POST":
        raise InputError(f'method is {shown(record["method"])}, should be "POST"')
    urls = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
    url = record.get("url")
    if not isinstance(url, str) or url not in urls:
        raise InputError(f"url is {shown(url)}, should be {' or '.join(urls)}")
    if not isinstance(record.get("body"), dict):
        raise InputError(f"body is {shown(record.get('body'))}, should be an object")
    body = {key: value for key, value in record["body"].items() if value is not None}
    source = urls[url]
    refuse_unknown(body, (source, *SAMPLING, *NEUTRAL, *IGNORED))
    if source not in body:
        raise InputError(f"the body has no {source}")
    logprobs = body.get("logprobs", body.get("top_logprobs", False))
    call = Call(source == "messages", logprobs is not False)
    if source == "prompt" and body.get("echo") is True:
        return _scoring(body), call
    for key, value in NEUTRAL.items():
        if body.get(key, value) != value:
            raise InputError(f"{key} is {shown(body[key])}, only {shown(value)} is supported")
    fields = {key: body[key] for key in (source, *SAMPLING) if key in body}
    if call.chat and "max_completion_tokens" not in fields:
        fields.setdefault("max_tokens", context)
    return fields, call


def _scoring(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read the completion that only echoes its prompt: the way to have a text scored."""
    if body.get("max_tokens") != 0:
        raise InputError("echo is true: supported only with max_tokens 0, which scores the prompt")
    logprobs = body.get("logprobs", 0)
    if not (logprobs is True or logprobs == 0) or body.get("top_logprobs", 0) != 0:
        raise InputError("likeliest tokens of an echoed prompt are not reported: logprobs can be 0")
    return {"text": body["prompt"]}


def refusal(custom_id: str | int | None, line: int, message: str) -> dict[str, Any]:
    """Return the answer to a line that could not be served."""
    error = {"code": "invalid_request", "message": message, "param": None, "line": line}
    return {"id": f"batch_req_{line}", "custom_id": custom_id, "response": None, "error": error}


class Answerer:
    """Puts results into the shape of OpenAI's batch output.

    Parameters
    ----------
    tokenizer : Tokenizer
    model : str
        The name that answers carry.
    created : int
        Unix time that answers carry, in seconds.
    """

    def __init__(self, tokenizer: Tokenizer, model: str, created: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._created = created

    def answer(
        self, result: GenerationResult | ScoreResult, line: int, call: Call
    ) -> dict[str, Any]:
        """Return the answer to a line; its ids are made from the line's number."""
        if isinstance(result, GenerationResult):
            prompt, output = len(result.prompt_token_ids), len(result.token_ids)
            text, reason = result.text, result.finish_reason
        else:
            prompt, output = len(result.token_ids), 0
            text = result.text or self._tokenizer.decode(result.token_ids)
            reason = "length"
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if call.chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        if call.logprobs:
            describe = self._chat_logprobs if call.chat else self._completion_logprobs
            choice["logprobs"] = describe(result)
        body = {
            "id": f"chatcmpl-{line}" if call.chat else f"cmpl-{line}",
            "object": "chat.completion" if call.chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": output,
                "total_tokens": prompt + output,
            },
        }
        response = {"status_code": 200, "request_id": f"req_{line}", "body": body}
        return {
            "id": f"batch_req_{line}",
            "custom_id": result.id,
            "response": response,
            "error": None,
        }

    def _chat_logprobs(self, result: GenerationResult | ScoreResult) -> dict[str, Any]:
        content = []
        logprobs = floats(result.logprobs)
        for i, token in enumerate(result.token_ids.tolist()):
            entry = self._entry(token, logprobs[i])
            entry["top_logprobs"] = [self._entry(*each) for each in _top(result, i)]
            content.append(entry)
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    def _completion_logprobs(self, result: GenerationResult | ScoreResult) -> dict[str, Any]:
        texts = [self._tokenizer.token_bytes(token) for token in result.token_ids.tolist()]
        names = [_name(data) for data in texts]
        logprobs = floats(result.logprobs)
        tops = None
        if isinstance(result, GenerationResult):
            tops = [
                {name: logprob}
                | {_name(self._tokenizer.token_bytes(t)): v for t, v in _top(result, i)}
                for i, (name, logprob) in enumerate(zip(names, logprobs, strict=True))
            ]
        lengths = [len(data.decode(errors="replace")) for data in texts]
        return {
            "tokens": names,
            "token_logprobs": logprobs,
            "top_logprobs": tops,
            "text_offset": [0, *accumulate(lengths)][: len(lengths)],
        }


def _name(data: bytes) -> str:
    """Return the text of a token, or its bytes where they are part of a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _top(result: GenerationResult | ScoreResult, place: int) -> list[tuple[int, float | None]]:
    if not isinstance(result, GenerationResult):
        return []
    ids, values = result.top_token_ids[place], floats(result.top_logprobs[place])
    return list(zip(ids.tolist(), values, strict=True))
