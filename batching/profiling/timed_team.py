"""A team that times each kernel call: in the place of a model's own while it is profiled."""

from __future__ import annotations

from time import perf_counter

from numbatch.batching.profiling.entry import Entry
from numbatch.batching.profiling.work import work_of
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["TimedTeam"]


class TimedTeam(ThreadTeam):
    """Runs calls one after another, and keeps how long each took.

    Calls that a team runs together are forked and joined apart here, so that each has its own time;
    nothing is timed, and nothing costs more, where no profile was asked for.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.entries: list[Entry] = []

    def run(self, *calls: Call) -> None:
        """Run calls, and note each."""
        for call in calls:
            work = work_of(call)
            begin = perf_counter()
            super().run(call)
            seconds = perf_counter() - begin
            self.entries.append(Entry(work.name, 1, seconds, work.operations, work.bytes))
