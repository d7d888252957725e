"""What a batch came to: responses by place and by id, and its statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from numbatch.batching.ids import IdMap
from numbatch.batching.parquet_file import ParquetFile
from numbatch.batching.result_json import dump_line, result_json
from numbatch.batching.results import FailedResult, GenerationResult, Result
from numbatch.errors import InputError, OutputError

__all__ = ["BatchResponse", "BatchResult", "BatchStats", "TokenEvent", "result_tokens"]


@dataclass(frozen=True, slots=True)
class BatchResponse:
    """One request's result, and its place in the batch.

    Parameters
    ----------
    id : str or int
    index : int
        The request's place among those submitted.
    result : GenerationResult, ScoreResult or FailedResult
    duration_ms : float
        From when it was submitted (read from the iterator) to when it was finished.
    """

    id: str | int
    index: int
    result: Result
    duration_ms: float

    @property
    def error(self) -> str | None:
        """Why the request failed; None where it did not."""
        return self.result.error if isinstance(self.result, FailedResult) else None


@dataclass(frozen=True, slots=True)
class BatchStats:
    """How long a batch took. Computed once, when it ends; before, as far as it has come.

    Parameters
    ----------
    total_items : int
        Requests that are finished, failed ones included.
    failed_items : int
    total_duration_ms : float
        From submission to the last result, in milliseconds.
    avg_item_time_ms : float
        ``total_duration_ms / total_items``: what a request cost, not how long it waited. NaN where
        there are none.
    items_per_second : float
        NaN where no time has passed.
    tokens : int
        Of prompts, outputs and scored texts, of requests that did not fail.
    """

    total_items: int
    failed_items: int
    total_duration_ms: float
    avg_item_time_ms: float
    items_per_second: float
    tokens: int

    @classmethod
    def of(cls, items: int, failed: int, seconds: float, tokens: int) -> BatchStats:
        """Compute the statistics from counts."""
        return cls(
            total_items=items,
            failed_items=failed,
            total_duration_ms=1000 * seconds,
            avg_item_time_ms=1000 * seconds / items if items else float("nan"),
            items_per_second=items / seconds if seconds > 0 else float("nan"),
            tokens=tokens,
        )


@dataclass(frozen=True, slots=True, eq=False)
class TokenEvent:
    """What a request has produced since the last event about it.

    Put together, the events of a request give its result's tokens and text. A reader that is slow
    gets fewer and longer events.

    Parameters
    ----------
    id : str or int
    token_ids : int64 array
    logprobs : float32 array
    text : str
        Without what a stop string may still take back.
    response : BatchResponse, optional
        Set in the last event of a request; a scored text has no other.
    """

    id: str | int
    token_ids: np.ndarray = field(repr=False)
    logprobs: np.ndarray = field(repr=False)
    text: str = ""
    response: BatchResponse | None = None


class BatchResult:
    """All responses of a batch, in the order of the requests.

    Parameters
    ----------
    responses : sequence of BatchResponse
    ids : IdMap
        The place of each id.
    stats : BatchStats
    """

    def __init__(self, responses: Sequence[BatchResponse], ids: IdMap, stats: BatchStats) -> None:
        self.responses, self.ids, self.stats = responses, ids, stats

    def __len__(self) -> int:
        return len(self.responses)

    def __iter__(self) -> Iterator[BatchResponse]:
        return iter(self.responses)

    def __contains__(self, name: object) -> bool:
        return name in self.ids

    def __getitem__(self, name: str | int) -> BatchResponse:
        """Return the response to an id; raise InputError if there is no such id."""
        return self.responses[self.ids[name]]

    def get_by_id(self, name: str | int) -> BatchResponse | None:
        """Return the response to an id, or None."""
        place = self.ids.get(name)
        return self.responses[place] if place >= 0 else None

    def index_of(self, ids: Sequence[str | int] | np.ndarray) -> np.ndarray:
        """Return the places of ids, intp; -1 where one is not there."""
        return self.ids.index_of(ids)

    def to_jsonl(self, path: str | Path) -> None:
        """Write a line of JSON for each response, in their order.

        Lines are as ``numbatch run`` writes them: ``custom_id``, then the result or ``error``.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        try:
            with open(path, "w", encoding="utf-8", errors="replace", newline="\n") as file:
                for response in self.responses:
                    file.write(dump_line(result_json(response.result)) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error

    def to_parquet(self, path: str | Path) -> None:
        """Write a row for each response, in their order; needs pyarrow.

        Columns are named as the keys of :meth:`to_jsonl`; what a result lacks is null.

        Raises
        ------
        InputError
            If pyarrow is not installed, or the file cannot be made.
        OutputError
            If it cannot be written.
        """
        with ParquetFile(path) as file:
            for response in self.responses:
                file.add(result_json(response.result))

    def raise_failed(self) -> BatchResult:
        """Return this batch, or raise InputError if a request failed."""
        for response in self.responses:
            if response.error is not None:
                raise InputError(f"request {response.id!r} failed: {response.error}")
        return self


def result_tokens(result: Result) -> int:
    """Return how many tokens a result stands for."""
    if isinstance(result, FailedResult):
        return 0
    prompt = len(result.prompt_token_ids) if isinstance(result, GenerationResult) else 0
    return prompt + len(result.token_ids)
