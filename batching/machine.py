"""What this machine is, and its limits as they were measured: reading, multiplying and adding."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from llvmlite import binding as llvm

from numbatch.kernels import amx, machine_limits
from numbatch.kernels.machine_limits import CHAINS, CHUNK
from numbatch.kernels.simd import LANES
from numbatch.kernels.simd_path import simd_path
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.version import __version__

__all__ = ["MachineLimits", "describe_machine", "measure_limits", "numbers_of", "reader_of"]

BUFFER = 1 << 28
"""Bytes that are read to measure the memory: more than most second-level caches hold by far."""

STEPS = 100_000
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """What the machine does at most, on so many threads: the best of several rounds.

    Parameters
    ----------
    threads : int
    read : float
        Bytes a second that are read from memory.
    float32 : float
        Operations a second (a multiply-add is two) in float32 vectors.
    bfloat16 : float
        The same in tiles of bfloat16; where the CPU has none, that of float32.
    int8 : float
        The same in bytes, with the widest instructions there are.
    """

    threads: int
    read: float
    float32: float
    bfloat16: float
    int8: float

    def or_better(self, other: MachineLimits) -> MachineLimits:
        """Return the better of each of two measurements."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return MachineLimits(*(max(pair) for pair in pairs))

    def peak(self, arithmetic: str) -> float:
        """Return the operations a second of "float32", "bfloat16" or "int8"."""
        return float(asdict(self)[arithmetic])

    def seconds(
        self, operations: float = 0, bytes: float = 0, arithmetic: str = "float32"
    ) -> float:
        """Return the least time that so much work takes: that of the scarcer of the two."""
        return max(operations / self.peak(arithmetic), bytes / self.read)


def reader_of(values: np.ndarray) -> Callable[[], None]:
    """Return a function that reads a contiguous array once, as fast as one core can.

    Up to 7 bytes at its end are not. All else is done here: few values are read in less time than
    it takes to make an array.
    """
    numbers, out = numbers_of(values)
    return partial(machine_limits.read_numbers, 0, len(out), numbers, out)


def numbers_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a view of an array as float64, and room for the sums of its chunks."""
    numbers = values.reshape(-1).view(np.uint8)[: values.nbytes // 8 * 8].view(np.float64)
    numbers.flags.writeable = False
    return numbers, np.empty(-(-len(numbers) // CHUNK))


def measure_limits(threads: int = 1) -> MachineLimits:
    """Measure what ``threads`` threads reach; takes about a second."""
    team = ThreadTeam(threads)
    memory, sums = numbers_of(np.ones(BUFFER // 8))
    reading = Call(machine_limits.read_numbers, len(sums), (memory, sums))
    read = BUFFER / _best(lambda: team.run(reading))
    float32 = _operations_a_second(team, machine_limits.multiply_add, np.float32, 16)
    if simd_path() == "amx":
        return MachineLimits(threads, read, float32, _in_tiles(team, True), _in_tiles(team, False))
    int8 = _operations_a_second(team, machine_limits.multiply_add_bytes, np.int32, 64)
    return MachineLimits(threads, read, float32, float32, int8)


def _in_tiles(team: ThreadTeam, halves: bool) -> float:
    shapes = amx.tile_shapes([16] * 8, [64] * 8)
    out, steps = np.zeros((team.threads, LANES), np.int32), STEPS // 10
    call = Call(machine_limits.multiply_add_tiles, team.threads, (steps, halves, shapes, out))
    operations = team.threads * steps * 4 * 16 * 16 * (32 if halves else 64) * 2
    return operations / _best(lambda: team.run(call))


def _operations_a_second(
    team: ThreadTeam, kernel: Callable[..., None], dtype: Any, width: int
) -> float:
    numbers = np.ones((2, LANES), dtype) // 2
    out = np.zeros((team.threads, LANES), dtype)
    call = Call(kernel, team.threads, (STEPS, numbers, out))
    return team.threads * STEPS * CHAINS * width * 2 / _best(lambda: team.run(call))


def _best(action: Callable[[], object]) -> float:
    """Return the least seconds of several calls, the first of which may compile."""
    action()
    times = []
    for _ in range(ROUNDS):
        begin = perf_counter()
        action()
        times.append(perf_counter() - begin)
    return min(times)


def describe_machine() -> dict[str, Any]:
    """Return what a report says of the machine and of the versions that ran on it."""
    features = sorted(name for name, has in llvm.get_host_cpu_features().items() if has)
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "features": features,
        "path": simd_path(),
        "python": platform.python_version(),
        "numbatch": __version__,
        **{name: metadata.version(name) for name in ("numpy", "numba", "llvmlite")},
    }


def _cpu_name() -> str:
    """Return the vendor's name of the CPU, else LLVM's."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return str(llvm.get_host_cpu_name())
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0]} ({llvm.get_host_cpu_name()})" if names else str(llvm.get_host_cpu_name())
