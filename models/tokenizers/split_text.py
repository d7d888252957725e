"""Split text into the pieces that merges stay within.

A splitter is anything with ``split(pieces, first) -> pieces`` over lists of strings. That is the
whole interface, so a compiled splitter can stand in for the regular expressions here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import regex

from numbatch.errors import ModelError
from numbatch.models.tokenizers.split_patterns import GPT2

__all__ = ["ChainedSplitter", "PatternSplitter", "Splitter", "compile_pattern", "parse_splitter"]

Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_SUPPORTED = "Sequence, Split, Digits, ByteLevel, Metaspace"


class Splitter(Protocol):
    """Divides pieces into smaller ones."""

    def split(self, pieces: list[str], first: bool) -> list[str]:
        """Return the smaller pieces in order.

        Parameters
        ----------
        pieces : list of str
            Valid Unicode, none of them empty.
        first : bool
            Whether the first piece begins the whole text.
        """
        ...


def compile_pattern(pattern: str, where: str, *, lines: bool = True) -> regex.Pattern:
    """Compile a pattern of a tokenizer file.

    Parameters
    ----------
    pattern : str
        ``&&`` in a class is an intersection, as in Oniguruma and in Rust.
    where : str
        Names the place in messages.
    lines : bool
        Whether ``^`` and ``$`` are the ends of each line, as in Oniguruma.

    Raises
    ------
    ModelError
        If it is no regular expression.
    """
    flags = (regex.MULTILINE if lines else 0) | (regex.V1 if "&&" in pattern else regex.V0)
    try:
        return regex.compile(pattern, flags)
    except (regex.error, TypeError) as error:
        raise ModelError(f"{where}: {pattern!r} is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True)
class PatternSplitter:
    """Divides by a regular expression."""

    pattern: regex.Pattern
    behavior: Behavior = "Isolated"
    invert: bool = False

    def split(self, pieces: list[str], first: bool) -> list[str]:
        """Return what the pattern makes of each piece."""
        if self.behavior == "Isolated" and not self.pattern.groups:
            return [part for piece in pieces for part in self._isolate(piece)]
        if self.behavior == "Removed" and self.invert and not self.pattern.groups:
            return [part for piece in pieces for part in self.pattern.findall(piece) if part]
        return [part for piece in pieces for part in self._by_behavior(piece)]

    def _isolate(self, piece: str) -> Iterable[str]:
        parts = self.pattern.findall(piece)
        if sum(map(len, parts)) == len(piece) and all(parts):
            return parts  # the matches cover the piece, as those of most tokenizers do
        return (part for part, _ in self._marked(piece))

    def _marked(self, piece: str) -> list[tuple[str, bool]]:
        """Return the parts of a piece, each with whether it is a delimiter."""
        parts, end = [], 0
        for match in self.pattern.finditer(piece):
            start, stop = match.span()
            if stop == start:
                continue
            if start > end:
                parts.append((piece[end:start], self.invert))
            parts.append((piece[start:stop], not self.invert))
            end = stop
        if end < len(piece):
            parts.append((piece[end:], self.invert))
        return parts

    def _by_behavior(self, piece: str) -> list[str]:
        marked = self._marked(piece)
        if self.behavior == "Isolated":
            return [part for part, _ in marked]
        if self.behavior == "Removed":
            return [part for part, delimiter in marked if not delimiter]
        return _joined(marked, self.behavior)


def _joined(marked: list[tuple[str, bool]], behavior: Behavior) -> list[str]:
    """Join parts to their neighbours; two delimiters in a row stay two but for Contiguous."""
    parts: list[str] = []
    before: bool | None = None
    for part, delimiter in marked:
        join = {
            "Contiguous": before == delimiter,
            "MergedWithPrevious": delimiter and before is False,
            "MergedWithNext": not delimiter and before is True,
        }[behavior]
        if join:
            parts[-1] += part
        else:
            parts.append(part)
        before = delimiter
    return parts


@dataclass(frozen=True, slots=True)
class ChainedSplitter:
    """Several splitters, each dividing what the one before it left."""

    splitters: tuple[Splitter, ...]

    def split(self, pieces: list[str], first: bool) -> list[str]:
        """Return what the last splitter leaves."""
        for splitter in self.splitters:
            pieces = splitter.split(pieces, first)
        return pieces


@dataclass(frozen=True, slots=True)
class SpacePrefixer:
    """Puts a space before each piece that does not begin with one."""

    def split(self, pieces: list[str], first: bool) -> list[str]:
        """Return as many pieces, each beginning with a space."""
        return [piece if piece.startswith(" ") else " " + piece for piece in pieces]


@dataclass(frozen=True, slots=True)
class MetaspaceSplitter:
    """Writes spaces as a visible character, and divides before each."""

    replacement: str
    prepend: Literal["always", "first", "never"]
    divides: bool

    def split(self, pieces: list[str], first: bool) -> list[str]:
        """Return the pieces with their spaces replaced, divided where asked."""
        marked = []
        for index, piece in enumerate(pieces):
            written = piece.replace(" ", self.replacement)
            wanted = self.prepend == "always" or (self.prepend == "first" and first and not index)
            if wanted and not written.startswith(self.replacement):
                written = self.replacement + written
            marked.append(written)
        if not self.divides:
            return marked
        delimiter = regex.compile(regex.escape(self.replacement))
        return PatternSplitter(delimiter, "MergedWithNext").split(marked, first)


def parse_splitter(spec: Mapping[str, Any] | None, where: str) -> tuple[Splitter, bool]:
    """Read the ``pre_tokenizer`` of a tokenizer.json.

    Parameters
    ----------
    spec : mapping or None
        None: the text is one piece.
    where : str
        Names the place in messages.

    Returns
    -------
    splitter : Splitter
    byte_level : bool
        Whether the vocabulary spells bytes (a ByteLevel step comes last).

    Raises
    ------
    ModelError
        If a step is of a kind that is not supported or lacks a key.
    """
    steps = list(_steps(spec, where))
    byte_level = bool(steps) and steps[-1].get("type") == "ByteLevel"
    if any(step.get("type") == "ByteLevel" for step in steps[:-1]):
        raise ModelError(f"{where}: ByteLevel is followed by another step, should be the last")
    splitters = [splitter for step in steps for splitter in _parse_step(step, where)]
    return ChainedSplitter(tuple(splitters)), byte_level


def _steps(spec: Mapping[str, Any] | None, where: str) -> Iterable[Mapping[str, Any]]:
    if spec is None:
        return
    if not isinstance(spec, Mapping):
        raise ModelError(f"{where} is {spec!r}, should be an object or null")
    if spec.get("type") != "Sequence":
        yield spec
        return
    steps = spec.get("pretokenizers")
    if not isinstance(steps, list):
        raise ModelError(f"{where}.pretokenizers is {steps!r}, should be a list")
    for step in steps:
        yield from _steps(step, where)


def _parse_step(step: Mapping[str, Any], where: str) -> Sequence[Splitter]:
    kind = step.get("type")
    if kind == "Split":
        return [_parse_split(step, where)]
    if kind == "Digits":
        behavior: Behavior = "Isolated" if step.get("individual_digits") else "Contiguous"
        return [PatternSplitter(compile_pattern(r"\p{N}", where), behavior)]
    if kind == "ByteLevel":
        prefix = [SpacePrefixer()] if step.get("add_prefix_space", True) else []
        words = (
            [PatternSplitter(compile_pattern(GPT2, where))] if step.get("use_regex", True) else []
        )
        return [*prefix, *words]
    if kind == "Metaspace":
        return [_parse_metaspace(step, where)]
    raise ModelError(f"{where} has type {kind!r}, which is not supported; supported: {_SUPPORTED}")


def _parse_split(step: Mapping[str, Any], where: str) -> Splitter:
    pattern, behavior = step.get("pattern"), step.get("behavior", "Isolated")
    if behavior not in _BEHAVIORS:
        raise ModelError(f"{where}: behavior is {behavior!r}, should be one of {_BEHAVIORS}")
    if isinstance(pattern, Mapping) and isinstance(pattern.get("Regex"), str):
        source = pattern["Regex"]
    elif isinstance(pattern, Mapping) and isinstance(pattern.get("String"), str):
        source = regex.escape(pattern["String"])
    else:
        raise ModelError(
            f'{where}: pattern is {pattern!r}, should be {{"Regex" or "String": text}}'
        )
    return PatternSplitter(
        compile_pattern(source, where), behavior, bool(step.get("invert", False))
    )


def _parse_metaspace(step: Mapping[str, Any], where: str) -> Splitter:
    replacement = step.get("replacement", "▁")
    # Files from before prepend_scheme say add_prefix_space.
    scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
    if not isinstance(replacement, str) or len(replacement) != 1:
        raise ModelError(f"{where}: replacement is {replacement!r}, should be one character")
    if scheme not in ("always", "first", "never"):
        raise ModelError(f"{where}: prepend_scheme is {scheme!r}, should be always, first or never")
    return MetaspaceSplitter(replacement, scheme, bool(step.get("split", True)))
