"""From texts to token ids: special tokens allowed or refused, compiled where that can be."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged, on_device
from numbatch.kernels.tokenization.merge import MergeTables, encode_pieces
from numbatch.models.tokenizers.added_tokens import AddedToken
from numbatch.models.tokenizers.byte_encoder import default_threads
from numbatch.models.tokenizers.byte_pipeline import BytePipeline, build_byte_pipeline
from numbatch.models.tokenizers.flat_text import as_texts, flat_text, is_arrow
from numbatch.models.tokenizers.refuse_tokens import refuse_tokens
from numbatch.models.tokenizers.repair_text import Errors, valid_text
from numbatch.models.tokenizers.text_groups import in_groups, piece_bytes, stacked
from numbatch.models.tokenizers.text_pipeline import TextPipeline

if TYPE_CHECKING:
    from numbatch.models.tokenizers.device_pipeline import DevicePipeline

__all__ = ["Allowed", "Encoding"]

Allowed = Literal["all"] | Collection[str]


class Encoding:
    """Encodes texts.

    Parameters
    ----------
    tables : MergeTables
    pipeline : TextPipeline
    added : sequence of AddedToken
    name : str
        For messages.
    bos_id : int or None
    """

    def __init__(
        self,
        tables: MergeTables,
        pipeline: TextPipeline,
        added: Sequence[AddedToken],
        name: str,
        bos_id: int | None,
    ) -> None:
        self._tables, self._pipeline = tables, pipeline
        self._added = {token.content for token in added}
        self._special_ids = {token.content: token.id for token in added if token.special}
        self._name, self._bos_id = name, bos_id
        self._cache_size: int | None = None
        self._lock = threading.Lock()
        self._built: BytePipeline | Literal[False] | None = False  # not built yet
        self._device: DevicePipeline | None = None

    def clear_cache(self) -> None:
        """Forget the pieces that were encoded."""
        if self._built:
            self._built.encoder.clear_cache()
        if self._device is not None:
            self._device.clear()

    def set_cache_size(self, pieces: int) -> None:
        """Set how many pieces each thread remembers, no fewer than the vocabulary has."""
        with self._lock:
            self._cache_size, self._built = pieces, False

    def compiled(self) -> BytePipeline | None:
        """Return the compiled pipeline, built once; None where a part has none."""
        with self._lock:
            if self._built is False:
                self._built = build_byte_pipeline(self._pipeline, self._tables, self._cache_size)
            return self._built

    def encode_string(self, text: Any) -> np.ndarray | None:
        """Return the ids of one str with no options; None where it needs more care."""
        if type(text) is not str:
            return None
        compiled = self._built or self.compiled()
        return compiled.encode_one(text) if compiled else None

    def encode_batch(
        self,
        texts: Any,
        add_bos: bool,
        allowed_special: Allowed,
        disallowed_special: Allowed,
        errors: Errors,
        threads: int | None,
    ) -> Ragged:
        """Return the ids of many texts; see ``Tokenizer.encode_batch``."""
        if isinstance(texts, str | bytes):
            raise InputError("texts is one text, should be a list of texts")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, should be at least 1")
        allowed = self._ids_of(allowed_special, "allowed_special")
        banned = self._ids_of(disallowed_special, "disallowed_special") - allowed
        if add_bos and self._bos_id is None:
            raise InputError(f"add_bos is set, but tokenizer {self._name!r} has no BOS token")
        start = self._bos_id if add_bos else None
        if isinstance(texts, Ragged) and on_device(texts.values):
            return self._encode_on_device(texts, start, allowed, banned, errors)
        if not isinstance(texts, Ragged | list | tuple) and not is_arrow(texts):
            texts = list(texts)
        if banned:
            names = {index: name for name, index in self._special_ids.items() if index in banned}
            refuse_tokens(flat_text(texts, errors), names)
        compiled = self._built or self.compiled()
        if compiled is not None:
            found = compiled.encode(texts, start, allowed, errors, threads or default_threads())
            if found is not None:
                return Ragged(found[0], np.concatenate([[0], found[1]]))
        valid = (valid_text(t, errors, f"text {i}") for i, t in enumerate(as_texts(texts)))
        return stacked([self.encode_group(group, start, allowed) for group in in_groups(valid)])

    def encode_group(self, texts: list[str], start: int | None, allowed: frozenset[int]) -> Ragged:
        """Return the ids of valid texts, piece by piece: for any tokenizer, and slow."""
        pieces: list[str | int] = []
        rows = np.zeros(len(texts) + 1, np.int64)
        for row, text in enumerate(texts):
            begin = len(pieces)
            pieces.extend(self._pipeline.pieces(text, allowed))
            if start is not None and (len(pieces) == begin or pieces[begin] != start):
                pieces.insert(begin, start)
            rows[row + 1] = len(pieces)
        fixed = np.array([p if isinstance(p, int) else -1 for p in pieces], np.int32)
        encoded = piece_bytes(["" if isinstance(p, int) else p for p in pieces])
        ids = encode_pieces(encoded, fixed, self._tables)
        return Ragged(ids.values, ids.offsets[rows])

    def _encode_on_device(
        self,
        texts: Ragged,
        start: int | None,
        allowed: frozenset[int],
        banned: frozenset[int],
        errors: Errors,
    ) -> Ragged:
        from numbatch.models.tokenizers.device_pipeline import DevicePipeline

        with self._lock:
            if self._device is None:
                self._device = DevicePipeline(self._pipeline, self._tables)
        names = {index: name for name, index in self._special_ids.items()}

        def on_host(rows: Ragged) -> Ragged:
            return self.encode_batch(
                rows,
                start is not None,
                [names[index] for index in allowed],
                [names[index] for index in banned],
                errors,
                None,
            )

        active = self._pipeline.raw_tokens.active(allowed | banned)
        active += self._pipeline.normalized_tokens.active(allowed | banned)
        return self._device.encode(texts, start, [token.content for token in active], on_host)

    def _ids_of(self, tokens: Allowed, option: str) -> frozenset[int]:
        if not tokens:
            return frozenset()
        if isinstance(tokens, str):
            if tokens != "all":
                raise InputError(
                    f"{option} is {tokens!r}, should be 'all' or a collection of tokens"
                )
            return frozenset(self._special_ids.values())
        for token in tokens:
            if token not in self._added:
                raise InputError(f"{option} has {token!r}, which is no special token")
        return frozenset(self._special_ids[t] for t in tokens if t in self._special_ids)
