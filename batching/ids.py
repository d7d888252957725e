"""Ids of requests, and which place each has: a map of arrays, for millions of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ids import TAIL, append_ids, find_id, find_ids, insert_ids, mark_ids

__all__ = ["IdMap", "check_id"]

FULL = 2 / 3
"""Share of the slots beyond which the table grows."""
GROWTH = 16
"""What is full grows by one part in so many: the memory to spare counts more than the time."""
CHUNK = 2048
"""Ids that are looked up at once: their texts stay in the processor's cache."""

_PAD = bytes(TAIL)
_WORD = bytes(8)
_END = "\0" * TAIL


def check_id(name: Any, place: Any = None) -> str | int:
    """Return an id as a plain ``str`` or ``int``.

    Raises
    ------
    InputError
        If it is neither a text that is not empty nor a whole number.
    """
    if isinstance(name, str) and name:
        return str(name)
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return int(name)
    at = "an id" if place is None else f"id {place}"
    raise InputError(f"{at} is {name!r}, should be a non-empty text or a whole number")


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
        self._count = 0
        self._data = np.zeros(TAIL, np.uint8)
        self._marks = np.zeros(1, np.int64)
        self._slots = np.zeros(1, np.uint64)
        self._table = _addresses(self._data, self._marks, self._slots)
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
            return _find(key + _WORD, len(key), 0, self._table)
        if isinstance(name, bool) or not isinstance(name, str | int | np.integer):
            return -1
        key, kind = _key(name)
        return _find(key + _WORD, len(key), kind, self._table)

    def index_of(self, ids: Sequence[str | int] | np.ndarray) -> np.ndarray:
        """Return the places of many ids, intp, shape (len(ids),); -1 where one is not there."""
        if not isinstance(ids, list) or len(ids) <= CHUNK:
            return self._places(*_flatten(ids))
        chunks = range(0, len(ids), CHUNK)
        return np.concatenate([self._places(*_flatten(ids[i : i + CHUNK], i)) for i in chunks])

    def _places(self, data: np.ndarray, marks: np.ndarray, gap: int) -> np.ndarray:
        out = np.empty(len(marks) - 1, np.intp)
        find_ids(data, marks, gap, self._data, self._marks, self._slots, out)
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
        mark, end = int(self._marks[place]), int(self._marks[place + 1]) >> 1
        key = self._data[mark >> 1 : end].tobytes()
        if mark & 1:
            return int.from_bytes(key, "little", signed=True)
        return key.decode(errors="surrogatepass")

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the map holds, those of the ids included."""
        return self._data.nbytes + self._marks.nbytes + self._slots.nbytes

    def add(self, name: str | int) -> int:
        """Add an id and return its place.

        Raises
        ------
        InputError
            If it is not an id, or is there already.
        """
        key, kind = _key(check_id(name, self._count))
        used, place = int(self._marks[self._count]) >> 1, self._count
        self._reserve(1, len(key))
        self._data[used : used + len(key)] = np.frombuffer(key, np.uint8)
        self._marks[place] += kind
        self._marks[place + 1] = 2 * (used + len(key))
        self._insert(place + 1)
        return place

    def extend(self, ids: Iterable[str | int] | np.ndarray) -> None:
        """Add many ids; where one cannot be added, none is."""
        data, marks, gap = _flatten(ids)
        count = len(marks) - 1
        self._reserve(count, (int(marks[-1]) >> 1) - count * gap)
        append_ids(data, marks, gap, self._count, self._data, self._marks)
        self._insert(self._count + count)

    def _insert(self, last: int) -> None:
        repeated, earlier = insert_ids(self._count, last, self._data, self._marks, self._slots)
        if repeated >= 0:
            name = self._taken_back(last, repeated)
            raise InputError(f"id {name!r} stands at {earlier} and at {repeated}, should be unique")
        self._count = last

    def _taken_back(self, last: int, repeated: int) -> str | int:
        """Forget the ids that were being added; return the one that could not be."""
        first, self._count = self._count, last
        name = self.id_at(repeated)
        self._count = first
        self._marks[first] &= ~1
        self._rebuild(len(self._slots))
        self._table = _addresses(self._data, self._marks, self._slots)
        return name

    def _reserve(self, count: int, size: int) -> None:
        total, before = self._count + count, (self._data, self._marks, self._slots)
        if total + 1 > len(self._marks):
            self._marks = _grown(self._marks, total + 1)
        used = int(self._marks[self._count]) >> 1
        if used + size + TAIL > len(self._data):
            self._data = _grown(self._data, used + size + TAIL)
        if total >= FULL * len(self._slots):
            grown = len(self._slots) * (GROWTH + 1) // GROWTH + 16 if self._count else 0
            self._rebuild(max(int(total / FULL) + 2, grown))
        after = (self._data, self._marks, self._slots)
        if any(new is not old for new, old in zip(after, before, strict=True)):
            self._table = _addresses(*after)

    def _rebuild(self, slots: int) -> None:
        if slots >= 2**32:
            raise InputError(f"{self._count} ids are too many for one map")
        self._slots = np.zeros(slots, np.uint64)
        insert_ids(0, self._count, self._data, self._marks, self._slots)


def _addresses(*arrays: np.ndarray) -> np.ndarray:
    """Return where arrays lie, and the length of the last, as ``find_id`` wants them."""
    return np.array([*(each.ctypes.data for each in arrays), len(arrays[-1])], np.int64)


def _compiled_find() -> Callable[..., int]:
    """Return the look-up's machine code itself: to choose it by its arguments takes 300 ns."""
    data, marks, slots = np.zeros(TAIL, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.uint64)
    find_id(_WORD, 0, 0, _addresses(data, marks, slots))
    (compiled,) = find_id.overloads.values()
    entry: Callable[..., int] = compiled.entry_point
    return entry


