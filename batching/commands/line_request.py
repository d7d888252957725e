"""Objects read from lines to requests: what each key means, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from numbatch.batching.commands import openai_format
from numbatch.batching.commands.jsonl import check_unicode, refuse_unknown, shown
from numbatch.batching.request import Request, SamplingParams
from numbatch.errors import InputError

if TYPE_CHECKING:
    from numbatch.batching.llm import LLM

__all__ = ["Task", "build_task"]

SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingParams))
ALIASES = ("max_completion_tokens", "top_logprobs")
IGNORED = ("metadata", "user")
SCHEDULING = ("priority", "tag", "deadline")
SOURCES = ("prompt", "messages", "text", "context", "continuation")


@dataclass(frozen=True, slots=True)
class Task:
    """A request, and what its answer has to look like.

    Parameters
    ----------
    request : Request
    line : int
        Where it stands in the input, from 1.
    kind : str
        ``prompt``, ``messages``, ``text`` or ``continuation``.
    openai : openai_format.Call, optional
        Set where the line is of OpenAI's batch format.
    """

    request: Request
    line: int
    kind: str
    openai: openai_format.Call | None = None


def build_task(record: Mapping[str, Any], line: int, name: str | int, llm: LLM) -> Task:
    """Turn the object of a line into a request.

    Parameters
    ----------
    record : mapping
        As :func:`parse_line` returns it.
    line : int
    name : str or int
        The request's id.
    llm : LLM
        Whose tokenizer is used.

    Raises
    ------
    InputError
        If a key is unknown, missing or contradicts another, or a value cannot be used.
    """
    for key, value in record.items():
        check_unicode(key, value)
    call = None
    if openai_format.is_openai(record):
        record, call = openai_format.read(record, llm.engine.context)
    kind = _kind(record)
    tokens, begin, text = _encode(record, kind, llm)
    params = _sampling_params(record) if kind in ("prompt", "messages") else None
    scheduling = {key: record[key] for key in SCHEDULING if key in record}
    return Task(Request(name, tokens, params, begin, text, **scheduling), line, kind, call)


def _kind(record: Mapping[str, Any]) -> str:
    """Tell what is asked for, and refuse keys that do not belong to it."""
    known = ("custom_id", *SOURCES, *SAMPLING, *ALIASES, *SCHEDULING, *IGNORED)
    refuse_unknown(record, known)
    given = [key for key in SOURCES if key in record]
    if given == ["context", "continuation"]:
        given = ["continuation"]
    wanted = "exactly one of prompt, messages, text, or context with continuation"
    if len(given) != 1:
        raise InputError(f"the line has {' and '.join(given) or 'none'}, should have {wanted}")
    kind = given[0]
    if kind == "context" or (kind == "continuation" and "context" not in record):
        raise InputError("context and continuation go together, the line has only one of them")
    extra = [key for key in (*SAMPLING, *ALIASES) if key in record]
    if extra and kind in ("text", "continuation"):
        raise InputError(
            f"{extra[0]} goes with prompt and messages only; {kind} is scored, nothing is sampled"
        )
    return kind


def _encode(record: Mapping[str, Any], kind: str, llm: LLM) -> tuple[np.ndarray, int, str]:
    """Return the tokens, the first that is to be scored, and the text."""
    if kind == "messages":
        if not isinstance(record["messages"], list):
            raise InputError(f"messages is {shown(record['messages'])}, should be a list")
        messages = [_joined(message) for message in record["messages"]]
        text = llm.tokenizer.apply_chat_template(messages)
        return llm.tokenizer.encode_chat(messages).astype(np.int64), 1, text
    if kind == "continuation":
        context, continuation = record["context"], _filled_text(record, "continuation")
        if not isinstance(context, str):
            raise InputError(f"context is {shown(context)}, should be a text")
        tokens, begin = llm.encode_pair(context, continuation)
        if begin >= len(tokens):
            raise InputError(f"the continuation {continuation!r} has no tokens of its own")
        return tokens, begin, context + continuation
    if isinstance(record[kind], list):
        return _token_ids(kind, record[kind]), 1, ""
    text = _filled_text(record, kind)
    return llm.encode(text), 1, text


def _filled_text(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        wanted = "a text or a list of token ids" if key in ("prompt", "text") else "a text"
        raise InputError(f"{key} is {shown(value)}, should be {wanted}")
    if not value:
        raise InputError(f"{key} is empty, should have at least one character")
    return value


def _token_ids(key: str, values: list[Any]) -> np.ndarray:
    if not values:
        raise InputError(f"{key} is empty, should have at least one token id")
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise InputError(f"{key} has {shown(value)} at place {i}, should be a token id")
    return np.array(values, np.int64)


def _joined(message: Any) -> Any:
    """Put together a message's text that is given in parts, as OpenAI allows it."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    parts = [part.get("text") if isinstance(part, dict) else None for part in message["content"]]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise InputError(f"a message has {shown(message['content'])}, only text is supported")
    return {**message, "content": "".join(texts)}


def _sampling_params(record: Mapping[str, Any]) -> SamplingParams:
    values = {key: record[key] for key in SAMPLING if key in record}
    if "max_completion_tokens" in record:
        if "max_tokens" in values:
            raise InputError("max_tokens and max_completion_tokens are the same, give one of them")
        values["max_tokens"] = record["max_completion_tokens"]
    values["logprobs"] = _logprobs(values.get("logprobs"), record.get("top_logprobs"))
    return SamplingParams(**values)


def _logprobs(logprobs: Any, top: Any) -> Any:
    """Merge vLLM's ``logprobs: 5`` and OpenAI's ``logprobs: true, top_logprobs: 5``."""
    if logprobs is False and top is not None:
        raise InputError(f"top_logprobs is {top!r}, but logprobs is false")
    if isinstance(logprobs, bool):
        return (top or 0) if logprobs else None
    return top if logprobs is None else logprobs
