"""Sizes of benchmarks, and how often each is timed.

With ``NUMBATCH_BENCH_QUICK=1`` all benchmarks take a minute or two together. Such results must not
be kept: they are of other sizes under the same names.

asv reads ``rounds`` and ``repeat`` from a benchmark's module, so each module imports them. By its
own choice, up to ten seconds a round with a new setup for each sample, one commit takes hours.
"""

import os

QUICK = bool(os.environ.get("NUMBATCH_BENCH_QUICK"))

rounds = 2
"""Processes that time a benchmark, apart in time, so that one bad moment does not decide."""

repeat = (2, 5, 1.0)
"""Samples in a round: at least, at most, and seconds after which the least is enough."""


def sized(full, small):
    """``full``, or ``small`` where it has to be quick."""
    return small if QUICK else full
