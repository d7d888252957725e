"""Parts of texts that are encoded by themselves, and how they are shared out among threads."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.tokenization.gather import cut_points

__all__ = ["Stretches", "equal_shares"]


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


def equal_shares(done: np.ndarray, parts: int) -> np.ndarray:
    """Return the first item of each part and the number of items, parts being alike in size.

    Parameters
    ----------
    done : int64 array, shape (items,)
        The sizes of the items up to each, added up.
    parts : int
        How many parts at most; none is empty.

    Returns
    -------
    int64 array, shape (parts + 1,)
    """
    if parts == 1 or done.size < 2:
        return np.array([0, done.size])
    firsts = 1 + np.searchsorted(done, done[-1] * np.arange(1, parts) // parts)
    return np.unique(np.concatenate([[0], firsts, [done.size]]))
