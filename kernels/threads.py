"""A team of threads that share the items of a kernel call.

The seam between the kernels and however they are spread over cores. A kernel for a team takes
``(start, stop, ...)`` and works on items ``start`` to ``stop - 1``, which touch nothing that
another range touches; so no result depends on how many threads there are.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.fork_join import dismiss, new_board, rest, serve

__all__ = ["Call", "TeamKernel", "ThreadTeam"]


class Call(NamedTuple):
    """One kernel call to be shared out.

    Parameters
    ----------
    kernel : function
        A compiled kernel, called as ``kernel(start, stop, *scratch rows, *args)``.
    items : int
        How many items there are; nothing is called for 0.
    args : tuple
        What every range is handed.
    scratch : array, shape (threads, ...), or a tuple of such arrays
        Working memory; each thread is handed a row of each.
    grain : int
        Ranges start at multiples of it; so few items stay on one thread.
    """

    kernel: Callable[..., None]
    items: int
    args: tuple[Any, ...]
    scratch: np.ndarray | tuple[np.ndarray, ...] = ()
    grain: int = 1

    def run_part(self, part: int, parts: int) -> None:
        """Call the kernel on range ``part`` of ``parts``."""
        grains = -(-self.items // self.grain)
        start = min(self.items, grains * part // parts * self.grain)
        stop = min(self.items, grains * (part + 1) // parts * self.grain)
        if start < stop:
            memories = self.scratch if isinstance(self.scratch, tuple) else (self.scratch,)
            scratch = (memory[part] for memory in memories)
            self.kernel(start, stop, *scratch, *self.args)


@dataclass(frozen=True, slots=True)
class TeamKernel:
    """A kernel that all threads of a team run at a time.

    Parameters
    ----------
    part : function
        What a thread does, called as ``part(thread, threads, *args)``.
    launch : function
        A compiled kernel, called as ``launch(board, threads, *args)``; it hands the entry of
        ``part`` and the arguments to ``fork_join.call_on_team`` and returns what that returns.
    """

    part: Callable[..., None]
    launch: Callable[..., int]


class ThreadTeam:
    """Threads that run kernels side by side; kernels release the GIL.

    Parameters
    ----------
    threads : int or None
        How many threads, the caller's included. None: Numba's number (``NUMBA_NUM_THREADS``, else
        the number of cores).

    Raises
    ------
    InputError
        If ``threads`` is less than 1.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, should be at least 1")
        self.threads = int(threads or numba.config.NUMBA_NUM_THREADS)
        self._pool: ThreadPoolExecutor | None = None
        self._owner = self._board_owner = 0
        self._board: np.ndarray | None = None
        self._calling = threading.Lock()  # the board has room for one call

    def run(self, *calls: Call) -> None:
        """Run calls that do not depend on each other, shared over the team, and wait.

        They are forked and joined once together, which matters where each is short.
        """
        parts = min(self.threads, max(-(-call.items // call.grain) for call in calls))
        if parts <= 1:
            _run_part(calls, 0, 1)
            return
        if self._board is not None:
            rest(self._board)
        executor = self._executor()
        pending = [executor.submit(_run_part, calls, part, parts) for part in range(1, parts)]
        try:
            _run_part(calls, 0, parts)
        finally:  # the arrays are in use until every thread is done, even if this one failed
            for future in pending:
                future.result()

    def run_together(self, kernel: TeamKernel, *args: Any) -> None:
        """Call a kernel's part on all threads at a time, and wait.

        They may wait for each other inside (``barrier.meet``).

        Raises
        ------
        RuntimeError
            If the kernel raised on a thread.
        """
        with self._calling:
            if kernel.launch(self._served_board(), self.threads, *args):
                raise RuntimeError(f"{kernel.part.__name__} failed on a thread")

    def _served_board(self) -> np.ndarray:
        """Return the board that the other threads look at; they are started at the first call."""
        if self._board is None or self._board_owner != os.getpid():
            self._board, self._board_owner = new_board(), os.getpid()
            for thread in range(1, self.threads):
                args = (self._board, 0, thread, self.threads)
                # It waits in compiled code, where Python's end finds nothing to clean up.
                threading.Thread(target=serve, args=args, name="numbatch", daemon=True).start()
            if self.threads > 1:
                weakref.finalize(self, dismiss, self._board).atexit = False
        return self._board

    def _executor(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork: a child makes a pool of its own.
        if self._pool is None or self._owner != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="numbatch")
            self._owner = os.getpid()
        return self._pool


def _run_part(calls: Sequence[Call], part: int, parts: int) -> None:
    for call in calls:
        call.run_part(part, parts)
