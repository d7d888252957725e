"""The thread that runs the engine while there are jobs."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from numbatch.batching.engine import Engine

__all__ = ["Service"]


CALLS = 4096
"""The most calls between two steps: a long list of requests shall not hold up what runs."""


class Served(Protocol):
    """A job, as the thread sees it."""

    def stepped(self) -> None:
        """Note that a step was run."""

    def abort(self, error: BaseException) -> None:
        """End the job: the engine failed."""


class Service:
    """Runs steps of an engine in a thread of its own, for as long as a job is open.

    Kernels release the GIL, so the caller's own work goes on meanwhile. What others want done to
    the engine is handed over with :meth:`call` and done between two steps.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], object]] = deque()
        self._jobs: list[Served] = []
        self._thread: threading.Thread | None = None
        self._is_closing = False
        reference = weakref.ref(self)
        atexit.register(_close, reference)

    @property
    def is_active(self) -> bool:
        """Whether a job is open."""
        return bool(self._jobs)

    def open(self, job: Served) -> None:
        """Begin to serve a job."""
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="numbatch", daemon=True)
                self._thread.start()

    def leave(self, job: Served) -> None:
        """End serving a job; the thread ends after the last."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            self._changed.notify_all()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called between two steps."""
        with self._changed:
            self._calls.append(function)
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread after the step that it is in."""
        with self._changed:
            self._is_closing = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        try:
            while self._wait_for_work():
                for _ in range(min(len(self._calls), CALLS)):
                    self._calls.popleft()()
                if self.engine.has_work:
                    self.engine.step()
                    for job in list(self._jobs):
                        job.stepped()
        except BaseException as error:
            with self._changed:
                jobs, self._jobs, self._thread = self._jobs, [], None
            for job in jobs:
                job.abort(error)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._is_closing:
                if self._calls or (self._jobs and self.engine.has_work):
                    return True
                if not self._jobs:
                    break
                self._changed.wait()
            self._thread = None
            return False


def _close(reference: weakref.ref[Service]) -> None:
    service = reference()
    if service is not None:
        service.close()
