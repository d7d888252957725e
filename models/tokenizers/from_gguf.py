"""Read the tokenizer in the metadata of a GGUF file.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import StringTable, build_string_table, rows_of
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
from numbatch.models.tokenizers.vocabulary import (
    Merges,
    Vocabulary,
    build_vocabulary,
    byte_strings,
    texts_of,
    without_rows,
)

__all__ = ["tokenizer_from_gguf"]

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer from metadata that was read already.

    Parameters
    ----------
    metadata : mapping
        Arrays of strings as Ragged of uint8 or as lists of str or bytes, arrays of numbers as NumPy
        arrays.

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
    tokens, by_text = _tokens(metadata)
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
        vocabulary = _byte_level(metadata, tokens, by_text, kinds)
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


def _strings(metadata: Mapping[str, Any], key: str) -> Ragged:
    """Return an array of strings as UTF-8, which is checked."""
    values, where = metadata.get(_PREFIX + key), _PREFIX + key
    if not isinstance(values, list | tuple | Ragged) or not len(values):
        raise ModelError(f"{where} is missing or empty, should be a list of strings")
    if not isinstance(values, Ragged):
        texts = [_text(value, f"{where}[{index}]") for index, value in enumerate(values)]
        return byte_strings([text.encode() for text in texts])
    if not _is_utf8(values):
        for index, row in enumerate(values):
            _text(row.tobytes(), f"{where}[{index}]")
    return values


def _is_utf8(strings: Ragged) -> bool:
    """Return whether each row is valid UTF-8: all together are, and none begins in a character."""
    begins = strings.offsets[:-1][strings.lengths > 0]
    if (strings.values[begins] & 0xC0 == 0x80).any():
        return False
    try:
        strings.values.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(value: Any, where: str) -> str:
    if type(value) is str:
        return value
    try:
        if isinstance(value, bytes):
            return value.decode()
    except UnicodeDecodeError:
        raise ModelError(f"{where} is {value!r}, which is not UTF-8") from None
    raise ModelError(f"{where} is {value!r}, should be a string")


def _tokens(metadata: Mapping[str, Any]) -> tuple[Ragged, StringTable]:
    """Return the tokens, and a table that finds each by its text."""
    tokens = _strings(metadata, "tokens")
    by_text, second = build_string_table(tokens, np.arange(len(tokens)))
    if second >= 0:
        text = tokens[second].tobytes()
        first = next(index for index, row in enumerate(tokens) if row.tobytes() == text)
        raise ModelError(f"{_PREFIX}tokens: {first} and {second} are both {text.decode()!r}")
    return tokens, by_text


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


def _guessed_kinds(metadata: Mapping[str, Any], tokens: Ragged) -> np.ndarray:
    """Return the kinds of SentencePiece's tokens by their texts, where the file has none."""
    by_text = {f"<0x{byte:02X}>": _BYTE for byte in range(256)}
    kinds = np.array([by_text.get(token, _NORMAL) for token in texts_of(tokens)])
    for key, default, kind in (
        ("bos", 1, _CONTROL),
        ("eos", 2, _CONTROL),
        ("unknown", 0, _UNKNOWN),
    ):
        index = _id(metadata, f"{key}_token_id", len(tokens), default)
        if index is not None:
            kinds[index] = kind
    return kinds


def _added_tokens(tokens: Ragged, kinds: np.ndarray) -> list[AddedToken]:
    rows = np.flatnonzero(_spell_nothing(kinds))
    return [
        AddedToken(row, tokens[row].tobytes().decode(), special=bool(kinds[row] != _USER_DEFINED))
        for row in rows.tolist()
        if tokens[row].size
    ]


def _spell_nothing(kinds: np.ndarray) -> np.ndarray:
    """Return which tokens are found in a text as they are written."""
    return np.isin(kinds, (_UNKNOWN, _CONTROL, _USER_DEFINED))


def _byte_level_pipeline(metadata: Mapping[str, Any], added: list[AddedToken]) -> TextPipeline:
    where = _PREFIX + "pre"
    patterns = gguf_split(_pre(metadata)).patterns
    splitters = tuple(PatternSplitter(compile_pattern(p, where)) for p in patterns)
    return build_pipeline(added, None, ChainedSplitter(splitters), _PREFIX + "tokens")


def _byte_level(
    metadata: Mapping[str, Any], tokens: Ragged, by_text: StringTable, kinds: np.ndarray
) -> Vocabulary:
    raw = _spell_nothing(kinds)
    characters = byte_strings([character.encode() for character in byte_characters()])
    byte_ids = rows_of(characters.values, characters.offsets[:-1], characters.offsets[1:], by_text)
    return build_vocabulary(
        bytes_of_spelled(tokens, raw, keeps=False),
        TokenWriting(byte_level=True).outputs(tokens, raw),
        _merges(_strings(metadata, "merges"), tokens, by_text),
        byte_ids=usable_byte_ids(byte_ids, False, -1, _PREFIX + "tokens"),
        by_character=False,
        whole_pieces=gguf_split(_pre(metadata)).whole_pieces,
        unknown_id=-1,
        fuse_unknown=False,
        where=_PREFIX + "tokens",
    )


def _merges(merges: Ragged, tokens: Ragged, by_text: StringTable) -> Merges:
    """Return the merges; where one is no two tokens, raise as ``merges_of``, which names it."""
    text, starts, stops = merges.values, merges.offsets[:-1], merges.offsets[1:]
    spaces = np.flatnonzero(text == ord(" "))
    if spaces.size == len(merges) and ((starts <= spaces) & (spaces < stops)).all():
        whole, bounds = text[text != ord(" ")], merges.offsets - np.arange(len(merges) + 1)
        lefts = rows_of(text, starts, spaces, by_text)
        rights = rows_of(text, spaces + 1, stops, by_text)
        merged = rows_of(whole, bounds[:-1], bounds[1:], by_text)
        if min(lefts.min(), rights.min(), merged.min()) >= 0:
            return Merges(lefts, rights, np.arange(len(merges), dtype=np.int32), merged)
    ids = {token: index for index, token in enumerate(texts_of(tokens))}
    return merges_of(texts_of(merges), ids, _PREFIX + "merges")


def _sentencepiece(metadata: Mapping[str, Any], tokens: Ragged, kinds: np.ndarray) -> Vocabulary:
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
        token = tokens[index].tobytes().decode()
        if token not in spelled:
            raise ModelError(f"{_PREFIX}tokens[{index}] is {token!r}, no byte <0xNN>")
        byte_ids[spelled[token]] = index
    unknown_id = _id(metadata, "unknown_token_id", len(tokens), 0)
    return build_vocabulary(
        without_rows(tokens, ~text_kind),
        TokenWriting(False, (("▁", " "),), byte_tokens=True).outputs(tokens, ~text_kind),
        ranks,
        byte_ids=byte_ids,
        by_character=True,
        whole_pieces=False,
        unknown_id=-1 if unknown_id is None else unknown_id,
        fuse_unknown=True,
        where=_PREFIX + "tokens",
    )
