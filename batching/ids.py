"""Ids of requests, and which place each has: a map of arrays, for millions of them."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from numbatch.batching.id_bytes import PAD, check_id, flatten, joined, key_of
from numbatch.errors import InputError
from numbatch.kernels.aligned import aligned
from numbatch.kernels.id_queue import QUEUE, find_ids
from numbatch.kernels.id_texts import COMPACT_ASCII, find_strings, find_texts
from numbatch.kernels.ids import (
    EVERY,
    GROUP,
    HEADER,
    TAIL,
    append_ids,
    find_id,
    insert_ids,
    start_of,
)
from numbatch.kernels.page_order import BUCKETS
from numbatch.models.tokenizers.flat_text import string_layout

__all__ = ["IdMap", "check_id"]

FULL = 3 / 4
"""Share of the slots beyond which the table grows."""
GROWTH = 16
"""What is full grows by one part in so many: the memory to spare counts more than the time."""
CHUNK = 512
"""Texts that are joined at once: they stay in the processor's nearest cache meanwhile."""
AT_ONCE = 1 << 14
"""Strings that are looked up at once where they lie; other threads wait meanwhile."""
MANY, MOST = 1 << 19, 1 << 20
"""From so many strings on, those of a page are put together, among so many at most."""
LONGEST = 2**31 - 1
"""Bytes of an id."""

_WORD = bytes(8)


class IdMap:
    """Maps ids to their places 0, 1, 2, ... in the order in which they were added.

    An id is a text, of any Unicode, or a whole number of any size; the text ``"1"`` and the number
    1 are two ids. Beside the ids' bytes (UTF-8, or 8 of a number) an id takes at most 24 bytes. All
    look-ups take a time that does not depend on how many ids there are.

    Parameters
    ----------
    ids : iterable of str and int

    Raises
    ------
    InputError
        If an id is empty, of another type, or there twice; the message gives both places.

    Examples
    --------
    >>> ids = IdMap(["a", "b", 7])
    >>> ids["b"], 7 in ids, "7" in ids, ids.index_of([7, "a", "x"]).tolist()
    (1, True, False, [2, 0, -1])
    """

    def __init__(self, ids: Iterable[str | int] = ()) -> None:
        self._count = self._used = 0
        self._data = np.zeros(TAIL, np.uint8)
        self._starts = np.zeros(1, np.int64)
        self._slots = aligned((1, GROUP), np.uint64)
        self._table = _addresses(self._data, self._slots)
        self._find = _one_look_up()
        self.extend(ids)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: object) -> bool:
        return self.get(name) >= 0

    def __iter__(self) -> Iterator[str | int]:
        return (self.id_at(place) for place in range(self._count))

    def __getitem__(self, name: str | int) -> int:
        """Return the place of an id; raise InputError if it is not there."""
        place = self.get(name)
        if place < 0:
            raise InputError(f"there is no id {name!r}")
        return place

    def get(self, name: Any) -> int:
        """Return the place of an id, or -1."""
        if type(name) is str:
            try:
                key = name.encode()
            except UnicodeEncodeError:
                key = name.encode(errors="surrogatepass")
            return self._find(key + _WORD, 2 * len(key), self._table)
        if isinstance(name, bool) or not isinstance(name, str | int | np.integer):
            return -1
        key, kind = key_of(name)
        return self._find(key + _WORD, 2 * len(key) + kind, self._table)

    def index_of(self, ids: Sequence[str | int] | np.ndarray) -> np.ndarray:
        """Return the places of many ids; -1 where one is not there.

        Returns
        -------
        intp array, shape (len(ids),)

        Notes
        -----
        Texts of a list are read where they lie. From 524,288 on, if they lie strewn over memory,
        those of a page are read together: that takes 12 bytes an id meanwhile, 12 MB at most.
        """
        if not isinstance(ids, list):
            return self._places(*flatten(ids))
        out, queue, begin = np.empty(len(ids), np.intp), _queue(), 0
        strings, texts = _look_ups()
        ordered, order = _order_memory(len(ids))
        while begin < len(out):
            if strings is not None:
                size = min(len(order) or AT_ONCE, len(out) - begin)
                done = strings(
                    id(ids), begin, size, _LAYOUT, self._table, queue, ordered, order, out
                )
                if done < 0:
                    ordered, order = _NO_ORDER
                begin += max(done, 0)
                if done:
                    continue
            some = ids[begin : min(begin + CHUNK, len(out))]
            if not some:
                raise InputError(f"the list of ids shrank to {len(ids)} while it was looked up")
            whole = joined(some)
            if whole is None or not texts(whole, len(some), begin, self._table, queue, out):
                out[begin : begin + len(some)] = self._places(*flatten(some, begin))
            begin += len(some)
        return out

    def _places(self, data: np.ndarray, marks: np.ndarray, gap: int) -> np.ndarray:
        out = np.empty(len(marks) - 1, np.intp)
        find_ids(data, marks, gap, self._data, self._slots, _queue(), out)
        return out

    def id_at(self, place: int) -> str | int:
        """Return the id at a place.

        Raises
        ------
        InputError
            If there is no such place.
        """
        if not 0 <= place < self._count:
            raise InputError(f"there is no place {place} among {self._count} ids")
        begin = start_of(place, self._data, self._starts)
        head = int.from_bytes(self._data[begin + 4 : begin + HEADER].tobytes(), "little")
        key = self._data[begin + HEADER : begin + HEADER + (head >> 1)].tobytes()
        if head & 1:
            return int.from_bytes(key, "little", signed=True)
        return key.decode(errors="surrogatepass")

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the map holds, those of the ids included."""
        return self._data.nbytes + self._starts.nbytes + self._slots.nbytes

    def add(self, name: str | int) -> int:
        """Add an id and return its place.

        Raises
        ------
        InputError
            If it is not an id, or is there already.
        """
        key, kind = key_of(check_id(name, self._count))
        marks = np.array([kind, 2 * len(key)], np.int64)
        self._append(np.frombuffer(key + PAD, np.uint8), marks, 0)
        return self._count - 1

    def extend(self, ids: Iterable[str | int] | np.ndarray) -> None:
        """Add many ids; where one cannot be added, none is."""
        self._append(*flatten(ids))

    def _append(self, data: np.ndarray, marks: np.ndarray, gap: int) -> None:
        first, begin, count = self._count, self._used, len(marks) - 1
        own = (int(marks[-1]) >> 1) - count * gap
        if own > LONGEST and int(np.diff(marks >> 1).max()) > LONGEST:
            raise InputError(f"an id has more than {LONGEST} bytes")
        self._reserve(count, own + HEADER * count)
        end = append_ids(data, marks, gap, first, begin, self._data, self._starts)
        self._count, self._used = first + count, end
        repeated, earlier = insert_ids(begin, end, self._data, self._slots)
        if repeated >= 0:
            name = self.id_at(repeated)
            self._count, self._used = first, begin
            self._rebuild(len(self._slots))
            self._table = _addresses(self._data, self._slots)
            raise InputError(f"id {name!r} stands at {earlier} and at {repeated}, should be unique")

    def _reserve(self, count: int, size: int) -> None:
        total, before = self._count + count, (self._data, self._slots)
        if total > EVERY * len(self._starts):
            self._starts = _grown(self._starts, -(-total // EVERY))
        if self._used + size + TAIL > len(self._data):
            self._data = _grown(self._data, self._used + size + TAIL)
        if total >= FULL * self._slots.size:
            grown = len(self._slots) * (GROWTH + 1) // GROWTH + 2 if self._count else 0
            self._rebuild(max(int(total / FULL / GROUP) + 1, grown))
        if self._data is not before[0] or self._slots is not before[1]:
            self._table = _addresses(self._data, self._slots)

    def _rebuild(self, groups: int) -> None:
        if GROUP * groups >= 2**32 or len(self._data) >= 2**40:
            raise InputError(f"{self._count} ids are too many for one map")
        self._slots = aligned((groups, GROUP), np.uint64)
        insert_ids(0, self._used, self._data, self._slots)


def _addresses(*arrays: np.ndarray) -> np.ndarray:
    """Return where arrays lie, and the length of the last, as ``find_id`` wants them."""
    return np.array([*(each.ctypes.data for each in arrays), len(arrays[-1])], np.int64)


def _queue() -> np.ndarray:
    """Return memory for the look-ups of one call."""
    return np.zeros(QUEUE, np.int64)


def _order_memory(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return memory for putting strings of a page together; empty where they are too few."""
    if count < MANY:
        return _NO_ORDER
    size = min(count, MOST)
    return np.empty(size + BUCKETS + 1, np.int64), np.empty(size, np.int32)


