"""Encodes UTF-8 by the compiled kernels: byte-level vocabularies, known split patterns."""

from __future__ import annotations

import threading

import numba
import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.kernels.tokenization.byte_pairs import MOST_ID, pack_pairs, rank_byte_pairs
from numbatch.kernels.tokenization.encode_bytes import (
    SLACK,
    ByteTables,
    encode_blocks,
    encode_text,
    new_state,
    seed_entries,
)
from numbatch.kernels.tokenization.gather import cut_points, move_blocks
from numbatch.kernels.tokenization.merge import MergeTables
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.tokenization.unicode_classes import class_table

__all__ = ["ByteEncoder", "Stretches", "build_byte_encoder", "default_threads"]

_LEAST_SLOTS = 1 << 12
_SHARE = 1 << 18
"""A thread gets at least so many bytes; fewer are encoded sooner than threads are started."""


def default_threads() -> int:
    """Return how many threads encode where the caller does not say."""
    return int(numba.config.NUMBA_NUM_THREADS)


class Stretches:
    """Parts of texts, each encoded by itself, with an id before it or -1.

    Parameters
    ----------
    begins, stops, ends : int64 arrays, shape (stretches,)
        Stretch ``j`` is ``data[begins[j]:stops[j]]``, of a text that ends at ``ends[j]``.
    fixed : int32 array, shape (stretches,)
    lasts : int64 array, shape (texts,)
        The last stretch of each text.
    """

    __slots__ = ("begins", "ends", "fixed", "lasts", "stops")

    def __init__(
        self,
        begins: np.ndarray,
        stops: np.ndarray,
        ends: np.ndarray,
        fixed: np.ndarray,
        lasts: np.ndarray,
    ) -> None:
        self.begins, self.stops, self.ends = begins, stops, ends
        self.fixed, self.lasts = fixed, lasts

    def cut(self, data: np.ndarray, size: int) -> Stretches:
        """Return stretches of about ``size`` bytes at most, cut where pieces end anyway."""
        long = np.flatnonzero(self.stops - self.begins > 2 * size)
        if not long.size:
            return self
        cuts: list[np.ndarray] = []
        for j in long.tolist():
            begin, stop = int(self.begins[j]), int(self.stops[j])
            points = np.empty((stop - begin) // size, np.int64)
            wanted = begin + size * np.arange(1, points.size + 1)
            cuts.append(points[: cut_points(data, begin, stop, wanted, points)])
        where = np.repeat(long, [c.size for c in cuts])
        points = np.concatenate(cuts)
        owner = np.concatenate([np.arange(self.begins.size), where])
        starts = np.concatenate([self.begins, points])
        fixed = np.concatenate([self.fixed, np.full(points.size, -1, np.int32)])
        order = np.lexsort((starts, owner))
        owner, starts, fixed = owner[order], starts[order], fixed[order]
        stops = np.append(starts[1:], 0)
        last = np.append(owner[1:] != owner[:-1], True)
        stops[last] = self.stops
        lasts = np.flatnonzero(last)[self.lasts] if self.lasts.size else self.lasts
        return Stretches(starts, stops, self.ends[owner], fixed, lasts)


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
    if rules is None or tables.by_character or tables.strings.offsets.size > MOST_ID:
        return None
    packed = pack_pairs(tables.pairs)
    if packed is None:
        return None
    pairs, merged = packed
    return ByteEncoder(tables, rules, pairs, merged, cache_size)


class ByteEncoder:
    """Encodes UTF-8. Threads may share it; a forked process may go on using it."""

    def __init__(
        self,
        tables: MergeTables,
        rules: int,
        pairs: np.ndarray,
        merged: np.ndarray,
        cache_size: int | None,
    ) -> None:
        strings = tables.strings
        byte_ranks = rank_byte_pairs(tables.pairs, strings, tables.byte_ids)
        options = (
            rules, tables.whole_pieces, tables.unknown_id, tables.fuse_unknown,
            65 - pairs.size.bit_length(), strings.slots.size - 1, byte_ranks.size > 0,
        )  # fmt: skip
        self._tables = ByteTables(
            pairs=pairs,
            merged=merged,
            byte_ids=tables.byte_ids,
            byte_ranks=byte_ranks,
            slots=strings.slots,
            values=strings.values,
            offsets=strings.offsets,
            classes=class_table(),
            seeds=read_only(np.empty(0, np.uint64)),
            options=read_only(np.array(options, np.int64)),
        )
        self._cache_size = cache_size
        self._seeded = False
        self._slots = 0
        self._lock = threading.Lock()
        self._states: list[np.ndarray] = []
        self._teams: dict[int, ThreadTeam] = {}

    def clear_cache(self) -> None:
        """Forget all pieces but the vocabulary, and give the memory back."""
        self._states = []

    def encode_text(self, data: bytes) -> np.ndarray:
        """Return the ids of one text, uint32; ``data`` is UTF-8 with 64 bytes behind it."""
        size = len(data) - 64
        state = self._take_state()
        try:
            out = np.empty(size + SLACK, np.uint32)
            count = encode_text(state, np.frombuffer(data, np.uint8), size, self._tables, out)
        finally:
            self._states.append(state)
        return out[:count].copy()

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
        total = int((stretches.stops - stretches.begins).sum())
        threads = max(1, min(threads, total // _SHARE))
        if threads > 1:
            stretches = stretches.cut(data, max(_SHARE, total // (4 * threads)))
        begins = read_only(stretches.begins)
        blocks = _equal_shares(stretches, threads)
        room = int(stretches.stops[-1]) + begins.size + SLACK if begins.size else 0
        out, ends = np.empty(room, np.uint32), np.empty(begins.size, np.int64)
        states = [self._take_state() for _ in range(blocks.size - 1)]
        shared = (
            begins,
            read_only(stretches.stops),
            read_only(stretches.ends),
            read_only(stretches.fixed),
            self._tables,
            out,
            ends,
        )
        calls = [
            Call(encode_blocks, 1, (state, data, read_only(blocks[part : part + 2]), *shared))
            for part, state in enumerate(states)
        ]
        try:
            self._run(calls, threads)
        finally:
            self._states.extend(states)
        return _closed_up(out, ends, begins, blocks, stretches.lasts)

    def _run(self, calls: list[Call], threads: int) -> None:
        if len(calls) <= 1:
            for call in calls:
                call.run_part(0, 1)
            return
        team = self._teams.setdefault(threads, ThreadTeam(threads))
        team.run(Call(_run_call, len(calls), (calls,)))

    def _take_state(self) -> np.ndarray:
        try:
            return self._states.pop()
        except IndexError:
            return self._new_state()

    def _new_state(self) -> np.ndarray:
        with self._lock:
            if not self._seeded:
                self._tables = self._tables._replace(seeds=seed_entries(self._tables))
                entries = self._tables.seeds.size // 4
                wanted = max(_LEAST_SLOTS, self._cache_size or 3 * entries)
                if self._cache_size is not None and wanted < entries:
                    raise InputError(
                        f"cache_size is {self._cache_size}, should be at least {entries}, "
                        "as many pieces as the vocabulary holds"
                    )
                self._slots = 1 << (wanted * 4 // 3).bit_length()
                self._seeded = True
        return new_state(self._slots)


def _run_call(start: int, stop: int, calls: list[Call]) -> None:
    for call in calls[start:stop]:
        call.run_part(0, 1)


def _equal_shares(stretches: Stretches, parts: int) -> np.ndarray:
    """Return the first stretch of each part and their number, parts being alike in bytes."""
    if parts == 1 or stretches.begins.size < 2:
        return np.array([0, stretches.begins.size])
    done = np.cumsum(stretches.stops - stretches.begins)
    firsts = 1 + np.searchsorted(done, done[-1] * np.arange(1, parts) // parts)
    return np.unique(np.concatenate([[0], firsts, [stretches.begins.size]]))


def _closed_up(
    out: np.ndarray, ends: np.ndarray, begins: np.ndarray, blocks: np.ndarray, lasts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids without the gaps between the parts, and where each text's ids end."""
    if not ends.size:
        return np.empty(0, np.uint32), np.zeros(lasts.size, np.int64)
    starts = begins[blocks[:-1]] + blocks[:-1]
    stops = ends[blocks[1:] - 1]
    total = int(move_blocks(out, starts, stops))
    shifts = starts - np.concatenate([[0], np.cumsum(stops - starts)[:-1]])
    ends -= np.repeat(shifts, np.diff(blocks))
    out.resize(total, refcheck=False)
    return out, ends[lasts]
