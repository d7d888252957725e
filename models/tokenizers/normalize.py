"""Normalize text before it is split, as the ``normalizer`` of a tokenizer.json says."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import regex

from numbatch.errors import ModelError
from numbatch.models.tokenizers.split_text import compile_pattern

__all__ = ["WHITE_SPACE", "Normalizer", "parse_normalizer", "space_marker"]

Normalizer = Callable[[str], str]
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_SUPPORTED = "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip"
# Unicode White_Space. str.strip also takes U+001C to U+001F, which are not.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def parse_normalizer(spec: Mapping[str, Any] | None, where: str) -> Normalizer | None:
    """Return the function that a ``normalizer`` describes, or None where it is null.

    Raises
    ------
    ModelError
        If a step is of a kind that is not supported or lacks a key.
    """
    if spec is None:
        return None
    if not isinstance(spec, Mapping):
        raise ModelError(f"{where} is {spec!r}, should be an object or null")
    kind = spec.get("type")
    if kind == "Sequence":
        steps = spec.get("normalizers")
        if not isinstance(steps, list):
            raise ModelError(f"{where}.normalizers is {steps!r}, should be a list")
        parsed = [step for part in steps if (step := parse_normalizer(part, where)) is not None]
        return functools.partial(_in_turn, tuple(parsed))
    if kind in _FORMS:
        return functools.partial(unicodedata.normalize, kind)
    if kind == "Prepend":
        return functools.partial(_prepend, _string(spec, "prepend", where))
    if kind == "Replace":
        return _parse_replace(spec, where)
    if kind == "Lowercase":
        return _lowercase
    if kind == "Strip":
        return functools.partial(
            _strip, bool(spec.get("strip_left", True)), bool(spec.get("strip_right", True))
        )
    raise ModelError(f"{where} has type {kind!r}, which is not supported; supported: {_SUPPORTED}")


def space_marker(prefix: bool) -> Normalizer:
    """Return SentencePiece's marking of spaces by U+2581, with one put before the text if asked."""
    mark = functools.partial(_replace, " ", "▁")
    return functools.partial(_in_turn, (functools.partial(_prepend, "▁"), mark)) if prefix else mark


def _parse_replace(spec: Mapping[str, Any], where: str) -> Normalizer:
    pattern, content = spec.get("pattern"), _string(spec, "content", where)
    if isinstance(pattern, Mapping) and isinstance(pattern.get("String"), str):
        return functools.partial(_replace, pattern["String"], content)
    if isinstance(pattern, Mapping) and isinstance(pattern.get("Regex"), str):
        return functools.partial(_substitute, compile_pattern(pattern["Regex"], where), content)
    raise ModelError(f'{where}: pattern is {pattern!r}, should be {{"Regex" or "String": text}}')


def _string(spec: Mapping[str, Any], key: str, where: str) -> str:
    value = spec.get(key)
    if not isinstance(value, str):
        raise ModelError(f"{where}.{key} is {value!r}, should be a string")
    return value


def _in_turn(steps: tuple[Normalizer, ...], text: str) -> str:
    for step in steps:
        text = step(text)
    return text


def _prepend(prefix: str, text: str) -> str:
    return prefix + text if text else text


def _replace(old: str, new: str, text: str) -> str:
    return text.replace(old, new) if old else text


def _substitute(pattern: regex.Pattern, content: str, text: str) -> str:
    return pattern.sub(lambda _: content, text)


def _lowercase(text: str) -> str:
    # Character by character: str.lower would write a final sigma by its context.
    return text.lower() if text.isascii() else "".join(c.lower() for c in text)


def _strip(left: bool, right: bool, text: str) -> str:
    text = text.lstrip(WHITE_SPACE) if left else text
    return text.rstrip(WHITE_SPACE) if right else text
