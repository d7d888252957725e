"""Texts as one flat array of UTF-8, with room behind for kernels that read ahead."""

from __future__ import annotations

import codecs
import functools
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.composition import rows_to_normalize
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.tokenization.unicode_strings import utf8_sizes, write_utf8
from numbatch.models.tokenizers.repair_text import Errors, check_errors, valid_text

__all__ = ["PAD", "FlatText", "as_texts", "flat_text", "is_arrow", "string_layout"]

PAD = "\0" * 64


class FlatText:
    """Texts one after another: ``data[offsets[i]:offsets[i + 1]]`` is text ``i``, valid UTF-8."""

    __slots__ = ("data", "offsets")

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self.data = read_only(data)
        self.offsets = read_only(offsets)

    def text(self, row: int) -> str:
        """Return one text as a string."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def normalized(self) -> tuple[FlatText, np.ndarray]:
        """Return the texts in Unicode's form NFC, and the rows that were not so already."""
        changed: dict[int, bytes] = {}
        for row in rows_to_normalize(self.data, self.offsets).tolist():
            text = self.text(row)
            normal = normalize("NFC", text)
            if normal != text:
                changed[row] = normal.encode()
        rows = np.array([*changed], np.int64)
        if not changed:
            return self, rows
        lengths = np.diff(self.offsets)
        lengths[rows] = [*map(len, changed.values())]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        data = np.zeros(offsets[-1] + len(PAD), np.uint8)
        done = 0
        for row, encoded in [*changed.items(), (self.offsets.size - 1, b"")]:
            kept = self.data[self.offsets[done] : self.offsets[row]]
            data[offsets[done] : offsets[row]] = kept
            data[offsets[row] : offsets[row] + len(encoded)] = np.frombuffer(encoded, np.uint8)
            done = row + 1
        return FlatText(data, offsets), rows


def flat_text(texts: Any, errors: Errors) -> FlatText:
    """Lay out texts.

    Parameters
    ----------
    texts : iterable of str or bytes, Ragged of uint8, or pyarrow string or binary array
    errors : ``replace`` or ``strict``
        As in :func:`~numbatch.models.tokenizers.repair_text.valid_text`.

    Raises
    ------
    InputError
        If a text is neither, or is not valid and ``errors`` is ``strict``.
    """
    check_errors(errors)
    if isinstance(texts, Ragged):
        return _from_bytes(texts, errors)
    if is_arrow(texts):
        return _from_bytes(_from_arrow(texts), errors)
    rows = [*texts]  # holds on to the strings, whatever becomes of the caller's list
    kinds = set(map(type, rows))
    if kinds <= {str}:
        return _from_strings(rows, errors)
    return _from_strings([valid_text(t, errors, f"text {i}") for i, t in enumerate(rows)], errors)


def is_arrow(texts: Any) -> bool:
    """Return whether this is an array of pyarrow, which need not be installed."""
    return type(texts).__module__.partition(".")[0] == "pyarrow"


def as_texts(texts: Any) -> Iterable[Any]:
    """Return what :func:`flat_text` takes as single texts."""
    if is_arrow(texts):
        texts = _from_arrow(texts)
    if isinstance(texts, Ragged):
        return (row.tobytes() for row in texts)
    return texts


@functools.cache
def string_layout() -> tuple[int, int] | None:
    """Return the sizes of the headers of ASCII and other strings; None where they are not known."""
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return None
    rows = [text * 40 for text in ("", "a", "\xe9b", "\u20ac uro", "\U0001f600x\xe9\u20ac")]
    layout = sys.getsizeof("a" * 40) - 41, sys.getsizeof(rows[2]) - 81
    known = _read_in_place(rows, layout)
    expected = "".join(rows).encode()
    same = known is not None and known.data[: known.offsets[-1]].tobytes() == expected
    return layout if same else None


def _read_in_place(rows: Sequence[str], layout: tuple[int, int]) -> FlatText | None:
    """Return the strings' UTF-8; None where one holds a surrogate."""
    addresses = read_only(np.fromiter(map(id, rows), np.int64, len(rows)))
    offsets = np.zeros(len(rows) + 1, np.int64)
    if utf8_sizes(addresses, layout[1], offsets) >= 0:
        return None
    data = np.empty(offsets[-1] + len(PAD), np.uint8)
    write_utf8(addresses, *layout, offsets, data)
    data[offsets[-1] :] = 0
    return FlatText(data, offsets)


def _from_strings(rows: Sequence[str], errors: Errors) -> FlatText:
    layout = string_layout()
    if layout is not None:
        flat = _read_in_place(rows, layout)
        if flat is not None:
            return flat
    encoded = [valid_text(text, errors, f"text {i}").encode() for i, text in enumerate(rows)]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(rows)), out=offsets[1:])
    return FlatText(np.frombuffer(b"".join([*encoded, PAD.encode()]), np.uint8), offsets)


def _from_bytes(rows: Ragged, errors: Errors) -> FlatText:
    if rows.values.dtype != np.uint8:
        raise InputError(f"texts are a Ragged of {rows.values.dtype}, should be of uint8 (UTF-8)")
    try:
        if not _ends_on_characters(rows):
            raise ValueError
        codecs.utf_8_decode(rows.values, "strict", True)
    except ValueError:
        texts: Iterable[bytes] = (row.tobytes() for row in rows)
        return _from_strings(
            [valid_text(text, errors, f"text {i}") for i, text in enumerate(texts)], errors
        )
    return FlatText(rows.values, rows.offsets)


def _ends_on_characters(rows: Ragged) -> bool:
    inside = rows.offsets[(rows.offsets > 0) & (rows.offsets < rows.values.size)]
    return not ((rows.values[inside] & 0xC0) == 0x80).any()


def _from_arrow(array: Any) -> Ragged:
    """Return the bytes of a pyarrow array without a copy, chunks and nulls apart."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    wide = {pa.large_string(): np.int64, pa.large_binary(): np.int64}
    kinds = wide | {pa.string(): np.int32, pa.binary(): np.int32}
    if not isinstance(array, pa.Array) or array.type not in kinds:
        raise InputError(f"texts are {type(array).__name__}, should be a pyarrow string array")
    if array.null_count:
        raise InputError(f"texts have {array.null_count} nulls, should have none")
    _, bounds, values = array.buffers()
    if len(array) == 0:
        return Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64))
    offsets = np.frombuffer(bounds, kinds[array.type])[array.offset :][: len(array) + 1]
    offsets = offsets.astype(np.int64)
    data = np.empty(0, np.uint8) if values is None else np.frombuffer(values, np.uint8)
    return Ragged(data[offsets[0] : offsets[-1]], offsets - offsets[0])
