"""Results as JSON values: arrays to lists, numbers short, and what is not finite as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from numbatch.batching.results import FailedResult, GenerationResult, Result, ScoreResult

if TYPE_CHECKING:
    from numbatch.models.tokenizer import Tokenizer

__all__ = ["dump_line", "finite", "floats", "generation_json", "result_json", "score_json"]

LINE_ENDS = str.maketrans({c: f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"})
"""Escapes for what Unicode, but not JSON, takes as the end of a line."""


def dump_line(record: Mapping[str, Any]) -> str:
    """Return standard JSON on one line, whatever the reader takes as the end of a line.

    Raises
    ------
    ValueError
        If a number is not finite, which JSON cannot say.
    """
    return json.dumps(record, ensure_ascii=False, allow_nan=False).translate(LINE_ENDS)


def floats(values: np.ndarray) -> list[float | None]:
    """Return numbers as the shortest that read back as the same float32; None if not finite."""
    texts = np.asarray(values, np.float32).astype(str).tolist()
    return [finite(float(text)) for text in texts]


def finite(value: float) -> float | None:
    """Return a number in at most ten digits; None if it is not finite."""
    return float(f"{value:.10g}") if math.isfinite(value) else None


def result_json(result: Result) -> dict[str, Any]:
    """Return any result, the texts of likeliest tokens left out; an error as ``error``."""
    if isinstance(result, FailedResult):
        return {"custom_id": result.id, "error": result.error}
    if isinstance(result, GenerationResult):
        return generation_json(result)
    return score_json(result, is_continuation=bool(np.isnan(result.logprobs[1:]).any()))


def generation_json(result: GenerationResult, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Return a continued prompt; ``top_logprobs`` only where likeliest tokens were asked for.

    Their texts are told where a tokenizer is given.
    """
    record: dict[str, Any] = {
        "custom_id": result.id,
        "text": result.text,
        "finish_reason": result.finish_reason,
    }
    if result.stop_reason is not None:
        record["stop_reason"] = result.stop_reason
    record["token_ids"] = result.token_ids.tolist()
    record["logprobs"] = floats(result.logprobs)
    if result.top_token_ids.shape[1]:
        record["top_logprobs"] = [
            _likeliest(ids, values, tokenizer)
            for ids, values in zip(result.top_token_ids, result.top_logprobs, strict=True)
        ]
    if len(result.prompt_logprobs):
        record["prompt_logprobs"] = floats(result.prompt_logprobs)
    if result.prompt_top_token_ids.shape[1]:
        _, *rest = zip(result.prompt_top_token_ids, result.prompt_top_logprobs, strict=True)
        record["prompt_top_logprobs"] = [None, *(_likeliest(*each, tokenizer) for each in rest)]
    record["usage"] = {
        "prompt_tokens": len(result.prompt_token_ids),
        "completion_tokens": len(result.token_ids),
    }
    return record


def _likeliest(
    ids: np.ndarray, values: np.ndarray, tokenizer: Tokenizer | None
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for token, logprob in zip(ids.tolist(), floats(values), strict=True):
        entry: dict[str, Any] = {"token_id": token}
        if tokenizer is not None:
            entry["token"] = tokenizer.token_bytes(token).decode(errors="replace")
        entries.append(entry | {"logprob": logprob})
    return entries


def score_json(result: ScoreResult, *, is_continuation: bool) -> dict[str, Any]:
    """Return a scored text; ``is_greedy`` only for a continuation after a context."""
    record: dict[str, Any] = {
        "custom_id": result.id,
        "token_ids": result.token_ids.tolist(),
        "logprobs": floats(result.logprobs),
        "sum_logprob": finite(result.sum_logprob),
        "perplexity": finite(result.perplexity),
        "tokens_scored": result.tokens_scored,
    }
    if result.top_token_ids.shape[1]:
        record["top_logprobs"] = [
            None if math.isnan(logprob) else _likeliest(ids, values, None)
            for ids, values, logprob in zip(
                result.top_token_ids, result.top_logprobs, result.logprobs, strict=True
            )
        ]
    if len(result.scores):
        record["scores"] = [finite(score) for score in result.scores.tolist()]
    if is_continuation:
        record["is_greedy"] = bool(np.all(result.greedy[~np.isnan(result.logprobs)]))
    return record
