"""Encoding and decoding with the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from numbatch.batching.baseline.case import Case
from numbatch.batching.baseline.texts import documents, long_text
from numbatch.models.tokenizer import Tokenizer

__all__ = ["tokenization_cases"]

BATCHES = (8, 32, 64)
LONG = 4_000_000


def tokenization_cases(tokenizer: Tokenizer, quick: bool = False) -> Iterator[Case]:
    """Yield one text, batches, a long text and decoding; the limit is to read the text once."""

    def case(name: str, texts: list[str]) -> Case:
        size = sum(len(text.encode()) for text in texts)
        return Case(
            "tokenization",
            name,
            partial(tokenizer.encode_batch, texts),
            size / 1e6,
            "MB",
            bytes=size,
        )

    (one,) = documents(1)
    size = len(one.encode())
    yield Case(
        "tokenization",
        "one text of 2,000 characters",
        partial(tokenizer.encode, one),
        size / 1e6,
        "MB",
        bytes=size,
    )
    for count in BATCHES:
        yield case(f"batch of {count} texts", documents(count))
    characters = LONG // 100 if quick else LONG
    yield case(f"long text of {characters:,} characters", [long_text(characters)])
    ids = tokenizer.encode_batch(documents(64))
    size = sum(len(text.encode()) for text in documents(64))
    yield Case(
        "tokenization",
        "decoding of 64 texts",
        partial(tokenizer.decode_batch, ids),
        size / 1e6,
        "MB",
        bytes=size,
    )
