"""Readers of a job: iterators, plain and asynchronous, over what it produces."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from numbatch.batching.batch_result import BatchResponse, TokenEvent
from numbatch.batching.results import GenerationResult

if TYPE_CHECKING:
    import asyncio

    from numbatch.batching.job import Job
    from numbatch.batching.sequence import Sequence

__all__ = ["CompletedReader", "EventReader"]

Item = TypeVar("Item")


class _JobOverError(Exception):
    """Nothing more will come."""


class _Reader(Generic[Item]):
    """Iterates with ``for`` or ``async for`` until the job is done."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def _take(self) -> Item | None:
        """Return what is there, None if nothing is; raise _JobOverError at the end. Lock held."""
        raise NotImplementedError

    def __iter__(self) -> _Reader[Item]:
        return self

    def __next__(self) -> Item:
        with self._job.changed:
            try:
                while (item := self._take()) is None:
                    self._job.changed.wait()
            except _JobOverError:
                self._job.raise_error()
                raise StopIteration from None
            return item

    def __aiter__(self) -> _Reader[Item]:
        return self

    async def __anext__(self) -> Item:
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            with self._job.changed:
                try:
                    item = self._take()
                except _JobOverError:
                    self._job.raise_error()
                    raise StopAsyncIteration from None
                if item is not None:
                    return item
                future: asyncio.Future[None] = loop.create_future()

                def wake(future: asyncio.Future[None] = future) -> None:
                    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                        loop.call_soon_threadsafe(_resolve, future)

                self._job.wakers.append(wake)
            await future


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():  # the task may have been cancelled
        future.set_result(None)


class CompletedReader(_Reader[BatchResponse]):
    """Yields each response when it is finished."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._read = 0

    def _take(self) -> BatchResponse | None:
        response = self._job.finished_at(self._read)
        if response is not None:
            self._read += 1
        elif self._job.is_done:
            raise _JobOverError
        return response


class EventReader(_Reader[TokenEvent]):
    """Yields what requests have produced since it last looked.

    Nothing is queued: it looks at the sequences themselves, and remembers how far it has read. So
    a slow reader costs no memory and holds nobody up.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._read = 0
        self._seen: dict[int, tuple[int, int]] = {}
        self._events: list[TokenEvent] = []

    def _take(self) -> TokenEvent | None:
        if not self._events:
            self._look()
        return self._events.pop(0) if self._events else None

    def _look(self) -> None:
        for index, sequence in self._job.running():
            event = self._progress(index, sequence)
            if event is not None:
                self._events.append(event)
        while not self._events:
            response = self._job.finished_at(self._read)
            if response is None:
                if self._job.is_done:
                    raise _JobOverError
                return
            self._read += 1
            self._events.append(self._end(response))

    def _progress(self, index: int, sequence: Sequence) -> TokenEvent | None:
        length, logprobs, texts = sequence.length, sequence.logprobs, sequence.texts
        if sequence.params is None or logprobs is None or texts is None:
            return None
        tokens, characters = self._seen.get(index, (0, 0))
        text = texts.text[characters : texts.settled]
        first = sequence.prompt_length + tokens
        if length == first and not text:
            return None
        self._seen[index] = (length - sequence.prompt_length, characters + len(text))
        new = slice(first, length)
        return TokenEvent(sequence.request.id, sequence.tokens[new], logprobs[new], text)

    def _end(self, response: BatchResponse) -> TokenEvent:
        result = response.result
        tokens, characters = self._seen.pop(response.index, (0, 0))
        if not isinstance(result, GenerationResult):
            empty = np.empty(0, np.int64)
            return TokenEvent(response.id, empty, empty.astype(np.float32), "", response)
        return TokenEvent(
            response.id,
            result.token_ids[tokens:],
            result.logprobs[tokens:],
            result.text[characters:],
            response,
        )
