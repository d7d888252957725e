"""A model in a process of its own, which its methods are called in by turns with others.

llama.cpp sets up the CPU's tile registers once for each thread and never again: where Numbatch or
torch used them in between, it dies. So each has threads of its own, which sleep while others run.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Process"]


def _serve(pipe: Any, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    model = make(*args)
    pipe.send(model.name)
    while (call := pipe.recv()) is not None:
        method, given = call
        begin = time.perf_counter()
        result = getattr(model, method)(*given)
        pipe.send((time.perf_counter() - begin, result))


class Process:
    """Makes a model in a new process.

    Parameters
    ----------
    make : function
        Called there with ``args``; returns a model with a ``name``.

    Raises
    ------
    EOFError
        If the process died.
    """

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
        self._process.start()
        theirs.close()
        self.name = str(self._pipe.recv())

    def call(self, method: str, *args: Any) -> tuple[float, Any]:
        """Return how long a method took, there, and what it returned."""
        self._pipe.send((method, args))
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()
