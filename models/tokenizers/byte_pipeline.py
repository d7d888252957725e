"""From texts to ids without a Python object a piece, where a tokenizer's parts allow it."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Container
from typing import Any

import numpy as np

from numbatch.kernels.tokenization.merge import MergeTables
from numbatch.models.tokenizers.byte_encoder import ByteEncoder, build_byte_encoder
from numbatch.models.tokenizers.flat_text import flat_text
from numbatch.models.tokenizers.repair_text import Errors, check_errors
from numbatch.models.tokenizers.split_families import compiled_rules
from numbatch.models.tokenizers.stretches import Stretches
from numbatch.models.tokenizers.text_pipeline import TextPipeline

__all__ = ["BytePipeline", "build_byte_pipeline"]


def build_byte_pipeline(
    pipeline: TextPipeline, tables: MergeTables, cache_size: int | None
) -> BytePipeline | None:
    """Return the pipeline in its compiled form, or None where a part has none."""
    if pipeline.normalized_tokens.active(_Everything()):
        return None
    normalizer = pipeline.normalizer
    nfc = (
        isinstance(normalizer, functools.partial)
        and normalizer.func is unicodedata.normalize
        and normalizer.args == ("NFC",)
    )
    if normalizer is not None and not nfc:
        return None
    encoder = build_byte_encoder(tables, compiled_rules(pipeline.splitter), cache_size)
    return None if encoder is None else BytePipeline(pipeline, encoder, nfc)


class _Everything:
    def __contains__(self, item: object) -> bool:
        return True


class BytePipeline:
    """Encodes texts by :class:`ByteEncoder`, added tokens and NFC included."""

    def __init__(self, pipeline: TextPipeline, encoder: ByteEncoder, nfc: bool) -> None:
        self.encoder = encoder
        self._finder = pipeline.raw_tokens
        self._nfc = nfc
        active = self._finder.active(_Everything())
        self._plain = not any(t.lstrip or t.rstrip or t.single_word for t in active)
        self._always = bool(self._finder.active(()))
        self._firsts = {token.content[0] for token in self._finder.active(())}

    def encode_one(self, text: str) -> np.ndarray | None:
        """Return the ids of one text; None where it needs more care than this gives."""
        if self._nfc and not unicodedata.is_normalized("NFC", text):
            return None
        if self._always and any(first in text for first in self._firsts):
            return None
        return self.encoder.encode_string(text)

    def encode(
        self, texts: Any, start: int | None, allowed: Container[int], errors: Errors, threads: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return ids and where those of each text end; None where a text needs the slow way.

        Parameters
        ----------
        texts
            As :func:`~numbatch.models.tokenizers.flat_text.flat_text` takes them.
        start : int or None
            The id that each text begins with.
        allowed : container of int
            Ids of the special tokens that are found.
        """
        search = self._always or bool(allowed and self._finder.active(allowed))
        if search and not self._plain:
            return None
        check_errors(errors)
        in_place = not (search or self._nfc) and type(texts) in (list, tuple)
        if in_place and set(map(type, texts)) <= {str}:
            rows = [*texts]  # holds on to the strings, whatever becomes of the caller's list
            encoded = self.encoder.encode_strings(rows, start, threads)
            if encoded is not None:
                return encoded
        flat = flat_text(texts, errors)
        found = self._finder.find(flat.data, flat.offsets, allowed) if search else None
        if self._nfc:
            normal, changed = flat.normalized()
            if found is not None and changed.size:
                if np.isin(found[3], changed).any():
                    return None  # tokens are found before the text is normalized
                shifts = (normal.offsets - flat.offsets)[found[3]]
                found = found[0] + shifts, found[1] + shifts, found[2], found[3]
            flat = normal
        begins, stops = flat.offsets[:-1], flat.offsets[1:]
        fixed = np.full(begins.size, -1 if start is None else start, np.int32)
        if found is not None and found[0].size:
            stretches = _with_tokens(begins, stops, fixed, found)
        else:
            stretches = Stretches(begins, stops, stops, fixed, np.arange(begins.size))
        return self.encoder.encode(flat.data, stretches, threads)


def _with_tokens(
    begins: np.ndarray,
    stops: np.ndarray,
    fixed: np.ndarray,
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> Stretches:
    """Return the stretches between tokens, each token before the stretch that follows it."""
    token_starts, token_stops, ids, rows = found
    # A text that begins with the start id has it once.
    at_begin = token_starts == begins[rows]
    twice = rows[at_begin & (ids == fixed[rows])]
    fixed[twice] = -1
    owner = np.concatenate([np.arange(begins.size), rows])
    order = np.argsort(owner, kind="stable")
    owner = owner[order]
    all_begins = np.concatenate([begins, token_stops])[order]
    all_fixed = np.concatenate([fixed, ids])[order]
    last = np.append(owner[1:] != owner[:-1], True)
    all_stops = np.empty_like(all_begins)
    all_stops[last] = stops
    all_stops[~last] = token_starts
    return Stretches(all_begins, all_stops, all_stops, all_fixed, np.flatnonzero(last))
