"""Read the tokenizer in the metadata of a GGUF file.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.added_tokens import AddedToken
from numbatch.models.tokenizers.byte_level import byte_characters, bytes_of_spelled
from numbatch.models.tokenizers.from_json import merges_of, usable_byte_ids
from numbatch.models.tokenizers.normalize import space_marker
from numbatch.models.tokenizers.special_names import ends_of_turn, likely_bos
from numbatch.models.tokenizers.split_patterns import gguf_split
from numbatch.models.tokenizers.split_text import ChainedSplitter, PatternSplitter, compile_pattern
from numbatch.models.tokenizers.text_pipeline import TextPipeline, build_pipeline
from numbatch.models.tokenizers.token_writing import TokenWriting
from numbatch.models.tokenizers.vocabulary import Vocabulary, build_vocabulary

__all__ = ["tokenizer_from_gguf"]

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer from metadata that was read already.

    Parameters
    ----------
    metadata : mapping
        Arrays of strings as lists of str or bytes, arrays of numbers as NumPy arrays.

    Raises
    ------
    ModelError
        If a key is missing or wrong, or the kind of tokenizer is not supported; it names the key.
    """
    model = metadata.get(_PREFIX + "model")
    if model not in ("gpt2", "llama"):
        raise ModelError(
            f"{_PREFIX}model is {model!r}, which is not supported; supported: gpt2, llama"
        )
    tokens = _tokens(metadata)
    kinds = _numbers(metadata, "token_type", len(tokens), _NORMAL)
    sentencepiece = model == "llama"
    if sentencepiece and _PREFIX + "token_type" not in metadata:
        kinds = _guessed_kinds(metadata, tokens)
    added = _added_tokens(tokens, kinds)
    special = {token.content: token.id for token in added if token.special}
    prefix = sentencepiece and _flag(metadata, "add_space_prefix", True)
    if sentencepiece:
        vocabulary, adds_bos = _sentencepiece(metadata, tokens, kinds), True
        pipeline = build_pipeline(
            added, space_marker(prefix), ChainedSplitter(()), _PREFIX + "tokens"
        )
    else:
        vocabulary = _byte_level(metadata, tokens, kinds)
        pipeline = _byte_level_pipeline(metadata, added)
        adds_bos = gguf_split(_pre(metadata)).adds_bos
    defaults = (1, 2) if sentencepiece else (None, None)
    bos_id = _id(metadata, "bos_token_id", len(tokens), defaults[0])
    ends = [_id(metadata, f"{key}_token_id", len(tokens), None) for key in ("eot", "eom")]
    return Tokenizer(
        vocabulary,
        pipeline,
        added,
        name=str(metadata.get("general.name") or "GGUF"),
        bos_id=likely_bos(special) if bos_id is None else bos_id,
        eos_id=_id(metadata, "eos_token_id", len(tokens), defaults[1]),
        eos_ids={*ends_of_turn(added), *(index for index in ends if index is not None)},
        adds_bos=_flag(metadata, "add_bos_token", adds_bos),
        leading_spaces=int(prefix),
        chat_template=_template(metadata),
    )


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = metadata.get(_PREFIX + key)
    if not isinstance(values, list | tuple) or not values:
        raise ModelError(f"{_PREFIX}{key} is missing or empty, should be a list of strings")
    return [
        value if type(value) is str else _text(value, f"{_PREFIX}{key}[{index}]")
        for index, value in enumerate(values)
    ]


def _text(value: Any, where: str) -> str:
    try:
        if isinstance(value, bytes):
            return value.decode()
    except UnicodeDecodeError:
        raise ModelError(f"{where} is {value!r}, which is not UTF-8") from None
    raise ModelError(f"{where} is {value!r}, should be a string")


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = _strings(metadata, "tokens")
    if len(set(tokens)) < len(tokens):
        seen: dict[str, int] = {}
        for index, token in enumerate(tokens):
            if seen.setdefault(token, index) != index:
                raise ModelError(f"{_PREFIX}tokens: {seen[token]} and {index} are both {token!r}")
    return tokens


def _numbers(metadata: Mapping[str, Any], key: str, count: int, default: float) -> np.ndarray:
    values = metadata.get(_PREFIX + key)
    if values is None:
        return np.full(count, default)
    array = np.asarray(values)
    if array.shape != (count,) or array.dtype.kind not in "iuf":
        raise ModelError(
            f"{_PREFIX}{key} has {array.size} values of {array.dtype}, should have {count} numbers"
        )
    return array


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(_PREFIX + key)
    return default if value is None else bool(value)


