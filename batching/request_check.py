"""Whether a request's tokens can be served by a model."""

from __future__ import annotations

import numpy as np

from numbatch.batching.request import Request
from numbatch.errors import InputError

__all__ = ["check_tokens"]


def check_tokens(request: Request, context: int, vocabulary: int) -> None:
    """Raise InputError if there are none, too many, or one that the vocabulary lacks."""
    tokens = request.tokens
    if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InputError(
            f"request {request.id!r} has tokens {tokens!r}, should have an array of token ids"
        )
    if len(tokens) == 0:
        raise InputError(f"request {request.id!r} is empty, should have at least one token")
    if len(tokens) > context:
        raise InputError(
            f"request {request.id!r} has {len(tokens)} tokens, more than the context of "
            f"{context} tokens"
        )
    if request.params is not None and len(tokens) == context:
        raise InputError(
            f"request {request.id!r} has {len(tokens)} tokens and fills the context: there is "
            f"no room to generate"
        )
    bad = np.flatnonzero((tokens < 0) | (tokens >= vocabulary))
    if len(bad):
        raise InputError(
            f"request {request.id!r} has token id {tokens[bad[0]]} at place {bad[0]}, ids "
            f"should be from 0 to {vocabulary - 1}"
        )
