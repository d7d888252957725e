"""Measures all cases of a baseline, one after another, and all of them once more.

What else a machine does comes and goes within seconds or minutes. Samples of one second tell little
of it, so their interval is too narrow; that of two rounds, a minute apart, holds more of it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from numbatch.batching.baseline.case import Case, Record, join_rounds, measure_case
from numbatch.batching.baseline.model_cases import (
    end_to_end_cases,
    generation_cases,
    scoring_cases,
)
from numbatch.batching.baseline.pace import Pacer
from numbatch.batching.baseline.report import Report
from numbatch.batching.baseline.statistics_cases import statistics_cases
from numbatch.batching.baseline.tokenization_cases import tokenization_cases
from numbatch.batching.llm import LLM
from numbatch.batching.machine import MachineLimits, describe_machine, measure_limits

__all__ = ["measure_baseline"]

ROUNDS = 2
SECONDS, SAMPLES = 0.5, 3
QUICK_SECONDS, QUICK_SAMPLES = 0.02, 1
"""Of a round."""


def measure_baseline(
    llm: LLM,
    quick: bool = False,
    tell: Callable[[int, Record], object] = lambda number, record: None,
) -> Report:
    """Measure everything; takes two or three minutes, and one more where kernels are compiled.

    Parameters
    ----------
    llm : LLM
        Best without prefix caching: each call then does all of its work.
    quick : bool
        Small sizes and few samples, to see that all of it runs; the figures say little.
    tell : function of the round's number, from 1 on, and a Record
        Called with each one when it is there; in the last round with what all of them gave.
    """
    begin = time.perf_counter()
    threads = llm.engine.forward.team.threads
    core, team = _limits(threads)
    pacer = Pacer(threads)
    records: dict[str, Record] = {}
    for number in range(1, ROUNDS + 1):
        if number > 1:
            again = _limits(threads)
            core, team = core.or_better(again[0]), team.or_better(again[1])
        for case in _cases(llm, quick):
            limits = core if case.group == "tokenization" else team
            seconds, samples = (QUICK_SECONDS, QUICK_SAMPLES) if quick else (SECONDS, SAMPLES)
            record = measure_case(case, limits, pacer, seconds, samples)
            before = records.get(record.key)
            records[record.key] = record if before is None else join_rounds(before, record)
            tell(number, records[record.key])
    return Report(
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        model=llm.engine.model.decoder.name,
        threads=threads,
        machine=describe_machine(),
        core=core,
        team=team,
        records=list(records.values()),
        seconds=time.perf_counter() - begin,
        peak_memory=_peak_memory(),
    )


def _limits(threads: int) -> tuple[MachineLimits, MachineLimits]:
    """Measure what one thread and what a team reaches: beside other work it may look like less."""
    core = measure_limits(1)
    return core, measure_limits(threads).or_better(core)


def _cases(llm: LLM, quick: bool) -> Iterator[Case]:
    yield from statistics_cases(quick)
    yield from tokenization_cases(llm.tokenizer, quick)
    yield from scoring_cases(llm, quick)
    yield from generation_cases(llm, quick)
    yield from end_to_end_cases(llm, quick)


def _peak_memory() -> int:
    """Return the most bytes that this process held resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
