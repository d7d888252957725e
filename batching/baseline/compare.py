"""What changed between two baselines beyond noise."""

from __future__ import annotations

from dataclasses import dataclass

from numbatch.batching.baseline.case import Record
from numbatch.batching.baseline.report import Report

__all__ = ["Change", "compare_reports"]

FEW = 6
"""Samples of which a median's interval can be one of 95 %: it lies outside all of n samples with a
probability of 2 ** (1 - n)."""

LEAST = 0.3
"""Changes that are never marked. The same code took 0.79 to 1.25 times as long in another run,
with intervals of 2 %, on a machine whose host others use too. asv tells smaller changes."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record in both reports.

    Parameters
    ----------
    key : str
    before, after : float
        Median seconds.
    ratio : float
        After by before: below 1 is faster.
    mark : {"faster", "slower", ""}
        Empty where the change may be noise.
    """

    key: str
    before: float
    after: float
    ratio: float
    mark: str


def compare_reports(before: Report, after: Report) -> list[Change]:
    """Return the records that both reports hold, in the order of the new one.

    A change is marked where the two intervals have nothing in common, are of ``FEW`` samples or
    more, and the medians differ by more than 30 %; all this also of what the slower would have
    taken, had it not waited for a processor that did other work, and had the machine been as fast
    beside it as beside the other. Nothing is marked of quick reports.
    """
    old = {record.key: record for record in before.records}
    return [_change(old[new.key], new) for new in after.records if new.key in old]


def _change(old: Record, new: Record) -> Change:
    ratio = new.median / old.median
    mark = ""
    if min(new.samples, old.samples) >= FEW:
        if _beyond(old, new):
            mark = "slower"
        elif _beyond(new, old):
            mark = "faster"
    return Change(new.key, old.median, new.median, ratio, mark)


def _beyond(fast: Record, slow: Record) -> bool:
    """Return whether ``slow`` took longer than ``fast`` by more than noise."""
    share = (1 - slow.waited) / slow.pace.slowdown(fast.pace)
    return slow.low * share > fast.high and slow.median * share > fast.median * (1 + LEAST)
