"""Prompts as users give them: one or several, texts or token ids, with or without ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from numbatch.batching.ids import check_id
from numbatch.batching.request import SamplingParams
from numbatch.errors import InputError
from numbatch.models.tokenizer import Tokenizer

__all__ = [
    "Message",
    "Prompt",
    "conversations",
    "encode_pair",
    "encode_prompt",
    "one_each",
    "pair_tokens",
    "several",
    "shown",
    "unique",
]

Prompt = str | bytes | Sequence[int] | np.ndarray
"""A text, or the token ids of one."""

Message = Mapping[str, Any]
"""A turn of a conversation: ``role`` and ``content``."""


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt) -> np.ndarray:
    """Return the token ids of a prompt: int64, BOS first where the model wants it.

    Raises
    ------
    InputError
        If a text is not valid Unicode, or ids are no whole numbers.
    """
    if isinstance(prompt, str | bytes):
        ids = tokenizer.encode(prompt, add_bos=tokenizer.adds_bos, errors="strict")
        return ids.astype(np.int64)
    ids = np.asarray(prompt)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise InputError(f"a prompt is {prompt!r}, should be a text or a list of token ids")
    return ids.astype(np.int64)


def encode_pair(
    tokenizer: Tokenizer, first: int | None, context: str, continuation: str
) -> tuple[np.ndarray, int]:
    """Return the tokens of a context and its continuation, and where the latter begins.

    The pair is tokenized as one text and cut where the context's own tokens end; spaces that end
    the context count to the continuation.

    Parameters
    ----------
    tokenizer : Tokenizer
    first : int, optional
        The token that stands for an empty context where the tokenizer adds none.
    context, continuation : str

    Raises
    ------
    InputError
        If the context is empty and nothing stands for it.
    """
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    if context:
        whole = encode_prompt(tokenizer, context + continuation)
        return whole, len(encode_prompt(tokenizer, context))
    tokens = encode_prompt(tokenizer, continuation)
    if tokenizer.adds_bos:
        return tokens, 1
    if first is None:
        raise InputError("an empty context needs a model with a BOS or an end token")
    return np.concatenate([[first], tokens]), 1


def pair_tokens(
    tokenizer: Tokenizer, first: int | None, pair: Any, place: int
) -> tuple[np.ndarray, int]:
    """Check a pair as ``loglikelihood`` takes it, and return what :func:`encode_pair` does.

    Raises
    ------
    InputError
        If it is no pair of texts, or the continuation has no tokens.
    """
    if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise InputError(f"pair {place} is {pair!r}, should be (context, continuation)")
    tokens, begin = encode_pair(tokenizer, first, *pair)
    if begin >= len(tokens):
        raise InputError(f"the continuation of pair {place} is empty: {pair!r}")
    return tokens, begin


def conversations(messages: Any) -> list[Sequence[Message]]:
    """Return a list of conversations, also where a single one was given."""
    single = len(messages) > 0 and isinstance(messages[0], Mapping)
    return [messages] if single else list(messages)


def several(prompts: Any) -> list[Prompt]:
    """Return a list of prompts, also where a single text or a single list of ids was given."""
    return [prompts] if _is_one_prompt(prompts) else list(prompts)


def _is_one_prompt(prompts: Any) -> bool:
    if isinstance(prompts, str | bytes):
        return True
    if isinstance(prompts, np.ndarray):
        return prompts.ndim == 1 and prompts.dtype != object
    return len(prompts) > 0 and isinstance(prompts[0], int | np.integer)


def shown(text: Any) -> str:
    """Return the text that a result carries; none for a prompt of token ids."""
    if isinstance(text, bytes):
        return text.decode()
    return text if isinstance(text, str) else ""


def one_each(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int
) -> list[SamplingParams]:
    """Return sampling parameters for each of ``count`` prompts.

    Raises
    ------
    InputError
        If there are as many as neither one nor the prompts.
    """
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count or not all(isinstance(each, SamplingParams) for each in params):
        raise InputError(
            f"there are {len(params)} sampling parameters for {count} prompts; give one "
            f"SamplingParams, or a list with one for each prompt"
        )
    return list(params)


def unique(ids: Sequence[str | int], count: int) -> list[str | int]:
    """Check the ids of prompts.

    Raises
    ------
    InputError
        If there are more or fewer than ``count``, or one is empty, no id, or there twice.
    """
    if len(ids) != count:
        raise InputError(f"there are {len(ids)} ids for {count} prompts, should be one for each")
    places: dict[str | int, int] = {}
    for i, name in enumerate(ids):
        if places.setdefault(check_id(name, i), i) != i:
            raise InputError(f"id {name!r} stands at {places[name]} and at {i}, should be unique")
    return list(ids)
