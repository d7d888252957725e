"""Take over tiktoken's encodings, from the package or from a .tiktoken file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.added_tokens import AddedToken
from numbatch.models.tokenizers.special_names import ends_of_turn, likely_bos
from numbatch.models.tokenizers.split_patterns import TIKTOKEN, TiktokenEncoding
from numbatch.models.tokenizers.split_text import PatternSplitter, compile_pattern
from numbatch.models.tokenizers.text_pipeline import build_pipeline
from numbatch.models.tokenizers.vocabulary import build_vocabulary, byte_strings

__all__ = ["tokenizer_from_encoding", "tokenizer_from_ranks", "tokenizer_from_tiktoken_file"]

_MOST_IDS = 1 << 24


def tokenizer_from_encoding(encoding: Any) -> Tokenizer:
    """Build a tokenizer from a ``tiktoken.Encoding`` or the name of one.

    Raises
    ------
    ModelError
        If tiktoken is not installed, does not know the name, or this is no encoding.
    """
    if isinstance(encoding, str):
        try:
            import tiktoken
        except ImportError:
            raise ModelError(
                "tiktoken is not installed; pip install 'numbatch[tiktoken]', "
                "or read a .tiktoken file with Tokenizer.from_file"
            ) from None
        try:
            encoding = tiktoken.get_encoding(encoding)
        except ValueError as error:
            raise ModelError(f"tiktoken has no encoding {encoding!r}: {error}") from error
    try:
        ranks, pattern = encoding._mergeable_ranks, encoding._pat_str
        special, name = encoding._special_tokens, encoding.name
    except AttributeError:
        raise ModelError(
            f"{type(encoding).__name__} is no tiktoken.Encoding and no name of one"
        ) from None
    return tokenizer_from_ranks(ranks, TiktokenEncoding(pattern, dict(special)), name=name)


def tokenizer_from_tiktoken_file(
    path: Path, encoding: str | None, pattern: str | None, special: Mapping[str, int] | None
) -> Tokenizer:
    """Build a tokenizer from a file of lines ``base64-bytes rank``.

    Raises
    ------
    ModelError
        If a line is damaged, or neither an encoding nor a pattern says how text is split.
    """
    name = encoding or path.stem
    if pattern is not None:
        split = TiktokenEncoding(pattern, dict(special or {}))
    elif name in TIKTOKEN:
        split = TIKTOKEN[name]
    else:
        raise ModelError(
            f"{path} does not say how text is split, and encoding {name!r} is not known; "
            f"give encoding, one of {', '.join(sorted(TIKTOKEN))}, or pattern and special_tokens"
        )
    ranks = _read_ranks(path)
    if split.tokens and ranks and len(ranks) != split.tokens:
        raise ModelError(
            f"{path} has {len(ranks)} tokens, but {name} has {split.tokens}: it is cut short, "
            "or of another encoding"
        )
    return tokenizer_from_ranks(ranks, split, name=name)


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            placed = ranks.setdefault(token, int(rank))
        except (ValueError, binascii.Error):
            raise ModelError(
                f"{path}, line {number}: {line[:80]!r} should be base64 and a rank"
            ) from None
        if placed != int(rank):
            raise ModelError(f"{path}, line {number}: {token!r} has rank {placed} already")
    return ranks


def tokenizer_from_ranks(
    ranks: Mapping[bytes, int], encoding: TiktokenEncoding, *, name: str
) -> Tokenizer:
    """Build a tokenizer from tokens' ranks, which are their ids.

    Raises
    ------
    ModelError
        If the vocabulary is empty, lacks a byte, or gives one id to two tokens.
    """
    ids = [*ranks.values(), *encoding.special_tokens.values()]
    if not ranks or not all(type(i) is int and 0 <= i < _MOST_IDS for i in ids):
        raise ModelError(
            f"{name}: the vocabulary is empty or has an id outside 0 to {_MOST_IDS - 1}"
        )
    pieces = [b""] * (max(ids) + 1)
    for token, rank in ranks.items():
        if pieces[rank]:
            raise ModelError(f"{name}: {pieces[rank]!r} and {token!r} both have rank {rank}")
        pieces[rank] = token
    outputs = list(pieces)
    for text, index in encoding.special_tokens.items():
        if pieces[index]:
            raise ModelError(f"{name}: {pieces[index]!r} and {text!r} both have id {index}")
        outputs[index] = text.encode()
    byte_ids = np.array([ranks.get(bytes([byte]), -1) for byte in range(256)], np.int32)
    if (byte_ids < 0).any():
        missing = int(np.flatnonzero(byte_ids < 0)[0])
        raise ModelError(f"{name}: the vocabulary has no token for the byte 0x{missing:02X}")
    vocabulary = build_vocabulary(
        byte_strings(pieces),
        byte_strings(outputs),
        np.where(np.array([len(piece) for piece in pieces]) > 1, np.arange(len(pieces)), -1),
        byte_ids=byte_ids,
        by_character=False,
        whole_pieces=True,
        unknown_id=-1,
        fuse_unknown=False,
        where=name,
    )
    added = [AddedToken(index, text) for text, index in encoding.special_tokens.items()]
    special = encoding.special_tokens
    # tiktoken leaves out what the pattern does not match.
    splitter = PatternSplitter(
        compile_pattern(encoding.pattern, name, lines=False), "Removed", invert=True
    )
    return Tokenizer(
        vocabulary,
        build_pipeline(added, None, splitter, name),
        added,
        name=name,
        bos_id=likely_bos(special),
        eos_id=special.get("<|endoftext|>"),
        eos_ids=ends_of_turn(added),
    )
