"""What bytes each token decodes to, as the ``decoder`` of a tokenizer.json says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.kernels.ragged import Ragged
from numbatch.models.tokenizers.byte_level import bytes_of_spelled
from numbatch.models.tokenizers.vocabulary import byte_strings, texts_of

__all__ = ["TokenWriting", "parse_decoder"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SUPPORTED = "Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace"


@dataclass(frozen=True, slots=True)
class TokenWriting:
    """How tokens are written out."""

    byte_level: bool
    """Tokens spell bytes by GPT-2's characters."""
    replaced: tuple[tuple[str, str], ...] = ()
    """Strings in a token and what stands for each in the text."""
    byte_tokens: bool = False
    """``<0xNN>`` is a byte."""
    leading_spaces: int = 0
    """How many spaces are taken off the start of a text."""

    def outputs(self, texts: Ragged, raw: np.ndarray) -> Ragged:
        """Return each token's bytes; those in ``raw``, a bool array, spell no bytes."""
        if self.byte_level:
            return bytes_of_spelled(texts, raw, keeps=True)
        return byte_strings([self._plain(text) for text in texts_of(texts)])

    def _plain(self, text: str) -> bytes:
        if self.byte_tokens and (byte := _BYTE.fullmatch(text)):
            return bytes([int(byte[1], 16)])
        for old, new in self.replaced:
            text = text.replace(old, new)
        return text.encode()


def parse_decoder(spec: Mapping[str, Any] | None, where: str, byte_level: bool) -> TokenWriting:
    """Read a ``decoder``.

    Parameters
    ----------
    spec : mapping or None
        None: tokens are written as they are, or as bytes where ``byte_level``.
    where : str
        Names the place in messages.
    byte_level : bool
        Whether the vocabulary spells bytes.

    Raises
    ------
    ModelError
        If a step is not supported.
    """
    replaced: list[tuple[str, str]] = []
    byte_tokens, spaces = False, 0
    for step in _steps(spec, where):
        kind = step.get("type")
        if kind == "ByteLevel":
            byte_level = True
        elif kind == "Replace":
            replaced.append(_replacement(step, where))
        elif kind == "ByteFallback":
            byte_tokens = True
        elif kind == "Metaspace":
            replaced.append((str(step.get("replacement", "▁")), " "))
            spaces += step.get("prepend_scheme", "always") != "never"
        elif kind == "Strip":
            spaces += _stripped(step, where)
        elif kind != "Fuse":
            raise ModelError(
                f"{where} has type {kind!r}, which is not supported; supported: {_SUPPORTED}"
            )
    return TokenWriting(byte_level, tuple(replaced), byte_tokens, spaces)


def _steps(spec: Mapping[str, Any] | None, where: str) -> Iterable[Mapping[str, Any]]:
    if spec is None:
        return
    if not isinstance(spec, Mapping):
        raise ModelError(f"{where} is {spec!r}, should be an object or null")
    if spec.get("type") != "Sequence":
        yield spec
        return
    steps = spec.get("decoders")
    if not isinstance(steps, list):
        raise ModelError(f"{where}.decoders is {steps!r}, should be a list")
    for step in steps:
        yield from _steps(step, where)


def _replacement(step: Mapping[str, Any], where: str) -> tuple[str, str]:
    pattern, content = step.get("pattern"), step.get("content")
    old = pattern.get("String") if isinstance(pattern, Mapping) else None
    if not isinstance(old, str) or not old or not isinstance(content, str):
        raise ModelError(
            f'{where}: Replace has pattern {pattern!r}, should be {{"String": text}}, '
            f"and content {content!r}"
        )
    return old, content


def _stripped(step: Mapping[str, Any], where: str) -> int:
    content, start, stop = step.get("content"), step.get("start"), step.get("stop")
    if content != " " or type(start) is not int or start < 0 or stop != 0:
        raise ModelError(
            f"{where}: Strip takes {start!r} of {content!r} off the start and {stop!r} off the "
            "end; supported is spaces off the start"
        )
    return start
