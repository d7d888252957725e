"""A run of requests with a journal: what it holds is taken from it, the rest is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from numbatch.batching.batch_result import BatchResponse, BatchResult
from numbatch.batching.ids import IdMap
from numbatch.batching.job import Job
from numbatch.batching.journal import Journal
from numbatch.batching.journal_records import pack_result, request_digest, unpack_result
from numbatch.batching.request import Request
from numbatch.errors import InputError, OutputError

__all__ = ["JournaledRun"]


class JournaledRun:
    """Runs the requests whose results a journal does not hold.

    Parameters
    ----------
    submit : function
        Makes a job, as :meth:`LLM.submit`.
    requests : sequence of Request
    journal : Journal
    on_result : function, optional
        Called with each response that is computed.
    """

    def __init__(
        self,
        submit: Callable[..., Job],
        requests: Sequence[Request],
        journal: Journal,
        on_result: Callable[[BatchResponse], Any] | None = None,
    ) -> None:
        self._submit, self._requests, self._journal = submit, requests, journal
        self._on_result = on_result
        self._job: Job | None = None
        self._ids = IdMap([request.id for request in requests])
        self._digests = [request_digest(request) for request in requests]
        self._responses: list[BatchResponse | None] = [None] * len(requests)

    def result(self) -> BatchResult:
        """Compute what is missing and return all responses.

        Raises
        ------
        InputError
            If the journal holds a result that no request asks for.
        """
        self._recover()
        missing = [i for i, response in enumerate(self._responses) if response is None]
        places = dict(enumerate(missing))
        job = self._job = self._submit([self._requests[i] for i in missing], on_result=self._keep)
        with job:  # cancelled at Ctrl-C
            computed = job.result()
        for response in computed:
            place = places[response.index]
            self._responses[place] = BatchResponse(
                response.id, place, response.result, response.duration_ms
            )
        self._journal.flush()
        responses = [response for response in self._responses if response is not None]
        return BatchResult(responses, self._ids, job.stats())

    def _recover(self) -> None:
        if self._journal.dropped:
            logging.getLogger(__name__).warning(
                "the journal %s: a torn record of %d bytes was dropped",
                self._journal.path,
                self._journal.dropped,
            )
        for content in self._journal.records():
            result, digest = unpack_result(content)
            place = self._ids.get(result.id)
            if place < 0 or self._digests[place] != digest:
                what = "is not among the requests" if place < 0 else "was another request"
                raise InputError(
                    f"the journal {self._journal.path} was begun with another input: {result.id!r} "
                    f"{what}"
                )
            self._responses[place] = BatchResponse(result.id, place, result, 0.0)

    def _keep(self, response: BatchResponse) -> None:
        digest = self._digests[self._ids[response.id]]
        try:
            if response.error != "cancelled" and self._journal.append(
                pack_result(response.result, digest)
            ):
                self._journal.flush()
        except OutputError:
            if self._job is not None:
                self._job.cancel()  # what cannot be kept need not be computed
            raise
        if self._on_result is not None:
            self._on_result(response)