def _id(metadata: Mapping[str, Any], key: str, count: int, default: int | None) -> int | None:
    value = metadata.get(_PREFIX + key)
    if value is None:
        return default if default is None or default < count else None
    if not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise ModelError(f"{_PREFIX}{key} is {value!r}, should be from 0 to {count - 1}")
    return int(value)


def _template(metadata: Mapping[str, Any]) -> str | None:
    value = metadata.get("tokenizer.chat_template")
    return value if isinstance(value, str) else None


def _pre(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(_PREFIX + "pre", "default"))


def _guessed_kinds(metadata: Mapping[str, Any], tokens: list[str]) -> np.ndarray:
    """Return the kinds of SentencePiece's tokens by their texts, where the file has none."""
    by_text = {f"<0x{byte:02X}>": _BYTE for byte in range(256)}
    kinds = np.array([by_text.get(token, _NORMAL) for token in tokens])
    for key, default, kind in (
        ("bos", 1, _CONTROL),
        ("eos", 2, _CONTROL),
        ("unknown", 0, _UNKNOWN),
    ):
        index = _id(metadata, f"{key}_token_id", len(tokens), default)
        if index is not None:
            kinds[index] = kind
    return kinds


def _added_tokens(tokens: list[str], kinds: np.ndarray) -> list[AddedToken]:
    rows = np.flatnonzero(np.isin(kinds, (_UNKNOWN, _CONTROL, _USER_DEFINED)))
    return [
        AddedToken(row, tokens[row], special=bool(kinds[row] != _USER_DEFINED))
        for row in rows.tolist()
        if tokens[row]
    ]


def _byte_level_pipeline(metadata: Mapping[str, Any], added: list[AddedToken]) -> TextPipeline:
    where = _PREFIX + "pre"
    patterns = gguf_split(_pre(metadata)).patterns
    splitters = tuple(PatternSplitter(compile_pattern(p, where)) for p in patterns)
    return build_pipeline(added, None, ChainedSplitter(splitters), _PREFIX + "tokens")


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], kinds: np.ndarray) -> Vocabulary:
    ids = {token: index for index, token in enumerate(tokens)}
    raw = set(np.flatnonzero(np.isin(kinds, (_UNKNOWN, _CONTROL, _USER_DEFINED))).tolist())
    pieces = [piece or b"" for piece in bytes_of_spelled(tokens)]
    for index in raw:
        pieces[index] = b""
    byte_ids = np.array([ids.get(character, -1) for character in byte_characters()], np.int32)
    return build_vocabulary(
        pieces,
        TokenWriting(byte_level=True).outputs(tokens, raw),
        merges_of(_strings(metadata, "merges"), ids, _PREFIX + "merges"),
        byte_ids=usable_byte_ids(byte_ids, False, -1, _PREFIX + "tokens"),
        by_character=False,
        whole_pieces=gguf_split(_pre(metadata)).whole_pieces,
        unknown_id=-1,
        fuse_unknown=False,
        where=_PREFIX + "tokens",
    )


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], kinds: np.ndarray) -> Vocabulary:
    if _flag(metadata, "remove_extra_whitespaces", False):
        raise ModelError(f"{_PREFIX}remove_extra_whitespaces is true, which is not supported")
    scores = _numbers(metadata, "scores", len(tokens), 0.0)
    if not np.isfinite(scores).all():
        raise ModelError(f"{_PREFIX}scores holds a number that is not finite")
    text_kind = ~np.isin(kinds, (_UNKNOWN, _CONTROL, _BYTE))
    # Equal scores have equal ranks: then the leftmost pair merges first.
    ranks = np.where(text_kind, np.unique(-scores, return_inverse=True)[1], -1)
    byte_ids = np.full(256, -1, np.int32)
    spelled = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for index in np.flatnonzero(kinds == _BYTE).tolist():
        if tokens[index] not in spelled:
            raise ModelError(f"{_PREFIX}tokens[{index}] is {tokens[index]!r}, no byte <0xNN>")
        byte_ids[spelled[tokens[index]]] = index
    unknown_id = _id(metadata, "unknown_token_id", len(tokens), 0)
    return build_vocabulary(
        [t.encode() if text else b"" for t, text in zip(tokens, text_kind.tolist(), strict=True)],
        TokenWriting(False, (("▁", " "),), byte_tokens=True).outputs(tokens, ()),
        ranks,
        byte_ids=byte_ids,
        by_character=True,
        whole_pieces=False,
        unknown_id=-1 if unknown_id is None else unknown_id,
        fuse_unknown=True,
        where=_PREFIX + "tokens",
    )
