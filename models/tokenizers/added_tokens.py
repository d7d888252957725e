"""Added tokens: whole strings that are found in a text before anything else is done to it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from numbatch.errors import ModelError
from numbatch.kernels.tokenization.literals import (
    find_literals,
    find_literals_in_rows,
    longest_by_first_byte,
)
from numbatch.kernels.tokenization.tables import build_string_table
from numbatch.models.tokenizers.normalize import WHITE_SPACE
from numbatch.models.tokenizers.vocabulary import byte_strings

__all__ = ["AddedToken", "AddedTokenFinder"]

_WORD_AT_END = regex.compile(r"\w\Z")
_WORD_AT_START = regex.compile(r"\w")
_SPACES = regex.compile(b"(?:" + b"|".join(regex.escape(c.encode()) for c in WHITE_SPACE) + b")*+")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A string that is one token wherever it stands."""

    id: int
    content: str
    special: bool = True
    """Found only where asked for."""
    normalized: bool = False
    """Looked for in the normalized text, not in the raw text."""
    lstrip: bool = False
    """Takes the white space before it."""
    rstrip: bool = False
    """Takes the white space after it."""
    single_word: bool = False
    """Is not found inside a word."""


class AddedTokenFinder:
    """Finds added tokens: leftmost first, the longest where several begin.

    Parameters
    ----------
    tokens : sequence of AddedToken
    contents : sequence of str
        The string that is looked for, for each token.
    where : str
        Names the file in messages.

    Raises
    ------
    ModelError
        If a string is empty or stands twice.
    """

    def __init__(self, tokens: Sequence[AddedToken], contents: Sequence[str], where: str) -> None:
        if not all(contents):
            raise ModelError(f"{where}: an added token is the empty string")
        self._tokens = tuple(tokens)
        self._table, duplicate = build_string_table(
            byte_strings([content.encode() for content in contents]), np.arange(len(tokens))
        )
        if duplicate >= 0:
            raise ModelError(f"{where}: the added token {contents[duplicate]!r} stands twice")
        self._reach = longest_by_first_byte(self._table)

    def active(self, allowed: Container[int]) -> list[AddedToken]:
        """Return the tokens that are found when these special ones are asked for."""
        return [token for token in self._tokens if not token.special or token.id in allowed]

    def find(
        self, data: np.ndarray, offsets: np.ndarray, allowed: Container[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return where tokens without spaces or words to mind occur in rows of UTF-8.

        Returns
        -------
        starts, stops : int64 arrays, shape (matches,)
        ids : int32 array, shape (matches,)
        rows : int64 array, shape (matches,)
        """
        starts, literals, rows = find_literals_in_rows(data, offsets, self._table, self._reach)
        wanted = np.array([not t.special or t.id in allowed for t in self._tokens], bool)
        kept = wanted[literals]
        starts, literals, rows = starts[kept], literals[kept], rows[kept]
        ids = np.array([token.id for token in self._tokens], np.int32)[literals]
        return starts, starts + np.diff(self._table.offsets)[literals], ids, rows

    def divide(self, text: str, allowed: Container[int]) -> list[str | int]:
        """Return the text's stretches and, between them, the ids of the tokens found.

        Parameters
        ----------
        text : str
            Valid Unicode.
        allowed : container of int
            Ids of the special tokens that are asked for; the others are left as text.
        """
        if not self._tokens or not text:
            return [text] if text else []
        data = text.encode()
        starts, rows = find_literals(np.frombuffer(data, np.uint8), self._table, self._reach)
        if not len(rows):
            return [text]
        parts: list[str | int] = []
        done = 0
        for start, row in zip(starts.tolist(), rows.tolist(), strict=True):
            token = self._tokens[row]
            stop = start + int(self._table.offsets[row + 1] - self._table.offsets[row])
            if (token.special and token.id not in allowed) or (
                token.single_word and _inside_word(data, start, stop)
            ):
                continue
            start, stop = _with_spaces(data, token, start, stop, done)
            if start > done:
                parts.append(data[done:start].decode())
            parts.append(token.id)
            done = stop
        if done < len(data):
            parts.append(data[done:].decode())
        return parts


def _inside_word(data: bytes, start: int, stop: int) -> bool:
    # A character is at most four bytes; those of the one cut in half are left out.
    before = data[max(0, start - 4) : start].decode("utf-8", "ignore")
    after = data[stop : stop + 4].decode("utf-8", "ignore")
    return bool(_WORD_AT_END.search(before) or _WORD_AT_START.match(after))


def _with_spaces(
    data: bytes, token: AddedToken, start: int, stop: int, done: int
) -> tuple[int, int]:
    """Widen a match over the white space that its token takes."""
    if token.lstrip and start > done:
        start = done + len(data[done:start].decode().rstrip(WHITE_SPACE).encode())
    if token.rstrip:
        stop = _SPACES.match(data, stop).end()
    return start, stop
