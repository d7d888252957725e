"""A job: requests that were submitted together, and their results as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from numbatch.batching.batch_result import BatchResponse, BatchResult, BatchStats
from numbatch.batching.job_book import JobBook
from numbatch.batching.job_readers import CompletedReader, EventReader
from numbatch.batching.request import Request
from numbatch.batching.results import FailedResult, Result
from numbatch.batching.sequence import Sequence
from numbatch.batching.service import Service
from numbatch.errors import InputError

__all__ = ["Job"]


class Job:
    """Requests that are served in the background; made by :meth:`LLM.submit`.

    Two threads work for a job: one reads and tokenizes requests; one, which all jobs of a model
    share, runs the engine. Requests of a list are all queued; an iterator is read at most
    ``lookahead`` requests ahead of the results.

    Parameters
    ----------
    service : Service
    requests : iterable of Request
    prepare : function
        Makes a request ready for the engine; raises InputError where that cannot be.
    lookahead : int
        For an iterator: the most requests that are read and not finished (``keep_results=False``:
        not read by the caller).
    keep_results : bool
        Whether results stay until the job itself goes. If not, each result goes to the one
        reader that comes first, and where nobody reads, no more requests are read; of an iterator
        ids are unique among what is not finished, and are then forgotten.
    on_result : function, optional
        Called with each :class:`BatchResponse` on the engine's thread. If it raises, it is not
        called again; the job goes on, and the exception comes out where the job ends.
    """

    def __init__(
        self,
        service: Service,
        requests: Iterable[Request],
        prepare: Callable[[Request], Request],
        *,
        lookahead: int,
        keep_results: bool = True,
        on_result: Callable[[BatchResponse], Any] | None = None,
    ) -> None:
        self.changed = threading.Condition()
        self.wakers: list[Callable[[], None]] = []
        self.is_done = False
        self._service, self._prepare = service, prepare
        self._on_result = on_result
        self._book = JobBook(requests, keep_results)
        whole = self._book.given and keep_results
        self._lookahead = None if whole else lookahead
        self._sequences: dict[int, Sequence] = {}
        self._places: dict[Sequence, int] = {}
        self._cancelled: set[int] = set()
        self._is_read = self._is_cancelled = False
        self._error: BaseException | None = None
        self._begin, self._end = time.perf_counter(), 0.0
        service.open(self)
        threading.Thread(
            target=self._feed, args=(requests,), name="numbatch-requests", daemon=True
        ).start()

    def __len__(self) -> int:
        """How many requests have been read so far."""
        return self._book.read

    def __contains__(self, name: object) -> bool:
        with self.changed:
            return self._book.has(name)

    def __getitem__(self, name: str | int) -> BatchResponse:
        """Return the response to an id, when it is there: waits for it.

        Raises
        ------
        InputError
            If there is no such id, or results are not kept.
        """
        with self.changed:
            place = self._place(name)
            while (response := self._book.at(place)) is None and not self.is_done:
                self.changed.wait()
        if response is None:
            self.raise_error()
            raise InputError(f"request {name!r} was given up")
        return response

    def get_by_id(self, name: str | int) -> BatchResponse | None:
        """Return the response to an id, None where it is not finished; does not wait.

        Raises
        ------
        InputError
            If there is no such id, or results are not kept.
        """
        return self._book.at(self._place(name))

    def index_of(self, ids: Collection[str | int] | np.ndarray) -> np.ndarray:
        """Return the places of many ids, intp, shape (len(ids),); -1 where one is not there."""
        with self.changed:
            return self._book.index_of(ids)

    def as_completed(self) -> CompletedReader:
        """Iterate over the responses as they finish, with ``for`` or ``async for``.

        With ``keep_results``, each call begins anew with the response that finished first.
        """
        return CompletedReader(self)

    def stream(self) -> EventReader:
        """Iterate over token events, with ``for`` or ``async for``."""
        return EventReader(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every request is finished; return whether that is so."""
        with self.changed:
            return self.changed.wait_for(lambda: self.is_done, timeout)

    def result(self) -> BatchResult:
        """Wait for all responses and return them in the order of the requests.

        Raises
        ------
        InputError
            If results are not kept, or two requests of an iterator have one id.
        Exception
            What the iterator of requests or ``on_result`` raised.
        """
        self._check_kept()
        self.wait()
        self.raise_error()
        return BatchResult(self._book.responses(), self._book.ids, self.stats())

    def cancel(self, name: str | int | None = None) -> bool:
        """Give one request up, or all that are not finished; return whether there were any.

        They end with a :class:`FailedResult` that says ``cancelled``. Of an iterator nothing more
        is read if all are cancelled.
        """
        with self.changed:
            place = None if name is None else self._book.place(name)
            if self.is_done:
                return False
            if place is None:
                self._is_cancelled = True
                places = list(self._book.live)
            elif place < self._book.read and place not in self._book.live:
                return False
            else:
                places = [place]
            self._cancelled.update(places)
            self._service.call(lambda: self._give_up(places))
            self.changed.notify_all()
            return True

    def stats(self) -> BatchStats:
        """Return what the job came to; so far, if it is not done."""
        with self.changed:
            end = self._end if self.is_done else time.perf_counter()
            return self._book.stats(end - self._begin)

    def raise_error(self) -> None:
        """Raise what ended the reading of requests, or what ``on_result`` raised."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    # What follows is for the two threads and for readers.

    def finished_at(self, place: int) -> BatchResponse | None:
        """Return the response that finished as number ``place``; the next, if none are kept."""
        response = self._book.finished_at(place)
        if response is not None and not self._book.keeps:
            self.changed.notify_all()  # there is room for another request
        return response

    def running(self) -> list[tuple[int, Sequence]]:
        """Return the sequences that run, with their places."""
        running = list(self._service.engine.scheduler.running)
        return [(self._places[each], each) for each in running if each in self._places]

    def stepped(self) -> None:
        """Wake the readers."""
        with self.changed:
            self._wake()

    def abort(self, error: BaseException) -> None:
        """End the job: the engine failed."""
        engine = self._service.engine
        for sequence in list(self._sequences.values()):
            engine.cancel(sequence, f"the engine failed: {error}")
        with self.changed:
            self._error = self._error or error
            self._is_cancelled = True
            self._finish_job()

    def _place(self, name: str | int) -> int:
        self._check_kept()
        with self.changed:
            return self._book.place(name)

    def _check_kept(self) -> None:
        if not self._book.keeps:
            raise InputError("results are not kept (keep_results=False): read as_completed()")

    def _wake(self) -> None:
        self.changed.notify_all()
        wakers, self.wakers = self.wakers, []
        for wake in wakers:
            wake()

    def _feed(self, requests: Iterable[Request]) -> None:
        """Read requests while there is room, and hand them to the engine."""
        try:
            source = iter(requests)
            while self._has_room():
                try:
                    request = next(source)
                except StopIteration:
                    break
                self._start(self._accept(request), request)
        except BaseException as error:  # the caller's iterator may raise anything
            self._error = self._error or error
        with self.changed:
            self._is_read = True
            if not self._book.live:
                self._finish_job()

    def _has_room(self) -> bool:
        """Wait until one more request may be read; False if none is wanted."""
        with self.changed:
            while not self._is_cancelled and self._lookahead is not None:
                if len(self._book.live) + self._book.untaken < self._lookahead:
                    break
                self.changed.wait()
            return not self._is_cancelled or self._book.given

    def _accept(self, request: Request) -> int:
        with self.changed:
            place = self._book.accept(request)
            if self._is_cancelled:
                self._cancelled.add(place)
            return place

    def _start(self, place: int, request: Request) -> None:
        try:
            ready = self._prepare(request)
        except InputError as error:
            self._finish(place, request.id, FailedResult(request.id, str(error)))
        else:
            self._service.call(lambda: self._submit(place, ready))

    def _submit(self, place: int, request: Request) -> None:
        """Queue a request; runs on the engine's thread, as what follows."""
        if place in self._cancelled:
            self._finish(place, request.id, FailedResult(request.id, "cancelled"))
            return
        try:
            sequence = self._service.engine.submit(
                request, lambda _, result: self._finish(place, request.id, result)
            )
        except InputError as error:
            self._finish(place, request.id, FailedResult(request.id, str(error)))
            return
        if sequence is not None:
            self._sequences[place] = sequence
            self._places[sequence] = place

    def _give_up(self, places: list[int]) -> None:
        for place in places:
            sequence = self._sequences.get(place)
            if sequence is not None:
                self._service.engine.cancel(sequence)

    def _finish(self, place: int, name: str | int, result: Result) -> None:
        """Take in a result."""
        response = self._book.response(place, name, result)
        if self._on_result is not None:
            try:
                self._on_result(response)
            except Exception as error:  # the caller's function may raise anything
                self._error = self._error or error
                self._on_result = None
        with self.changed:
            sequence = self._sequences.pop(place, None)
            if sequence is not None:
                del self._places[sequence]
            self._cancelled.discard(place)
            self._book.finish(response)
            if self._is_read and not self._book.live:
                self._finish_job()
            self._wake()

    def _finish_job(self) -> None:
        if not self.is_done:
            self.is_done = True
            self._end = time.perf_counter()
            self._service.leave(self)
        self._wake()
