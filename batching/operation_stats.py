"""What a measurement says about an operation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Comparison", "OperationStats", "format_time"]


@dataclass(frozen=True, slots=True)
class OperationStats:
    """How long an operation takes. All times are seconds a call, the overhead subtracted.

    Parameters
    ----------
    n : int
        Samples.
    calls : int
        Calls in a sample; where more than 1, the spread is that of their means.
    mean, median, std, min, max, p50, p90, p95, p99 : float
        Of the samples; ``std`` with divisor n - 1.
    low, high : float
        Bootstrap interval of the median.
    confidence : float
        Probability with which it holds the true median, if the samples are independent.
    overhead : float
        Seconds a call that the clock and the loop took; already subtracted.
    first_call : float
        Seconds that the first call took, with all compilation in it.
    compilation : float
        Seconds that Numba compiled or loaded compiled code during warm-up; not in the times.
    discarded : int
        Samples thrown away because Numba compiled during them.
    items_per_second, tokens_per_second, bytes_per_second : float or None
        At the median; None where the operation's number was not given.
    peak_memory : int or None
        Most bytes that one call held at a time beyond what was held before, as Python and NumPy
        allocate them (tracemalloc, in a call that is not timed).
    waited : float
        Share of a sample's time, up to 1, in which threads of this process were ready to run and
        the processors had other work; the median of the samples. 0 where the system does not tell
        (all but Linux).
    """

    n: int
    calls: int
    mean: float
    median: float
    std: float
    min: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    low: float
    high: float
    confidence: float
    overhead: float
    first_call: float
    compilation: float
    discarded: int
    items_per_second: float | None
    tokens_per_second: float | None
    bytes_per_second: float | None
    peak_memory: int | None
    waited: float = 0.0

    def __str__(self) -> str:
        text = (
            f"{format_time(self.median)} [{format_time(self.low)}, {format_time(self.high)}] "
            f"median of {self.n} samples of {self.calls} calls; overhead of "
            f"{format_time(self.overhead)} a call subtracted"
        )
        if self.compilation:
            text += f"; compilation of {format_time(self.compilation)} not counted"
        return text


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much longer ``f`` takes than ``g``.

    Parameters
    ----------
    ratio : float
        Median time of ``f`` by that of ``g``: 2 where ``g`` is twice as fast.
    low, high : float
        Bootstrap interval of the ratio; rounds are drawn whole.
    confidence : float
    rounds : int
        How many times both were timed.
    f, g : float
        Median seconds a call.
    """

    ratio: float
    low: float
    high: float
    confidence: float
    rounds: int
    f: float
    g: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves 1 out."""
        return not self.low <= 1 <= self.high


def format_time(seconds: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