_find = _compiled_find()


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """Return a copy with room for more: exactly enough at first, then with some to spare."""
    first = len(array) <= TAIL
    spare = 0 if first else len(array) * (GROWTH + 1) // GROWTH + 16
    grown = np.zeros(max(size, spare), array.dtype)
    grown[: len(array)] = array
    return grown


def _key(name: Any) -> tuple[bytes, int]:
    """Return the bytes of an id and its kind: 0 for a text, 1 for a whole number."""
    if isinstance(name, str):
        return name.encode(errors="surrogatepass"), 0
    number = int(name)
    size = max(8, number.bit_length() // 8 + 1)
    return number.to_bytes(size, "little", signed=True), 1


def _flatten(ids: Iterable[Any], first: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay ids out as the kernels want them: bytes with a tail, marks, and the gap after each.

    ``first`` is the place of the first of them, for messages.
    """
    if isinstance(ids, np.ndarray):
        if ids.ndim == 1 and ids.dtype.kind in "iu" and (ids.dtype != np.uint64 or ids.size == 0):
            return _numbers(ids.astype(np.int64))
        ids = ids.tolist()
    elif isinstance(ids, str):
        raise InputError(f"ids are {ids!r}, should be a list of ids")
    names = ids if isinstance(ids, list) else list(ids)
    if names and isinstance(names[0], str):
        texts = _texts(names)
        if texts is not None:
            return texts
    kinds = set(map(type, names))
    if kinds == {int} and min(names) >= -(2**63) and max(names) < 2**63:
        return _numbers(np.array(names, np.int64))
    keys = [_key(check_id(name, first + i)) for i, name in enumerate(names)]
    ends = np.fromiter(itertools.accumulate((len(key) for key, _ in keys), initial=0), np.int64)
    marks = 2 * ends
    marks[:-1] += np.fromiter((kind for _, kind in keys), np.int64, len(keys))
    return np.frombuffer(b"".join(key for key, _ in keys) + _PAD, np.uint8), marks, 0


def _texts(names: list[str]) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Lay out texts by joining them at zero bytes, which is fastest; None if they hold any.

    Also None where one is empty, or is no text.
    """
    try:
        joined = "\0".join([*names, _END])
    except TypeError:
        return None
    data = np.frombuffer(joined.encode(errors="surrogatepass"), np.uint8)
    marks = np.empty(len(names) + 1, np.int64)
    return (data, marks, 1) if mark_ids(data, marks) else None


def _numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    data = np.concatenate([values.astype("<i8").view(np.uint8), np.zeros(TAIL, np.uint8)])
    marks = 16 * np.arange(len(values) + 1, dtype=np.int64)
    marks[:-1] += 1
    return data, marks, 0
