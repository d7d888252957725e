"""Which instructions the kernels use: chosen from the CPU, or forced by ``NUMBATCH_SIMD``."""

from __future__ import annotations

import functools
import os

from llvmlite import binding as llvm

from numbatch.errors import InputError
from numbatch.kernels import amx

__all__ = ["PATHS", "gains_by_prefetch", "reads_by_four_streams", "simd_path"]

PATHS = ("amx", "avx512", "avx2", "portable")
"""From the widest to what every CPU has; each needs a CPU that has its instructions.

``amx``: tiles, and all of ``avx512``. ``avx512``: AVX-512 with VNNI. ``avx2``: AVX2 and FMA.
``portable``: vectors that LLVM maps to whatever there is (SSE, NEON).
"""

_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
_NEEDS = {
    "amx": (*_AVX512, "avx512bf16", "avx512fp16"),  # every CPU with tiles has them
    "avx512": _AVX512,
    "avx2": ("avx2", "fma"),
}


def _has(path: str) -> bool:
    features = llvm.get_host_cpu_features()
    needs = _NEEDS.get(path, ())
    return all(features.get(name, False) for name in needs) and (path != "amx" or amx.allowed())


@functools.cache
def simd_path() -> str:
    """Return the name of the path in use, one of ``PATHS``.

    Raises
    ------
    InputError
        If ``NUMBATCH_SIMD`` names no path, or one whose instructions this CPU lacks.
    """
    usable = [path for path in PATHS if _has(path)]
    forced = os.environ.get("NUMBATCH_SIMD")
    if not forced:
        return usable[0]
    if forced not in PATHS:
        raise InputError(f"NUMBATCH_SIMD is {forced!r}, should be one of {', '.join(PATHS)}")
    if forced not in usable:
        raise InputError(f"NUMBATCH_SIMD is {forced!r}, but this CPU has only {', '.join(usable)}")
    return forced


def gains_by_prefetch() -> bool:
    """Return whether one stream comes from memory faster where its lines are asked for ahead.

    Weights that meet one row in int8: 14 instead of 9.5 GB/s on a core of an Emerald Rapids, 15
    instead of 12 on a Zen 3, but 21 instead of 26 on a Zen 4, whose own prefetcher does better.
    """
    return not _is_zen4()


def reads_by_four_streams() -> bool:
    """Return whether memory is read faster at four places in turn than from end to end.

    Sums of 10 million float32: 1.3 to 1.7 times as fast on an Emerald Rapids, 1.1 to 1.3 times on a
    Zen 3, but 0.6 times on a Zen 4.
    """
    return not _is_zen4()


def _is_zen4() -> bool:
    """Return whether this is a Zen 4, or a later one, which was not measured."""
    return llvm.get_host_cpu_name() in ("znver4", "znver5")
