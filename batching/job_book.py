"""What a job knows of its requests: their ids and places, which are not finished, and responses."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from numbatch.batching.batch_result import BatchResponse, BatchStats, result_tokens
from numbatch.batching.ids import IdMap
from numbatch.batching.request import Request
from numbatch.batching.results import Result
from numbatch.errors import InputError

__all__ = ["JobBook", "check_request", "check_requests"]


class JobBook:
    """Keeps account of a job's requests. Not safe for threads: the job's lock is held.

    Parameters
    ----------
    requests : iterable of Request
        Those of a list are known at once, those of an iterator as they are accepted.
    keeps : bool
        Whether responses are kept. If not, each is given out once; and of an iterator, which may be
        endless, an id is forgotten when its request is finished, so that memory stays bounded.

    Attributes
    ----------
    given : bool
        Whether all requests were known at once.
    live : dict of int to float
        Places that are not finished, and when they began.
    read : int
        How many requests were accepted.

    Raises
    ------
    InputError
        If ``requests`` cannot be iterated over, a request of a list is none, or two have one id.
    """

    def __init__(self, requests: Iterable[Request], keeps: bool) -> None:
        check_requests(requests)
        self.keeps, self.given = keeps, isinstance(requests, Collection)
        self.ids = IdMap()
        self.live: dict[int, float] = {}
        self.read = 0
        self._current: dict[str | int, int] = {}
        self._responses: list[BatchResponse | None] = []
        self._order: deque[BatchResponse] | list[BatchResponse] = [] if keeps else deque()
        self._count = self._failed = self._tokens = 0
        if self.given:
            self.ids.extend([check_request(request).id for request in requests])

    @property
    def untaken(self) -> int:
        """How many responses wait to be given out, where none are kept."""
        return 0 if self.keeps else len(self._order)

    @property
    def _forgets(self) -> bool:
        return not (self.keeps or self.given)

    def has(self, name: object) -> bool:
        """Tell whether there is such an id."""
        return name in (self._current if self._forgets else self.ids)

    def place(self, name: str | int) -> int:
        """Return the place of an id; raise InputError if there is none."""
        if not self._forgets:
            return self.ids[name]
        if name not in self._current:
            raise InputError(f"there is no id {name!r} that is not finished")
        return self._current[name]

    def index_of(self, ids: Collection[str | int] | np.ndarray) -> np.ndarray:
        """Return the places of ids; -1 where one is not there."""
        if self._forgets:
            return np.array([self._current.get(name, -1) for name in ids], np.intp)
        return self.ids.index_of(ids if isinstance(ids, np.ndarray) else list(ids))

    def accept(self, request: Any) -> int:
        """Take in the next request and return its place.

        Raises
        ------
        InputError
            If it is no request, or its id is there already.
        """
        place = self.read
        if self._forgets:
            earlier = self._current.setdefault(check_request(request).id, place)
            if earlier != place:
                name = request.id
                raise InputError(
                    f"id {name!r} stands at {earlier} and at {place}, should be unique among what "
                    f"is not finished"
                )
        elif not self.given:
            self.ids.add(check_request(request).id)
        self.read += 1
        self.live[place] = time.perf_counter()
        if self.keeps:
            self._responses.append(None)
        return place

    def finish(self, response: BatchResponse) -> None:
        """Take in a response."""
        place = response.index
        del self.live[place]
        self._current.pop(response.id, None)
        self._count += 1
        self._failed += response.error is not None
        self._tokens += result_tokens(response.result)
        self._order.append(response)
        if self.keeps:
            self._responses[place] = response

    def response(self, place: int, name: str | int, result: Result) -> BatchResponse:
        """Return the response that a result makes."""
        milliseconds = 1000 * (time.perf_counter() - self.live[place])
        return BatchResponse(name, place, result, milliseconds)

    def at(self, place: int) -> BatchResponse | None:
        """Return the response at a place, if it is there."""
        return self._responses[place] if place < len(self._responses) else None

    def finished_at(self, number: int) -> BatchResponse | None:
        """Return the response that finished as that number; the next one, if none are kept."""
        if isinstance(self._order, list):
            return self._order[number] if number < len(self._order) else None
        return self._order.popleft() if self._order else None

    def responses(self) -> list[BatchResponse]:
        """Return those that are there, by place."""
        return [response for response in self._responses if response is not None]

    def stats(self, seconds: float) -> BatchStats:
        """Return what it comes to so far."""
        return BatchStats.of(self._count, self._failed, seconds, self._tokens)


def check_requests(requests: Any) -> None:
    """Raise InputError if what should be requests is not several of anything."""
    if not isinstance(requests, Iterable):
        raise InputError(f"requests are {requests!r}, should be a list or an iterator of Request")


def check_request(request: Any) -> Request:
    """Return a request; raise InputError if it is none."""
    if not isinstance(request, Request):
        raise InputError(f"a request is {request!r}, should be a Request")
    return request
