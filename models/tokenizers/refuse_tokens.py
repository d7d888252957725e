"""Refuse texts that hold special tokens where the caller disallows them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from numbatch.errors import SpecialTokenError
from numbatch.kernels.tokenization.literals import find_literals_in_rows, longest_by_first_byte
from numbatch.kernels.tokenization.tables import build_string_table
from numbatch.models.tokenizers.flat_text import FlatText
from numbatch.models.tokenizers.vocabulary import byte_strings

__all__ = ["refuse_tokens"]


def refuse_tokens(flat: FlatText, names: Mapping[int, str]) -> None:
    """Raise if a text holds one of some tokens.

    Parameters
    ----------
    flat : FlatText
    names : mapping of int to str
        The tokens, by their ids.

    Raises
    ------
    SpecialTokenError
        It names the text and the token.
    """
    texts = [*names.values()]
    table, _ = build_string_table(byte_strings([t.encode() for t in texts]), np.arange(len(texts)))
    reach = longest_by_first_byte(table)
    _, literals, rows = find_literals_in_rows(flat.data, flat.offsets, table, reach)
    if rows.size:
        raise SpecialTokenError(
            f"text {rows[0]} holds the special token {texts[literals[0]]!r}, which "
            "disallowed_special names; should be in allowed_special, or not be disallowed"
        )
