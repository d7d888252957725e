"""The working memory of the threads that encode, which holds their caches of pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from numbatch.kernels.tokenization.encode_bytes import new_state

__all__ = ["EncoderStates"]


class EncoderStates:
    """States that calls borrow: none is in use twice at a time.

    Parameters
    ----------
    slots : function
        Returns how many entries a new state's cache has, a power of two.
    """

    def __init__(self, slots: Callable[[], int]) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._free: list[np.ndarray] = []
        self._epoch = 0

    def clear(self) -> None:
        """Give the memory back; what is in use goes when it is returned."""
        with self._lock:
            self._epoch += 1
            self._free = []

    def take(self, count: int) -> tuple[int, list[np.ndarray]]:
        """Return so many states, the same in the same order as to the call before, and a ticket.

        So a thread finds in its cache what it has put there, where texts are encoded once more.
        """
        with self._lock:
            ticket = self._epoch
            states, self._free = self._free[:count], self._free[count:]
        return ticket, states + [new_state(self._slots()) for _ in range(count - len(states))]

    def put_back(self, ticket: int, states: list[np.ndarray]) -> None:
        """Take back what :meth:`take` has given."""
        with self._lock:
            if ticket == self._epoch:
                self._free = states + self._free
