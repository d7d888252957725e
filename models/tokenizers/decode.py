"""From token ids back to text, whole or as they come."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.detokenize import bytes_of_rows, bytes_of_tokens, pad_tokens

__all__ = ["Decoding", "StreamDecoder", "checked_ids"]


_GROUP = 1 << 16
"""Ids of rows whose bytes are written together: they stay in a core's own cache, and the memory for
them is used again instead of coming from the system."""


_WHOLE = (int, np.integer)  # a union would be made anew at each look


def checked_ids(ids: Any, size: int) -> np.ndarray:
    """Return ids as a uint32 array of shape (n,).

    Raises
    ------
    InputError
        If they are not whole numbers in one dimension, or one is out of range; it says which.
    """
    array = np.asarray(ids)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.uint32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"token ids are an array of {array.dtype} of shape {array.shape}, "
            "should be whole numbers in one dimension"
        )
    if array.dtype == np.uint32 and int(array.max()) < size:
        return array
    bad = np.flatnonzero((array < 0) | (array >= size))
    if bad.size:
        raise InputError(
            f"token id {array[bad[0]]} at position {bad[0]} is out of range, "
            f"should be from 0 to {size - 1} (the vocabulary has {size} ids)"
        )
    return array.astype(np.uint32)


class Decoding:
    """Writes out token ids.

    Parameters
    ----------
    outputs : Ragged of uint8
        Row ``i`` is the bytes of id ``i``.
    special : sequence of int
        Ids that ``skip_special`` leaves out.
    leading_spaces : int
        How many spaces are taken off the start of a text, where encoding put them there.
    """

    def __init__(self, outputs: Ragged, special: Sequence[int], leading_spaces: int) -> None:
        self.outputs = outputs
        self.leading_spaces = leading_spaces
        self._padded = pad_tokens(outputs)
        self._bytes = outputs.values.tobytes()
        self._size = len(outputs)
        self._special = np.zeros(len(outputs), bool)
        self._special[list(special)] = True

    def join(self, ids: Any, skip_special: bool, continues: bool) -> np.ndarray:
        """Return the bytes of a sequence; ``continues``: nothing is taken off its start."""
        checked = checked_ids(ids, len(self.outputs))
        if skip_special:
            checked = checked[~self._special[checked]]
        data = bytes_of_tokens(checked, self._padded)
        if continues or not self.leading_spaces:
            return data
        return data[_spaces(data[: self.leading_spaces].tobytes(), self.leading_spaces) :]

    def token(self, token_id: int, skip_special: bool) -> bytes:
        """Return the bytes of one id: what :meth:`join` returns, in a tenth of its time.

        Raises
        ------
        InputError
            If it is no whole number, or out of range.
        """
        whole = isinstance(token_id, _WHOLE)
        if not whole or not 0 <= token_id < self._size:
            checked_ids([token_id], self._size)
        if skip_special and self._special[token_id]:
            return b""
        begin, end = self._padded.offsets[token_id : token_id + 2].tolist()
        return self._bytes[begin:end]

    def texts(self, ids: Ragged) -> list[str]:
        """Return the text of each row of a Ragged of ids, special tokens and all."""
        checked = checked_ids(ids.values, len(self.outputs))
        texts: list[str] = []
        first, rows = 0, len(ids)
        while first < rows:
            begin = ids.offsets[first]
            stop = int(np.searchsorted(ids.offsets, begin + _GROUP, "right")) - 1
            stop = min(max(stop, first + 1), rows)
            offsets = ids.offsets[first : stop + 1] - begin
            part = Ragged(checked[begin : ids.offsets[stop]], offsets)
            texts += self._texts_of(bytes_of_rows(part, self._padded))
            first = stop
        return texts

    def _texts_of(self, rows: Ragged) -> list[str]:
        data, most = memoryview(rows.values), self.leading_spaces
        decode = codecs.utf_8_decode
        begins, ends = rows.offsets[:-1].tolist(), rows.offsets[1:].tolist()
        if most:
            begins = [
                a + _spaces(data[a : min(a + most, b)].tobytes(), most)
                for a, b in zip(begins, ends, strict=True)
            ]
        return [decode(data[a:b], "replace", True)[0] for a, b in zip(begins, ends, strict=True)]


def _spaces(data: bytes, most: int) -> int:
    """Return how many spaces the data begins with, at most ``most``."""
    return len(data[:most]) - len(data[:most].lstrip(b" "))


class StreamDecoder:
    """Decodes ids one at a time and never gives out half a character.

    What :meth:`push` and :meth:`flush` return, joined, equals ``decode`` of all the ids.
    """

    def __init__(self, decoding: Decoding, skip_special: bool, continues: bool) -> None:
        self._decoding = decoding
        self._skip_special = skip_special
        self._rest = b""  # of a character that is not complete
        self._spaces_left = 0 if continues else decoding.leading_spaces

    def push(self, token_id: int) -> str:
        """Return the characters that this id completes, often none.

        Raises
        ------
        InputError
            If the id is out of range.
        """
        data = self._decoding.token(token_id, self._skip_special)
        if self._spaces_left:
            data = self._without_leading(data)
        text, used = codecs.utf_8_decode(self._rest + data, "replace", False)
        self._rest = (self._rest + data)[used:]
        return text

    def flush(self) -> str:
        """Return what is left at the end: U+FFFD for a character cut short."""
        rest, self._rest = self._rest, b""
        return codecs.utf_8_decode(rest, "replace", True)[0]

    def _without_leading(self, data: bytes) -> bytes:
        taken = _spaces(data, self._spaces_left)
        # The start is over at the first byte that stays.
        self._spaces_left = self._spaces_left - taken if taken == len(data) else 0
        return data[taken:]
