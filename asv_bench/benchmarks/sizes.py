"""Sizes of benchmarks: the real ones, or small ones that only show that a benchmark runs.

With ``NUMBATCH_BENCH_QUICK=1`` all benchmarks take a minute or two together. Such results must not
be kept: they are of other sizes under the same names.
"""

import os

QUICK = bool(os.environ.get("NUMBATCH_BENCH_QUICK"))


def sized(full, small):
    """``full``, or ``small`` where it has to be quick."""
    return small if QUICK else full
