"""Encodes UTF-8 by the compiled kernels: byte-level vocabularies, known split patterns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numba
import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.kernels.tokenization.byte_pairs import PackedMerges, pack_merges
from numbatch.kernels.tokenization.encode_bytes import (
    SLACK,
    ByteTables,
    encode_stretches,
    encode_string,
    encode_strings,
)
from numbatch.kernels.tokenization.merge import MergeTables
from numbatch.kernels.tokenization.seed_entries import seed_entries
from numbatch.kernels.tokenization.split import MARGIN
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.tokenization.unicode_classes import class_table
from numbatch.kernels.tokenization.unicode_strings import utf8_bounds
from numbatch.models.tokenizers.encoder_states import EncoderStates
from numbatch.models.tokenizers.flat_text import string_layout
from numbatch.models.tokenizers.stretches import Stretches, equal_shares

__all__ = ["ByteEncoder", "build_byte_encoder", "default_threads"]

_LEAST_SLOTS = 1 << 12
_SHARE = 1 << 18
"""A thread gets at least so many bytes; fewer are encoded sooner than threads are started."""
_STRETCH = 1 << 24
"""Longer stretches are cut where they can be: each needs room for as many ids as it has bytes."""
_LONG = 1 << 20
"""Strings of more bytes are laid out in one array, so that several threads can share one."""


def default_threads() -> int:
    """Return how many threads encode where the caller does not say."""
    return int(numba.config.NUMBA_NUM_THREADS)


def build_byte_encoder(
    tables: MergeTables, rules: int | None, cache_size: int | None = None
) -> ByteEncoder | None:
    """Return the encoder for a vocabulary and a family of patterns; None where it cannot serve.

    Parameters
    ----------
    tables : MergeTables
    rules : int or None
        A family, see :mod:`~numbatch.kernels.tokenization.split_rules`.
    cache_size : int, optional
        Pieces that each thread remembers, the vocabulary among them.
    """
    if rules is None or tables.by_character:
        return None
    merges = pack_merges(tables.pairs, tables.strings, tables.byte_ids, tables.unknown_id)
    return None if merges is None else ByteEncoder(tables, rules, merges, cache_size)


class ByteEncoder:
    """Encodes UTF-8. Threads may share it; a forked process may go on using it."""

    def __init__(
        self, tables: MergeTables, rules: int, merges: PackedMerges, cache_size: int | None
    ) -> None:
        strings = tables.strings
        options = (
            rules, tables.whole_pieces, merges.ids.size - 1 if tables.unknown_id >= 0 else -1,
            tables.fuse_unknown, 65 - merges.pairs.size.bit_length(), strings.slots.size - 1,
            (tables.byte_ids >= 0).all(), strings.offsets.size - 1,
            merges.in_order,
        )  # fmt: skip
        self._tables = ByteTables(
            *merges[:-1],
            slots=strings.slots,
            values=read_only(np.concatenate([strings.values, np.zeros(MARGIN, np.uint8)])),
            offsets=strings.offsets,
            classes=class_table(),
            seeds=read_only(np.empty(0, np.uint64)),
            options=read_only(np.array(options, np.int64)),
        )
        self._cache_size = cache_size
        self._slots = 0
        self._lock = threading.Lock()
        self._states = EncoderStates(self._prepared_slots)
        self._teams: dict[int, ThreadTeam] = {}

    def clear_cache(self) -> None:
        """Forget all pieces but the vocabulary, and give the memory back."""
        self._states.clear()

    def encode_string(self, text: str) -> np.ndarray | None:
        """Return the ids of one string, uint32; None as :meth:`encode_strings`."""
        layout = string_layout()
        if layout is None or type(text) is not str:
            return None
        size = len(text) if text.isascii() else 4 * len(text)
        buffer, out = np.empty(size + MARGIN, np.uint8), np.empty(size + SLACK, np.uint32)
        ticket, states = self._states.take(1)
        try:
            count = encode_string(states[0], id(text), layout, buffer, self._tables, out)
        finally:
            self._states.put_back(ticket, states)
        if count < 0:
            return None
        return out[:count].copy()

    def encode_strings(
        self, rows: Sequence[str], start: int | None, threads: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Encode strings where they lie.

        Parameters
        ----------
        rows : sequence of str
            Not changed meanwhile.
        start : int or None
            The id that each begins with.
        threads : int
            How many threads at most.

        Returns
        -------
        ids, ends
            As of :meth:`encode`; None where a string is very long or has no UTF-8, or where this
            Python keeps its strings in a way that is not known.
        """
        layout = string_layout()
        if layout is None:
            return None
        addresses = read_only(np.fromiter(map(id, rows), np.int64, len(rows)))
        bounds = np.zeros(len(rows) + 1, np.int64)
        if not utf8_bounds(addresses, bounds):
            return None
        longest = int(np.diff(bounds).max(initial=0))
        threads = max(1, min(threads, int(bounds[-1]) // _SHARE))
        if longest > _LONG and threads > 1:
            return None
        ends = np.empty(len(rows), np.int64)
        first_id = -1 if start is None else start

        def encode_some(
            begin: int,
            stop: int,
            state: np.ndarray,
            buffer: np.ndarray,
            out: np.ndarray,
            total: int,
        ) -> int:
            return encode_strings(
                begin, stop, state, addresses, layout, buffer, first_id, self._tables, out, ends,
                total,
            )  # fmt: skip

        ids = self._in_parts(encode_some, bounds, ends, longest, threads)
        return None if ids is None else (ids, ends)

    def encode(
        self, data: np.ndarray, stretches: Stretches, threads: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode many stretches.

        Parameters
        ----------
        data : uint8 array, read-only
            Valid UTF-8.
        stretches : Stretches
        threads : int
            How many threads at most.

        Returns
        -------
        ids : uint32 array
        ends : int64 array, shape (texts,)
            Where the ids of each text end.
        """
        done = np.cumsum(stretches.stops - stretches.begins)
        total = int(done[-1]) if done.size else 0
        threads = max(1, min(threads, total // _SHARE))
        size = _STRETCH if threads == 1 else min(_STRETCH, max(_SHARE, total // (4 * threads)))
        stretches = stretches.cut(data, size)
        done = np.cumsum(stretches.stops - stretches.begins)
        begins, count = stretches.begins, stretches.begins.size
        bounds = np.concatenate([[0], done])
        ends = np.empty(count, np.int64)
        copied = stretches.stops + MARGIN > data.size
        longest = int((stretches.ends - begins)[copied].max(initial=0))
        arrays = [*map(read_only, (begins, stretches.stops, stretches.ends, stretches.fixed))]

        def encode_some(
            begin: int,
            stop: int,
            state: np.ndarray,
            buffer: np.ndarray,
            out: np.ndarray,
            total: int,
        ) -> int:
            return encode_stretches(
                begin, stop, state, data, buffer, *arrays, self._tables, out, ends, total
            )

        # Of stretches, which are valid UTF-8, each can be encoded.
        ids = cast(np.ndarray, self._in_parts(encode_some, bounds, ends, longest, threads))
        return ids, ends[stretches.lasts]

    def _in_parts(
        self,
        encode_some: Callable[..., int],
        bounds: np.ndarray,
        ends: np.ndarray,
        longest: int,
        threads: int,
    ) -> np.ndarray | None:
        """Encode items by several threads; return the ids, None where an item cannot be encoded.

        Parameters
        ----------
        encode_some : function
            Encodes items from one on up to another, with a state, a buffer, an output and where
            to begin in it; returns the first item that had no room, or a negative number.
        bounds : int64 array, shape (items + 1,)
            How many ids the items have at most, added up.
        ends : int64 array, shape (items,)
            Where the ids of each item end in the output of its part; then in all ids.
        longest : int
            Bytes of the buffer.
        threads : int
        """
        blocks = equal_shares(bounds[1:], threads)
        parts = blocks.size - 1
        outs: list[np.ndarray | None] = [None] * parts

        def encode_part(part: int, state: np.ndarray) -> None:
            begin, stop = int(blocks[part]), int(blocks[part + 1])
            buffer = np.empty(longest + MARGIN, np.uint8)
            out, done, total = np.empty(0, np.uint32), begin, 0
            while done < stop:
                more = np.empty(_room(bounds, begin, done, stop, total), np.uint32)
                more[:total] = out[:total]
                out = more
                done = encode_some(done, stop, state, buffer, out, total)
                if done < 0:
                    return
                total = int(ends[done - 1]) if done > begin else 0
            out.resize(total, refcheck=False)
            outs[part] = out

        self._run(encode_part, parts)
        found = [out for out in outs if out is not None]
        if len(found) < parts:
            return None
        if parts == 1:
            return found[0]
        base = 0
        for part, out in enumerate(found):
            ends[blocks[part] : blocks[part + 1]] += base
            base += out.size
        return np.concatenate(found)

    def _run(self, encode_part: Callable[[int, np.ndarray], Any], parts: int) -> None:
        """Encode the parts, each by a thread with a state of its own."""
        ticket, states = self._states.take(parts)
        try:
            if parts == 1:
                encode_part(0, states[0])
                return
            team = self._teams.setdefault(parts, ThreadTeam(parts))
            team.run(Call(_run_parts, parts, (encode_part, states)))
        finally:
            self._states.put_back(ticket, states)

    def _prepared_slots(self) -> int:
        """Return how many entries a cache has; the vocabulary's are made at the first call."""
        with self._lock:
            if self._slots:
                return self._slots
            seeds = seed_entries(self._tables)
            entries = seeds.size // 4
            wanted = max(_LEAST_SLOTS, self._cache_size or 3 * entries)
            if self._cache_size is not None and wanted < entries:
                raise InputError(
                    f"cache_size is {self._cache_size}, should be at least {entries}, "
                    "as many pieces as the vocabulary holds"
                )
            self._tables = self._tables._replace(seeds=seeds)
            self._slots = 1 << (wanted * 4 // 3).bit_length()
            return self._slots


def _run_parts(
    start: int,
    stop: int,
    encode_part: Callable[[int, np.ndarray], Any],
    states: Sequence[np.ndarray],
) -> None:
    for part in range(start, stop):
        encode_part(part, states[part])


def _room(bounds: np.ndarray, begin: int, done: int, stop: int, total: int) -> int:
    """Return how many places an output should have, of which ``total`` are filled already.

    Enough for the next item, and for the others if they are like those before them; a third of the
    most that there can be where nothing is known. Memory that is asked for at its most would be
    fresh from the system at every call, which costs more than encoding.
    """
    rest = int(bounds[stop] - bounds[done])
    seen = int(bounds[done] - bounds[begin])
    share = total / seen if total and seen else 1 / 3
    wanted = int(1.2 * share * rest) + (stop - done)
    return total + max(int(bounds[done + 1] - bounds[done]), min(wanted, rest)) + 2 * SLACK