_NO_ORDER = np.empty(0, np.int64), np.empty(0, np.int32)


def _entry(kernel: Any, *arguments: Any) -> Callable[..., Any]:
    """Return a kernel's machine code itself: to choose it by its arguments takes 300 ns."""
    kernel(*arguments)
    (compiled,) = kernel.overloads.values()
    entry: Callable[..., Any] = compiled.entry_point
    return entry


_NO_IDS = np.zeros(TAIL, np.uint8), aligned((1, GROUP), np.uint64)
_NOTHING = _addresses(*_NO_IDS)
"""A map without ids, whose arrays must live as long as their addresses are used."""
_LAYOUT = np.zeros(3, np.int64)


@functools.cache
def _one_look_up() -> Callable[..., int]:
    """Return the look-up of one id; loaded for the first map, since many processes have none."""
    return _entry(find_id, _WORD, 0, _NOTHING)


@functools.cache
def _look_ups() -> tuple[Callable[..., int] | None, Callable[..., bool]]:
    """Return the look-ups of strings in a list and of texts that are joined.

    The first is None where it is not known how this Python keeps its lists and strings.
    """
    out = np.zeros(1, np.intp)
    texts = _entry(find_texts, PAD, 0, 0, _NOTHING, _queue(), out)
    layout, rows = string_layout(), ["a", "b"]
    if layout is None or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return None, texts
    items = ctypes.c_int64.from_address(id(rows) + 24).value
    if list((ctypes.c_int64 * 2).from_address(items)) != [id(row) for row in rows]:
        return None, texts
    _LAYOUT[:] = id(str), layout[0], COMPACT_ASCII
    strings = _entry(find_strings, id(rows), 0, 0, _LAYOUT, _NOTHING, _queue(), *_NO_ORDER, out)
    return strings, texts


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """Return a copy with room for more: exactly enough at first, then with some to spare."""
    first = len(array) <= TAIL
    spare = 0 if first else len(array) * (GROWTH + 1) // GROWTH + 16
    grown = np.zeros(max(size, spare), array.dtype)
    grown[: len(array)] = array
    return grown
