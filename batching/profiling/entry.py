"""What one kernel did in a run, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from numbatch.batching.machine import MachineLimits

__all__ = ["Entry", "Profile", "added_up"]


@dataclass(frozen=True, slots=True)
class Entry:
    """The calls of one kernel, added up.

    Parameters
    ----------
    name : str
    calls : int
    seconds : float
        From the first thread's start to the last one's end, over all calls.
    operations : float
        Multiplications and additions that the calls cannot do without; 0: not counted.
    bytes : float
        What they must read and write, each array once; 0: not counted.
    """

    name: str
    calls: int
    seconds: float
    operations: float
    bytes: float

    def plus(self, other: Entry) -> Entry:
        """Return both together, under this name."""
        return Entry(
            self.name,
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.operations + other.operations,
            self.bytes + other.bytes,
        )

    @property
    def intensity(self) -> float | None:
        """Operations a byte; None where one of the two is not counted."""
        return self.operations / self.bytes if self.operations and self.bytes else None

    def share_of_limit(self, limits: MachineLimits, arithmetic: str) -> float | None:
        """Return the least time that the machine needs for this work, by the time it took."""
        if not (self.operations or self.bytes) or self.seconds <= 0:
            return None
        return limits.seconds(self.operations, self.bytes, arithmetic) / self.seconds


@dataclass(frozen=True, slots=True)
class Profile:
    """A run, taken apart.

    Parameters
    ----------
    title : str
        What was run.
    tokens : int
        How many tokens it computed or generated.
    seconds : float
        How long it took in all, without taking notes; what no entry accounts for is Python between
        the kernels.
    entries : list of Entry
        The costliest first.
    limits : MachineLimits
    arithmetic : str
        What products are held against: "float32" or "int8".
    """

    title: str
    tokens: int
    seconds: float
    entries: list[Entry]
    limits: MachineLimits
    arithmetic: str = "float32"

    @property
    def between(self) -> float:
        """Seconds that no kernel accounts for."""
        return max(0.0, self.seconds - sum(entry.seconds for entry in self.entries))


def added_up(entries: Iterable[Entry]) -> list[Entry]:
    """Join entries of one name; the costliest comes first."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found[entry.name] = found[entry.name].plus(entry) if entry.name in found else entry
    return sorted(found.values(), key=lambda entry: -entry.seconds)
