"""A team that times each operation: in the place of a model's own while it is profiled."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from numbatch.batching.profiling.entry import Entry
from numbatch.batching.profiling.work import (
    PHASES,
    Work,
    head_work,
    layer_work,
    named_arguments,
    work_of_call,
)
from numbatch.kernels.barrier import write_cycles
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.models.decoder import Decoder

__all__ = ["TimedTeam"]


def _ticks() -> int:
    out = np.zeros(1, np.int64)
    write_cycles(out)
    return int(out[0])


class TimedTeam(ThreadTeam):
    """Runs what it is given, and keeps how long each part took.

    Calls that a team runs at once are run one after another. A kernel whose threads meet inside is
    handed a counter that notes when they do: to Numba that is another type, so the notes are
    compiled only here, and cost nothing where no profile was asked for.

    Parameters
    ----------
    threads : int
    decoder : Decoder
        What the parts' work is counted from.
    """

    def __init__(self, threads: int, decoder: Decoder) -> None:
        super().__init__(threads)
        self.decoder = decoder
        self.entries: list[Entry] = []

    def run(self, *calls: Call) -> None:
        """Run calls, and note each."""
        for call in calls:
            begin = perf_counter()
            super().run(call)
            self._note(work_of_call(self.decoder, call), perf_counter() - begin)

    def run_together(self, kernel: Callable[..., None], *args: Any) -> None:
        """Run a kernel that all threads share, and note its phases."""
        meetings = len(PHASES) * len(self.decoder.layers)
        counter = np.zeros((meetings + 1, 1), np.int64)
        named = named_arguments(kernel, 2, args)
        begin, first = perf_counter(), _ticks()
        super().run_together(kernel, counter, *args[1:])
        last, seconds = _ticks(), perf_counter() - begin
        times = np.concatenate([[first], counter[1:, 0], [last]])
        taken = np.diff(times) * (seconds / (last - first))
        if "tokens" in named:
            works = [
                work
                for index in range(len(self.decoder.layers))
                for work in layer_work(self.decoder, index, named)
            ]
            for work, time in zip(works, taken, strict=False):
                self._note(work, time)
        else:
            rows = len(named["hidden"])
            self._note(Work("norms"), taken[0])
            self._note(head_work(self.decoder, rows), seconds - taken[0])

    def _note(self, work: Work, seconds: float) -> None:
        self.entries.append(Entry(work.name, 1, float(seconds), work.operations, work.bytes))
