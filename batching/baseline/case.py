"""One thing that a baseline times, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numbatch.batching.baseline.pace import Pace, Pacer
from numbatch.batching.machine import MachineLimits
from numbatch.batching.measure import measure_operation
from numbatch.batching.operation_stats import OperationStats
from numbatch.errors import InputError

__all__ = ["Case", "Record", "join_rounds", "measure_case"]


@dataclass(frozen=True, slots=True)
class Case:
    """An operation to time, and how much work one call of it is.

    Parameters
    ----------
    group, name : str
        Where it stands in the report; together they are its key when reports are compared.
    run : function without arguments
    amount : float
        How much a call works on, in ``unit``.
    unit : str
        What rates are told in: "MB", "tokens" or "million values".
    operations, bytes : float
        Arithmetic and memory traffic that no way of computing it can do without; 0: not counted.
    arithmetic : str
        What the operations are done in: "float32" or "int8".
    read : function without arguments, optional
        Reads the same memory and does nothing else. Its time is then the limit: what it reads may
        lie in a cache, which is faster than the memory.
    """

    group: str
    name: str
    run: Callable[[], object]
    amount: float
    unit: str
    operations: float = 0
    bytes: float = 0
    arithmetic: str = "float32"
    read: Callable[[], object] | None = None

    @property
    def key(self) -> str:
        """The name under which reports are compared."""
        return f"{self.group}: {self.name}"


@dataclass(frozen=True, slots=True)
class Record:
    """The measurement of a case. Times are seconds a call.

    Parameters
    ----------
    median, low, high : float
        Median, and its 95 % interval over the samples. Of several rounds the mean of their medians,
        and from the lowest to the highest end of their intervals.
    samples : int
    rate : float
        ``unit`` a second, at the median.
    limit : float or None
        Least time that this machine needs for the work, by its limits.
    pace : Pace
        How fast the machine was before and after; of several rounds the mean.
    waited : float
        As of :class:`OperationStats`; of several rounds the largest.
    """

    group: str
    name: str
    unit: str
    median: float
    low: float
    high: float
    samples: int
    rate: float
    limit: float | None
    peak_memory: int | None
    pace: Pace
    waited: float

    @property
    def key(self) -> str:
        """The name under which reports are compared."""
        return f"{self.group}: {self.name}"

    @property
    def share(self) -> float | None:
        """How close it came to the limit: 1 is the limit itself."""
        return None if self.limit is None else self.limit / self.median

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        """Read back what ``dataclasses.asdict`` made."""
        try:
            return cls(**{**data, "pace": Pace(**data["pace"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"a record of the report has other fields: {error}") from error


def measure_case(
    case: Case, limits: MachineLimits, pacer: Pacer, seconds: float, min_samples: int
) -> Record:
    """Time a case for about ``seconds``, after one call that is not counted."""
    before = pacer.measure()
    stats = _measure(case.run, seconds, min_samples)
    pace = before.mean(pacer.measure())
    limit = None
    if case.read is not None:
        limit = _measure(case.read, seconds / 4, min_samples).min
    elif case.operations or case.bytes:
        limit = limits.seconds(case.operations, case.bytes, case.arithmetic)
    return Record(
        group=case.group,
        name=case.name,
        unit=case.unit,
        median=stats.median,
        low=stats.low,
        high=stats.high,
        samples=stats.n,
        rate=case.amount / stats.median,
        limit=limit,
        peak_memory=stats.peak_memory,
        pace=pace,
        waited=stats.waited,
    )


def join_rounds(a: Record, b: Record) -> Record:
    """Return the record of a case that was measured twice."""
    median = (a.median + b.median) / 2
    peaks = [peak for peak in (a.peak_memory, b.peak_memory) if peak is not None]
    return Record(
        group=a.group,
        name=a.name,
        unit=a.unit,
        median=median,
        low=min(a.low, b.low),
        high=max(a.high, b.high),
        samples=a.samples + b.samples,
        rate=a.rate * a.median / median,
        limit=None if a.limit is None or b.limit is None else min(a.limit, b.limit),
        peak_memory=max(peaks, default=None),
        pace=a.pace.mean(b.pace),
        waited=max(a.waited, b.waited),
    )


def _measure(run: Callable[[], object], seconds: float, min_samples: int) -> OperationStats:
    return measure_operation(
        run, seconds=seconds, min_samples=min_samples, warmup=1, measure_memory=False
    )
