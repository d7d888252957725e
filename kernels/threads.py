"""A team of threads that share the items of a kernel call.

The seam between the kernels and however they are spread over cores. A kernel for a team takes
``(start, stop, ...)`` and works on items ``start`` to ``stop - 1``, which touch nothing that
another range touches; so no result depends on how many threads there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from numbatch.errors import InputError

__all__ = ["Call", "ThreadTeam"]


@dataclass(frozen=True, slots=True)
class Call:
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
        self._owner = 0

    def run(self, *calls: Call) -> None:
        """Run calls that do not depend on each other, shared over the team, and wait.

        They are forked and joined once together, which matters where each is short.
        """
        parts = min(self.threads, max(-(-call.items // call.grain) for call in calls))
        if parts <= 1:
            _run_part(calls, 0, 1)
            return
        executor = self._executor()
        pending = [executor.submit(_run_part, calls, part, parts) for part in range(1, parts)]
        try:
            _run_part(calls, 0, parts)
        finally:  # the arrays are in use until every thread is done, even if this one failed
            for future in pending:
                future.result()

    def run_together(self, kernel: Callable[..., None], *args: Any) -> None:
        """Call ``kernel(thread, threads, *args)`` on all threads at a time, and wait.

        They may wait for each other inside (``barrier.meet``).
        """
        executor = self._executor() if self.threads > 1 else None
        pending = [
            executor.submit(kernel, thread, self.threads, *args)
            for thread in range(1, self.threads)
            if executor is not None
        ]
        try:
            kernel(0, self.threads, *args)
        finally:
            for future in pending:
                future.result()

    def _executor(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork: a child makes a pool of its own.
        if self._pool is None or self._owner != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="numbatch")
            self._owner = os.getpid()
        return self._pool


def _run_part(calls: Sequence[Call], part: int, parts: int) -> None:
    for call in calls:
        call.run_part(part, parts)
