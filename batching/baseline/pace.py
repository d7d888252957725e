"""How fast the machine is just now: two fixed pieces of work, timed beside each case.

What else the host of a virtual machine does can halve the speed of vectors for minutes, or that of
the memory, and shows nowhere: no thread waits. The same fixed work then takes longer too.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from numbatch.batching.machine import numbers_of
from numbatch.kernels import machine_limits
from numbatch.kernels.simd import LANES
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["Pace", "Pacer"]

STEPS = 8_000
"""Of twelve multiply-adds: about half a millisecond."""

READ = 1 << 26
"""Bytes, more than most caches hold: about two milliseconds."""

TIMES = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that the fixed work took.

    Parameters
    ----------
    arithmetic : float
        Multiplying and adding float32 vectors in registers.
    reading : float
        Reading memory.
    """

    arithmetic: float
    reading: float

    def mean(self, other: Pace) -> Pace:
        """Return the pace over two times that count alike."""
        return Pace((self.arithmetic + other.arithmetic) / 2, (self.reading + other.reading) / 2)

    def slowdown(self, other: Pace) -> float:
        """Return how many times as long all may take as at the other pace, at least 1.

        Work may be bound by either, so the worse of the two counts.
        """
        return max(1.0, self.arithmetic / other.arithmetic, self.reading / other.reading)


class Pacer:
    """Times the fixed work on so many threads, all of which do as much."""

    def __init__(self, threads: int) -> None:
        self.team = ThreadTeam(threads)
        numbers, sums = numbers_of(np.ones(READ // 8))
        self.reading = Call(machine_limits.read_numbers, len(sums), (numbers, sums))
        vectors = np.ones((2, LANES), np.float32) / 2
        out = np.zeros((threads, LANES), np.float32)
        self.arithmetic = Call(machine_limits.multiply_add, threads, (STEPS, vectors, out))
        self.measure()  # compiles, and touches the memory

    def measure(self) -> Pace:
        """Return the medians of a few times in turn; takes about 15 ms."""
        rounds = [(self._time(self.arithmetic), self._time(self.reading)) for _ in range(TIMES)]
        arithmetic, reading = zip(*rounds, strict=True)
        return Pace(median(arithmetic), median(reading))

    def _time(self, call: Call) -> float:
        begin = perf_counter()
        self.team.run(call)
        return perf_counter() - begin
