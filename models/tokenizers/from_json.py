"""Read tokenizer.json, the file of Hugging Face's tokenizers."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.added_tokens import AddedToken
from numbatch.models.tokenizers.byte_level import byte_characters, bytes_of_spelled
from numbatch.models.tokenizers.normalize import parse_normalizer
from numbatch.models.tokenizers.special_names import ends_of_turn, likely_bos
from numbatch.models.tokenizers.split_text import parse_splitter
from numbatch.models.tokenizers.text_pipeline import build_pipeline
from numbatch.models.tokenizers.token_writing import TokenWriting, parse_decoder
from numbatch.models.tokenizers.vocabulary import (
    Merges,
    Vocabulary,
    build_vocabulary,
    byte_strings,
    place_by_id,
    without_rows,
)

__all__ = ["merges_of", "tokenizer_from_huggingface", "tokenizer_from_json", "usable_byte_ids"]

_POST_PROCESSORS = "Sequence, TemplateProcessing, ByteLevel"


def tokenizer_from_json(
    spec: Any,
    *,
    name: str,
    config: Mapping[str, Any] | None = None,
    more_eos_ids: Iterable[int] = (),
    chat_template: str | None = None,
) -> Tokenizer:
    """Build a tokenizer from the parsed content of a tokenizer.json.

    Parameters
    ----------
    spec : mapping
        What the file holds.
    name : str
        The file's or the model's name.
    config : mapping, optional
        What ``tokenizer_config.json`` holds: ``bos_token``, ``eos_token``, ``add_bos_token``.
    more_eos_ids : iterable of int
        Further ids that end generation (``generation_config.json``).
    chat_template : str, optional
        Jinja2.

    Raises
    ------
    ModelError
        If a key is missing or wrong, or a part is not supported; it names the key.
    """
    try:
        return _build(spec, name, config or {}, more_eos_ids, chat_template)
    except UnicodeEncodeError as error:
        raise ModelError(f"{name}: {error.object!r} holds a lone surrogate") from None


def tokenizer_from_huggingface(tokenizer: Any) -> Tokenizer:
    """Build a tokenizer from a ``tokenizers.Tokenizer`` or a fast tokenizer of transformers.

    Raises
    ------
    ModelError
        If it is neither, or has a part that is not supported.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise ModelError(
            f"{type(tokenizer).__name__} is no tokenizers.Tokenizer and no fast tokenizer"
        )
    keys = ("bos_token", "eos_token", "add_bos_token")
    config = {key: getattr(tokenizer, key, None) for key in keys}
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default")
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    return tokenizer_from_json(
        json.loads(backend.to_str()), name=name, config=config, chat_template=template
    )


def _build(
    spec: Any,
    name: str,
    config: Mapping[str, Any],
    more_eos_ids: Iterable[int],
    chat_template: str | None,
) -> Tokenizer:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("model"), Mapping):
        raise ModelError(f"{name} has no object at 'model', should be a tokenizer.json")
    model = spec["model"]
    _check_model(model, name)
    tokens = model.get("vocab")
    if not isinstance(tokens, dict):
        raise ModelError(f"{name}: model.vocab is missing or no object")
    added = _added_tokens(spec.get("added_tokens") or [], tokens, name)
    splitter, byte_level = parse_splitter(spec.get("pre_tokenizer"), f"{name}: pre_tokenizer")
    writing = parse_decoder(spec.get("decoder"), f"{name}: decoder", byte_level)
    normalizer = parse_normalizer(spec.get("normalizer"), f"{name}: normalizer")
    vocabulary = _vocabulary(model, tokens, added, byte_level, writing, name)
    special = {token.content: token.id for token in added if token.special}
    template_bos = _template_bos(spec.get("post_processor"), special, name)
    asked = config.get("add_bos_token")
    bos_id = _named(config.get("bos_token"), tokens, special, "bos_token", name)
    return Tokenizer(
        vocabulary,
        build_pipeline(added, normalizer, splitter, name),
        added,
        name=name,
        bos_id=next(
            (i for i in (bos_id, template_bos, likely_bos(special)) if i is not None), None
        ),
        eos_id=_named(config.get("eos_token"), tokens, special, "eos_token", name),
        eos_ids={*ends_of_turn(added), *more_eos_ids},
        adds_bos=asked if isinstance(asked, bool) else template_bos is not None,
        leading_spaces=writing.leading_spaces,
        chat_template=chat_template,
    )


