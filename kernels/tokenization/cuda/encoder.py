"""Texts on a GPU to token ids on the GPU: the four steps, and the memory that they share."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.device_arrays import blocks_for, device_vector, threads_of
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.cuda.find_pieces import (
    COUNTERS,
    DECREASING,
    HOST_COUNT,
    INVALID,
    LONG_COUNT,
    MIDDLE_COUNT,
    SHORT_COUNT,
    TOTAL,
    WINDOW,
    find_pieces,
    prepare,
)
from numbatch.kernels.tokenization.cuda.gather import (
    SCAN_THREADS,
    TILE,
    add_tiles,
    count_tokens,
    gather_ids,
    text_ends,
)
from numbatch.kernels.tokenization.cuda.look_up import (
    LONGEST,
    LOOK_UP_THREADS,
    MIDDLE,
    SHORT,
    TILE_WINDOWS,
    look_up,
)
from numbatch.kernels.tokenization.cuda.merge_pieces import (
    BLOCK_THREADS,
    merge_long_pieces,
    merge_middle_pieces,
    merge_short_pieces,
    place,
)
from numbatch.kernels.tokenization.cuda.tables import DeviceTables, build_device_tables
from numbatch.kernels.tokenization.merge import MergeTables, encode_pieces

__all__ = ["DeviceEncoder"]

THREADS = threads_of(128, 8)
_BLOCKS = 4096
"""At most so many blocks go over a list, again and again."""


class _Room:
    """The arrays that one call needs, kept for the next."""

    def __init__(self, gpu: Gpu, size: int) -> None:
        self.size = size
        windows = size // WINDOW + 1
        self.text = gpu.empty(WINDOW * (windows + 1), np.uint8)
        self.words = self.text.view(np.uint64)
        self.masks = gpu.empty(windows, np.uint64)
        self.ids = gpu.empty(size + 1, np.uint32)
        self.bases = gpu.empty(windows, np.int64)
        self.tiles = gpu.empty(blocks_for(windows, TILE), np.int64)
        self.counters = gpu.empty(COUNTERS, np.int64)
        # A piece that is no token has two bytes or more, and seldom fewer than four; where all
        # have so few, the lists are made longer.
        self.short = gpu.empty(size // 4 + 64, np.int64)
        self.middle = gpu.empty(size // SHORT + 64, np.int64)
        self.long = gpu.empty(size // MIDDLE + 64, np.int64)
        self.host = gpu.empty(2 * (size // LONGEST) + 64, np.int64)


class DeviceEncoder:
    """Encodes UTF-8 that lies on a GPU; threads may share it, and take turns.

    The ids are those of the CPU. What the GPU leaves to the host: parts of more than 2,048 bytes
    that nothing divides (a megabyte of one letter). They are copied there and back alone.

    Parameters
    ----------
    gpu : Gpu
    tables : DeviceTables
        From :meth:`build`.
    """

    def __init__(self, gpu: Gpu, tables: DeviceTables) -> None:
        self._gpu, self._tables = gpu, tables
        self._room: _Room | None = None
        self._lock = threading.Lock()

    @classmethod
    def build(cls, gpu: Gpu, tables: MergeTables, rules: int) -> DeviceEncoder | None:
        """Copy a vocabulary to a GPU; None where the kernels cannot serve it."""
        built = build_device_tables(gpu, tables, rules)
        return None if built is None else cls(gpu, built)

    @property
    def gpu(self) -> Gpu:
        """Where the tables lie."""
        return self._gpu

    def clear(self) -> None:
        """Give back the memory that is kept from call to call: about 8 bytes a byte of text."""
        with self._lock:
            self._room = None

    def encode(self, texts: Ragged) -> Ragged | None:
        """Return the ids of each text; None where a text is no UTF-8.

        Parameters
        ----------
        texts : Ragged of uint8
            UTF-8, both arrays on the encoder's GPU.

        Returns
        -------
        Ragged of uint32
            Both arrays on the GPU.

        Raises
        ------
        InputError
            If the offsets do not describe rows, or an array is not what it should be.
        DeviceError
            If an array lies on another GPU, or the GPU fails.
        """
        text = device_vector(texts.values, "values", self._gpu, ("uint8",))
        offsets = device_vector(texts.offsets, "offsets", self._gpu, ("int64",))
        self._gpu.use()
        with self._lock:
            return self._encode(text, offsets, int(text.size))

    def _encode(self, text: Any, offsets: Any, size: int) -> Ragged | None:
        room = self._room_for(size)
        self._find(room, text, offsets, size)
        self._merge(room, size)
        counters = self._counted(room, size)
        if counters[DECREASING]:
            raise InputError(
                f"offsets on the GPU should run from 0 to {size} and never decrease; "
                f"{counters[DECREASING]} do not"
            )
        if counters[INVALID]:
            return None
        if counters[SHORT_COUNT] > room.short.size:
            room.short = self._gpu.empty(size + 64, np.int64)
            return self._encode(text, offsets, size)
        if counters[HOST_COUNT]:
            self._merge_on_host(room, text, int(counters[HOST_COUNT]))
            counters = self._counted(room, size)
        return self._gathered(room, offsets, size, int(counters[TOTAL]))

    def _room_for(self, size: int) -> _Room:
        if self._room is None or self._room.size < size:
            self._room = None  # give back before taking
            self._room = _Room(self._gpu, size)
        return self._room

    def _find(self, room: _Room, text: Any, offsets: Any, size: int) -> None:
        """Find the pieces and whether the texts can be used."""
        launch, tables = self._gpu.launch, self._tables
        windows = size // WINDOW + 1
        whole = WINDOW * (windows + 1)
        room.counters = self._gpu.zeros(COUNTERS, np.int64)
        launch(
            prepare, blocks_for(whole // 8, THREADS), THREADS,
            text, room.text, size, whole, offsets, room.masks, room.counters,
        )  # fmt: skip
        if offsets.size > 1:
            launch(
                find_pieces, blocks_for(windows, THREADS), THREADS,
                room.text, room.words, size, offsets, tables.rules, tables.classes,
                room.masks, room.counters,
            )  # fmt: skip

    def _merge(self, room: _Room, size: int) -> None:
        """Write the ids of all pieces, those apart that are left to the host."""
        launch, tables = self._gpu.launch, self._tables
        windows = size // WINDOW + 1
        launch(
            look_up, blocks_for(windows, TILE_WINDOWS), LOOK_UP_THREADS,
            room.text, room.words, size, room.masks, windows, tables.entries, tables.entry_shift,
            tables.slots, tables.values, tables.offsets, tables.longest, tables.byte_pairs,
            room.ids, room.short, room.middle, room.long, room.host, room.counters,
        )  # fmt: skip
        merging = (
            tables.numbered_ids, tables.unknown, tables.fuse_unknown, tables.byte_pairs,
            tables.pairs, tables.pair_shift, room.ids, room.masks,
        )  # fmt: skip
        for kernel, kept, number, least in (
            (merge_short_pieces, room.short, SHORT_COUNT, 2),
            (merge_middle_pieces, room.middle, MIDDLE_COUNT, SHORT),
        ):
            blocks = min(_BLOCKS, blocks_for(size // least + 1, THREADS))
            launch(kernel, blocks, THREADS, room.text, kept, room.counters, number, *merging)
        blocks = min(_BLOCKS, size // MIDDLE)
        launch(
            merge_long_pieces, blocks, BLOCK_THREADS,
            room.text, room.long, room.counters, LONG_COUNT, *merging,
        )  # fmt: skip

    def _counted(self, room: _Room, size: int) -> np.ndarray:
        """Add up the tokens; return the counters."""
        windows = size // WINDOW + 1
        tiles = blocks_for(windows, TILE)
        self._gpu.launch(count_tokens, tiles, TILE, room.masks, windows, room.tiles)
        self._gpu.launch(add_tiles, 1, SCAN_THREADS, room.tiles, tiles, room.counters)
        return self._gpu.download(room.counters)

    def _merge_on_host(self, room: _Room, text: Any, count: int) -> None:
        spans = self._gpu.download(room.host)[: 2 * count].reshape(-1, 2)
        rows = [self._gpu.download(text[begin:end]) for begin, end in spans.tolist()]
        parts = Ragged.from_rows(rows, np.uint8)
        tables = self._tables.host._replace(whole_pieces=False)
        encoded = encode_pieces(parts, np.full(count, -1, np.int32), tables)
        upload = self._gpu.upload
        self._gpu.launch(
            place, count, 32, upload(np.ascontiguousarray(spans[:, 0])), upload(encoded.offsets),
            upload(encoded.values), room.ids, room.masks,
        )  # fmt: skip

    def _gathered(self, room: _Room, offsets: Any, size: int, total: int) -> Ragged:
        windows = size // WINDOW + 1
        values = self._gpu.empty(total, np.uint32)
        ends = self._gpu.empty(offsets.size, np.int64)
        launch = self._gpu.launch
        launch(
            gather_ids, blocks_for(windows, TILE), TILE,
            room.ids, room.masks, windows, room.tiles, room.bases, values,
        )  # fmt: skip
        launch(
            text_ends, blocks_for(offsets.size, THREADS), THREADS,
            offsets, room.masks, room.bases, ends,
        )  # fmt: skip
        self._gpu.synchronize()
        return Ragged(values, ends)
