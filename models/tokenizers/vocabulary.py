"""A tokenizer's tokens and merges in flat arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from numbatch.errors import ModelError
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.merge import MergeTables
from numbatch.kernels.tokenization.pairs import pairs_of_tokens
from numbatch.kernels.tokenization.tables import (
    StringTable,
    build_pair_table,
    build_string_table,
    read_only,
)

__all__ = [
    "Merges",
    "Vocabulary",
    "build_vocabulary",
    "byte_strings",
    "place_by_id",
    "ranked_merges",
    "texts_of",
    "without_rows",
]

_MOST_IDS = 1 << 24


@dataclass(frozen=True, slots=True)
class Merges:
    """A list of merges: int32 arrays of shape (merges,), lowest rank first."""

    lefts: np.ndarray
    rights: np.ndarray
    ranks: np.ndarray
    merged: np.ndarray


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens as they occur in text and as they are written out."""

    tables: MergeTables
    outputs: Ragged
    """uint8; row ``i`` is the bytes that id ``i`` decodes to, empty where no token has the id."""

    @property
    def size(self) -> int:
        """Number of ids, from 0 to the largest."""
        return len(self.outputs)


def byte_strings(strings: Sequence[bytes]) -> Ragged:
    """Return byte strings as a Ragged of uint8."""
    offsets = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)), out=offsets[1:])
    return Ragged(np.frombuffer(b"".join(strings), np.uint8), offsets)


def texts_of(strings: Ragged) -> list[str]:
    """Return rows of UTF-8 as texts."""
    data = strings.values.tobytes()
    return [data[a:b].decode() for a, b in itertools.pairwise(strings.offsets.tolist())]


def without_rows(strings: Ragged, left_out: np.ndarray) -> Ragged:
    """Return byte strings of which those in ``left_out``, a bool array, are empty."""
    lengths = np.where(left_out, 0, strings.lengths)
    kept = np.repeat(~left_out, strings.lengths)
    return Ragged(strings.values[kept], np.concatenate([[0], np.cumsum(lengths)]))


def place_by_id(tokens: dict[str, int], where: str) -> list[str]:
    """Return the tokens in order of their ids, an empty string where no token has the id.

    Raises
    ------
    ModelError
        If there are none, an id is not a whole number from 0 on, or two tokens have one id.
    """
    if not tokens:
        raise ModelError(f"{where} is empty, should hold at least one token")
    for token, index in tokens.items():
        if type(index) is not int or not 0 <= index < _MOST_IDS:
            raise ModelError(
                f"{where}: the id of {token!r} is {index!r}, should be from 0 to {_MOST_IDS - 1}"
            )
    placed = [""] * (max(tokens.values()) + 1)
    for token, index in tokens.items():
        if placed[index]:
            raise ModelError(f"{where}: {placed[index]!r} and {token!r} both have id {index}")
        placed[index] = token
    return placed


def build_vocabulary(
    pieces: Ragged,
    outputs: Ragged,
    merges: Merges | np.ndarray,
    *,
    byte_ids: np.ndarray,
    by_character: bool,
    whole_pieces: bool,
    unknown_id: int,
    fuse_unknown: bool,
    where: str,
) -> Vocabulary:
    """Build the tables.

    Parameters
    ----------
    pieces : Ragged of uint8
        Each token as it occurs in a piece of text; empty for an id that no text makes.
    outputs : Ragged of uint8
        What each id decodes to.
    merges : Merges or int array, shape (tokens,)
        The list of merges; or the rank of each token, for vocabularies that merge whatever two
        neighbours make a token: negative where nothing merges into it.
    byte_ids, by_character, whole_pieces, unknown_id, fuse_unknown
        As in :class:`~numbatch.kernels.tokenization.merge.MergeTables`.
    where : str
        Names the file in messages.

    Raises
    ------
    ModelError
        If two tokens are the same bytes.
    """
    table, duplicate = build_string_table(pieces, np.flatnonzero(pieces.lengths))
    if duplicate >= 0:
        piece = pieces[duplicate].tobytes()
        first = next(row for row, each in enumerate(pieces) if each.tobytes() == piece)
        raise ModelError(f"{where}: tokens {first} and {duplicate} are both {piece!r}")
    if not isinstance(merges, Merges):
        merges = ranked_merges(merges, table)
    tables = MergeTables(
        build_pair_table(merges.lefts, merges.rights, merges.ranks, merges.merged),
        table,
        read_only(np.ascontiguousarray(byte_ids, np.int32)),
        by_character,
        whole_pieces,
        unknown_id,
        fuse_unknown,
    )
    return Vocabulary(tables, outputs)


def ranked_merges(ranks: np.ndarray, table: StringTable) -> Merges:
    """Return the merges of a vocabulary in which any two neighbours that make a token merge."""
    lefts, rights, merged = pairs_of_tokens(np.flatnonzero(ranks >= 0), table)
    return Merges(lefts, rights, np.asarray(ranks, np.int32)[merged], merged)