def _check_model(model: Mapping[str, Any], name: str) -> None:
    kind = model.get("type", "BPE")  # files of old versions leave it out
    if kind != "BPE":
        raise ModelError(f"{name}: model.type is {kind!r}, which is not supported; supported: BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ModelError(f"{name}: model.{key} is {model[key]!r}, should be null")


def _added_tokens(entries: Any, tokens: Mapping[str, int], name: str) -> list[AddedToken]:
    if not isinstance(entries, list):
        raise ModelError(f"{name}: added_tokens is {entries!r}, should be a list")
    added = []
    for place, entry in enumerate(entries):
        where = f"{name}: added_tokens[{place}]"
        if not isinstance(entry, Mapping):
            raise ModelError(f"{where} is {entry!r}, should be an object")
        index, content = entry.get("id"), entry.get("content")
        if type(index) is not int or not isinstance(content, str):
            raise ModelError(f"{where} has id {index!r} and content {content!r}")
        if tokens.get(content, index) != index:
            raise ModelError(
                f"{where}: {content!r} has id {index}, in model.vocab {tokens[content]}"
            )
        flags = ("special", "normalized", "lstrip", "rstrip", "single_word")
        added.append(AddedToken(index, content, *(bool(entry.get(flag)) for flag in flags)))
    return added


def _vocabulary(
    model: Mapping[str, Any],
    tokens: dict[str, int],
    added: Sequence[AddedToken],
    byte_level: bool,
    writing: TokenWriting,
    name: str,
) -> Vocabulary:
    if not tokens:
        raise ModelError(f"{name}: model.vocab is empty")
    extra = {t.content: t.id for t in added}
    texts = place_by_id(tokens | extra, f"{name}: model.vocab")
    encoded = byte_strings([text.encode() for text in texts])
    raw, beyond = np.zeros((2, len(texts)), bool)
    raw[[t.id for t in added]] = True
    beyond[[index for text, index in extra.items() if text not in tokens]] = True
    if byte_level:
        pieces = bytes_of_spelled(encoded, beyond, keeps=False)
        spelled = [byte_characters()[byte] for byte in range(256)]
    else:
        pieces = without_rows(encoded, beyond)
        spelled = [f"<0x{byte:02X}>" if model.get("byte_fallback") else "" for byte in range(256)]
    unknown = model.get("unk_token")
    if unknown is not None and unknown not in tokens | extra:
        raise ModelError(f"{name}: model.unk_token is {unknown!r}, which is no token")
    unknown_id = -1 if unknown is None else (tokens | extra)[unknown]
    byte_ids = np.array([tokens.get(text, -1) if text else -1 for text in spelled], np.int32)
    return build_vocabulary(
        pieces,
        writing.outputs(encoded, raw),
        merges_of(model.get("merges"), tokens, f"{name}: model.merges"),
        byte_ids=usable_byte_ids(byte_ids, not byte_level, unknown_id, name),
        by_character=not byte_level,
        whole_pieces=bool(model.get("ignore_merges")),
        unknown_id=unknown_id,
        fuse_unknown=bool(model.get("fuse_unk")),
        where=name,
    )


def usable_byte_ids(
    byte_ids: np.ndarray, by_character: bool, unknown_id: int, name: str
) -> np.ndarray:
    """Return the ids of single bytes, once it is sure that text is not lost for want of them.

    A byte-level vocabulary that was trained on clean text may lack control characters and rare
    lead bytes; one that lacks a printable ASCII character is damaged.

    Raises
    ------
    ModelError
        It names the first byte that is missing.
    """
    needed = byte_ids if by_character else byte_ids[0x20:0x7F]
    if unknown_id < 0 and (needed < 0).any():
        first = int(np.flatnonzero(needed < 0)[0]) + (0 if by_character else 0x20)
        raise ModelError(
            f"{name}: the vocabulary has no token for the byte 0x{first:02X} and no unknown token, "
            "so that text would be lost"
        )
    return byte_ids


def merges_of(merges: Any, tokens: Mapping[str, int], where: str) -> Merges:
    """Return the merges of a list of ``"left right"`` or ``[left, right]``, lowest rank first.

    Raises
    ------
    ModelError
        If an entry is no pair, or a part or the whole is no token; it names the entry.
    """
    if not isinstance(merges, list):
        raise ModelError(f"{where} is missing or no list")
    try:
        parts = _parts(merges)
        wholes = map(operator.add, parts[::2], parts[1::2])
        ids = np.fromiter(map(tokens.__getitem__, parts), np.int32, 2 * len(merges))
        merged = np.fromiter(map(tokens.__getitem__, wholes), np.int32, len(merges))
    except (KeyError, TypeError, ValueError):
        raise _bad_merge(merges, tokens, where) from None
    return Merges(ids[::2], ids[1::2], np.arange(len(merges), dtype=np.int32), merged)


def _parts(merges: list[Any]) -> list[str]:
    """Return left, right, left, right, ... in one list: half a million small lists are slow."""
    if all(type(merge) is str for merge in merges):
        if all(merge.count(" ") == 1 for merge in merges):
            return " ".join(merges).split(" ") if merges else []
        raise ValueError
    pairs = [merge.split(" ") if type(merge) is str else merge for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError
    return list(itertools.chain.from_iterable(pairs))


def _bad_merge(merges: list[Any], tokens: Mapping[str, int], where: str) -> ModelError:
    """Say which merge cannot be used."""
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        texts = [text for text in pair if isinstance(text, str)] if isinstance(pair, list) else []
        if len(texts) != 2 or len(pair) != 2:
            return ModelError(f"{where}[{rank}] is {merge!r}, should be two tokens")
        for text in (*texts, "".join(texts)):
            if text not in tokens:
                return ModelError(f"{where}[{rank}] needs {text!r}, which is no token")
    return ModelError(f"{where} cannot be read")


def _named(
    value: Any, tokens: Mapping[str, int], special: Mapping[str, int], key: str, name: str
) -> int | None:
    """Return the id of a token that tokenizer_config.json names, as text or as an object."""
    content = value.get("content") if isinstance(value, Mapping) else value
    if content is None:
        return None
    content = str(content)
    if content not in special and content not in tokens:
        raise ModelError(f"{name}: {key} is {content!r}, which is no token")
    return special.get(content, tokens.get(content))


def _template_bos(spec: Any, special: Mapping[str, int], name: str) -> int | None:
    """Return the special token that the post-processor puts first, or None."""
    if spec is None:
        return None
    kind = spec.get("type") if isinstance(spec, Mapping) else None
    if kind == "Sequence":
        found = (_template_bos(part, special, name) for part in spec.get("processors", []))
        return next((index for index in found if index is not None), None)
    if kind == "ByteLevel":
        return None
    if kind != "TemplateProcessing":
        raise ModelError(
            f"{name}: post_processor has type {kind!r}, which is not supported; "
            f"supported: {_POST_PROCESSORS}"
        )
    single = spec.get("single")
    first = single[0] if isinstance(single, list) and single else {}
    text = first.get("SpecialToken", {}).get("id") if isinstance(first, Mapping) else None
    if text is None:
        return None
    if text not in special:
        raise ModelError(f"{name}: post_processor.single begins with {text!r}, no special token")
    return special[text]
