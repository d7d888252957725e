"""A team that times each operation: in the place of a model's own while it is profiled."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from numbatch.batching.profiling.entry import Entry
from numbatch.batching.profiling.work import (
    Work,
    head_work,
    named_arguments,
    step_work,
    work_of_call,
)
from numbatch.kernels.scoring.decoder_step import PHASES
from numbatch.kernels.threads import Call, TeamKernel, ThreadTeam
from numbatch.models.decoder import Decoder

__all__ = ["TimedTeam"]


class TimedTeam(ThreadTeam):
    """Runs what it is given, and keeps how long each part took.

    Calls that a team runs at once are run one after another. The kernel of all layers is handed an
    array for the clock ticks of its phases, for which it is compiled once more: what runs without
    has no counters in it.

    Parameters
    ----------
    threads : int
    decoder : Decoder
        What the parts' work is counted from.

    Attributes
    ----------
    entries : list of Entry
        One for each part that ran.
    noting : float
        Seconds that it took to note them, no part of the run: a tenth of a step of one sequence and
        more.
    """

    def __init__(self, threads: int, decoder: Decoder) -> None:
        super().__init__(threads)
        self.decoder = decoder
        self.entries: list[Entry] = []
        self.noting = 0.0

    def clear(self) -> None:
        """Forget what was noted."""
        self.entries, self.noting = [], 0.0

    def run(self, *calls: Call) -> None:
        """Run calls, and note each."""
        for call in calls:
            begin = perf_counter()
            super().run(call)
            end = perf_counter()
            self._note(work_of_call(self.decoder, call), end - begin)
            self.noting += perf_counter() - end

    def run_together(self, kernel: TeamKernel, *args: Any) -> None:
        """Run a kernel that all threads share, and note its phases.

        A phase's time is the mean over the threads; what they wait for each other is a phase too.
        """
        start = perf_counter()
        named = named_arguments(kernel.part, 2, args)
        cycles = np.zeros((self.threads, len(PHASES)), np.int64)
        if "cycles" in named:
            named["cycles"] = cycles
        begin = perf_counter()
        super().run_together(kernel, *named.values())
        end = perf_counter()
        seconds = end - begin
        if "cycles" in named:
            of_phases = cycles.mean(axis=0) * (seconds / cycles[0].sum())
            for work, time in zip(step_work(self.decoder, named), of_phases, strict=True):
                self._note(work, time)
        else:
            self._note(head_work(self.decoder, len(named["hidden"])), seconds)
        self.noting += begin - start + perf_counter() - end

    def _note(self, work: Work, seconds: float) -> None:
        self.entries.append(Entry(work.name, 1, float(seconds), work.operations, work.bytes))
