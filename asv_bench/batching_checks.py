"""Check what the batching layer promises: ``python -m asv_bench.batching_checks [NAME...]``.

Prints a row for each figure: what was asked, what was measured, whether it holds. Checks that need
the default model take minutes; ``--scale 0.1`` runs a tenth of their work. Machines are noisy:
ratios are medians of interleaved rounds in one process.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asv_bench.benchmarks import batching as cases
from asv_bench.kills import kill_runs
from asv_bench.resident import resident_growth
from numbatch import LLM, IdMap, Request
from numbatch.batching.batch_sizer import PRESETS
from numbatch.batching.journaled_run import JournaledRun

STEP_SIZES = (8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Row:
    """A figure: what it is of, what was asked, what was measured, and whether that is enough."""

    what: str
    asked: str
    measured: str
    holds: bool


def median_of(
    function: Callable[[], object],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(rounds):
        begin = clock()
        function()
        seconds.append(clock() - begin)
    return float(np.median(seconds))


def check_ids(scale: float) -> Iterator[Row]:
    """The map of ids: a million, and what a look-up takes as it grows.

    One thread does all of it, and waits for nothing but memory: its own time is taken, so that
    other work on the machine does not count.
    """
    one, bulk = {}, {}
    median = functools.partial(median_of, clock=time.thread_time)
    for count in (1_000, 1_000_000):
        case = cases.Ids()
        case.setup(count)
        chance = np.random.default_rng(1)
        asked = [f"request-{i}" for i in chance.integers(0, count, 20_000)]
        get = case.ids.get

        def each(asked=asked, get=get):
            for name in asked:
                get(name)

        one[count] = median(each) / len(asked) * 1e9
        bulk[count] = median(lambda case=case: case.ids.index_of(case.names)) / count * 1e9
    seconds = median(lambda: IdMap(case.names))
    yield Row("1,000,000 ids: build", "< 0.5 s", f"{seconds:.3f} s", seconds < 0.5)
    worst = max(one.values())
    yield Row("one look-up, of random ids, from Python", "< 1 us", f"{worst:.0f} ns", worst < 1000)
    yield Row("look-ups in bulk", "< 60 ns", f"{bulk[1_000_000]:.0f} ns", bulk[1_000_000] < 60)
    shuffled = median(lambda: case.ids.index_of(case.shuffled)) / 1e6 * 1e9
    touched = median(lambda: case.shuffled[:]) / 1e6 * 1e9
    yield Row(
        f"the same, texts strewn over memory (to touch each takes {touched:.0f})",
        "< 60 ns",
        f"{shuffled:.0f} ns",
        shuffled < 60,
    )
    above = case.track_bytes_above_the_ids_own(1_000_000)
    yield Row("memory above the ids' own bytes", "<= 24 B", f"{above:.1f} B", above <= 24)
    some = case.some
    same = median(lambda: [get(name) for name in some], 20) / len(some) * 1e9
    flat = same / one[1_000]
    yield Row(
        "one look-up, 1,000,000 ids by 1,000, the same 1,000 asked for",
        "flat",
        f"{flat:.2f} times",
        flat < 1.25,
    )
    yield Row(
        "the same, all ids asked for (memory slower than cache)",
        "flat",
        f"{one[1_000_000] / one[1_000]:.2f} times",
        one[1_000_000] < 3 * one[1_000],
    )


def check_scheduler(scale: float) -> Iterator[Row]:
    """Bookkeeping of a step, 256 sequences running and 100,000 waiting."""
    for tags in (1, 50):
        case = cases.Scheduling()
        case.waiting = 100_000
        case.setup(tags)
        ms = case.median_ms_a_step()
        what = f"scheduler and bookkeeping, 256 running, 100,000 waiting, {tags} tags"
        yield Row(what, "< 1 ms a step", f"{ms:.2f} ms", ms < 1)


def check_overhead(scale: float) -> Iterator[Row]:
    """All Python of a step: layout, sampling parameters, texts, statistics."""
    for sequences in (1, 8, 32, 256):
        case = cases.StepOverhead()
        case.setup(sequences)
        seconds = median_of(lambda case=case: case.time_step(0), 300)
        what = f"a step of {sequences} sequences without the model"
        yield Row(what, "", f"{1e6 * seconds:.0f} us", True)


def check_sharing(scale: float) -> Iterator[Row]:
    """Multiple choice: 100 contexts of 400 tokens, 8 options of 10, shared and not in turns."""
    rounds = max(1, round(10 * scale))
    seconds, same = sharing(range(rounds))
    ratio = seconds[False] / seconds[True]
    what = f"{10 * rounds} contexts of 400 tokens, 8 options of 10: shared by not shared"
    yield Row(what, ">= 5 times", f"{ratio:.2f} times", ratio >= 5)
    yield Row("the same, bits of the log-probabilities", "same", "same" if same else "differ", same)


def sharing(rounds: Iterable[int]) -> tuple[dict[bool, float], bool]:
    """Return the seconds that rounds of 10 contexts take, shared and not, and if bits are equal."""
    engines, seconds, same = {}, {True: 0.0, False: 0.0}, True
    for shared in (True, False):
        engines[shared] = cases.SharedContext()
        engines[shared].contexts, engines[shared].threads = 10, None
        engines[shared].setup(shared)
    for i in rounds:
        results = {}
        for shared, case in engines.items():
            case.seed = i
            begin = time.perf_counter()
            case.time_choose(shared)
            seconds[shared] += time.perf_counter() - begin
            results[shared] = {r.id: r.logprobs.tobytes() for r in case.results}
        same &= results[True] == results[False]
    return seconds, same


def check_continuous(scale: float) -> Iterator[Row]:
    """Continuous batching against batches that wait for their longest, at equal KV memory."""
    count = max(8, round(500 * scale))
    ratio = serve(False, count) / serve(True, count)
    what = f"{count} requests of 8 to 256 tokens: continuous by static batches"
    yield Row(what, ">= 1.5 times", f"{ratio:.2f} times", ratio >= 1.5)


def serve(continuous: bool, count: int, part: slice = slice(None)) -> float:
    """Return the seconds that ``count`` requests, or a part of them, take."""
    case = cases.Continuous()
    case.count, case.threads = count, None
    case.setup(continuous)
    begin = time.perf_counter()
    case.serve(list(case.requests())[part], continuous)
    return time.perf_counter() - begin


def check_latency(scale: float) -> Iterator[Row]:
    """The 95th percentile of step time under the latency preset.

    The target is the preset's, or where steps without one take less than it, six tenths of these:
    a target that nothing reaches tells nothing.
    """
    steps = max(100, round(1000 * scale))
    free = cases.StepTimes()
    longest = 1000 * np.percentile([free.step() for _ in range(150)][50:], 95)
    target = min(PRESETS["latency"].target_latency_ms, round(0.6 * longest))
    case = cases.StepTimes(preset="latency", target_latency_ms=target)
    seconds = [case.step() for _ in range(steps)]
    p95, rate = 1000 * np.percentile(seconds, 95), case.tokens / sum(seconds)
    what = (
        f"latency preset, target {target:.0f} ms (steps without: {longest:.0f}), "
        f"95th percentile of {steps} steps, at {rate:.0f} tokens/s"
    )
    asked = f"{0.9 * target:.0f} to {1.1 * target:.0f} ms"
    yield Row(what, asked, f"{p95:.0f} ms", 0.9 * target <= p95 <= 1.1 * target)


def check_throughput(scale: float) -> Iterator[Row]:
    """The throughput preset against every fixed size, in turns."""
    engines = {size: cases.StepTimes(max_num_batched_tokens=size) for size in STEP_SIZES}
    engines[0] = cases.StepTimes(preset="throughput")
    for engine in engines.values():
        engine.rate(3.0 * scale)  # learning
    rates: dict[int, list[float]] = {size: [] for size in engines}
    for _ in range(5):
        for size, engine in engines.items():
            rates[size].append(engine.rate(3.0 * scale))
    medians = {size: float(np.median(rate)) for size, rate in rates.items()}
    last = engines[0].engine.sizer.last
    chosen = medians.pop(0)
    best = max(medians, key=lambda size: medians[size])
    share = chosen / medians[best]
    print(
        ", ".join(f"{size}: {rate:.0f} tokens/s" for size, rate in medians.items()), file=sys.stderr
    )
    what = f"throughput preset ({last.tokens}, {last.limit}) by the best fixed size ({best})"
    yield Row(what, ">= 0.95", f"{share:.3f}", share >= 0.95)


def check_fairness(scale: float) -> Iterator[Row]:
    """Two tags, one sending 100 times more, over the scheduler alone.

    Prompts and outputs are alike, or prompts of one against outputs of the other, or the light one
    comes when the heavy one's long outputs have taken every place.
    """
    budget = 512
    pairs = [((100, 30), (100, 30)), ((900, 1), (20, 60)), ((20, 60), (900, 1))]
    pairs += [((20, 900), (100, 30)), ((900, 100), (1, 1))]
    for (heavy, light), late in itertools.product(pairs, (0, 200)):
        worst = cases.tags_apart(budget, heavy, light, late, steps=round(3000 * scale))
        what = f"tags, one sending 100 times more, prompts and outputs {heavy}, {light}"
        what += f", {late} steps late" if late else ""
        yield Row(what, f"<= {2 * budget}", f"{worst:.0f} tokens", worst <= 2 * budget)


def check_journal(scale: float) -> Iterator[Row]:
    """What a journal takes of a run's time."""
    llm = LLM("smollm2")
    rng = np.random.default_rng(0)
    requests = [
        Request(i, cases.random_tokens(rng, 32)) for i in range(max(20, round(500 * scale)))
    ]
    spent = 0.0
    keep = JournaledRun._keep

    def timed(self, response):
        nonlocal spent
        begin = time.perf_counter()
        keep(self, response)
        spent += time.perf_counter() - begin

    JournaledRun._keep = timed
    llm.run(requests)  # compile
    ratios, shares = [], []
    for i in range(6):
        seconds = {}
        for journaled in (True, False) if i % 2 else (False, True):
            spent, begin = 0.0, time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                llm.run(requests, journal=Path(folder) / "journal" if journaled else None)
            seconds[journaled] = time.perf_counter() - begin
            if journaled:
                shares.append(spent / seconds[True])
        ratios.append(seconds[True] / seconds[False])
    JournaledRun._keep = keep
    ratio, share = float(np.median(ratios)) - 1, float(np.median(shares))
    what = f"journal, {len(requests)} texts of 32 tokens: "
    yield Row(what + "time spent in it", "< 2 %", f"{100 * share:.2f} %", share < 0.02)
    yield Row(what + "whole runs", "< 2 %", f"{100 * ratio:.1f} %", ratio < 0.02)


def check_kills(scale: float) -> Iterator[Row]:
    """Kill runs of the command line at random instants."""
    kills = max(5, round(200 * scale))
    report = kill_runs(kills)
    what = f"{report.kills} kills ({report.at_work} after results) in {report.runs} runs"
    measured = f"{report.lost} lost, {report.doubled} doubled, {report.different} different"
    sound = not (report.lost or report.doubled or report.different) and report.kills >= kills
    yield Row(what, "0", measured, sound)


def check_memory(scale: float) -> Iterator[Row]:
    """The estimate against how much the process grows."""
    for sizes in ({"max_num_seqs": 8}, {"max_num_seqs": 32, "max_num_batched_tokens": 1024}):
        estimated, measured = resident_growth(**sizes)
        off = estimated / measured - 1
        what = f"estimate_memory, {sizes}: {estimated / 2**20:.0f} MB by the growth of the process"
        yield Row(what, "within 5 %", f"{100 * off:+.1f} %", abs(off) <= 0.05)


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def main() -> int:
    """Run the checks that are named, or all; return 1 if a figure does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *CHECKS], help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the work")
    options = parser.parse_args()
    failed = 0
    print(f"| {'what':<75} | {'asked':<13} | {'measured':<15} | holds |")
    print(f"|{'-' * 77}|{'-' * 15}|{'-' * 17}|-------|")
    for name in options.names or CHECKS:
        for row in CHECKS[name](options.scale):
            failed += not row.holds
            holds = "yes" if row.holds else "NO"
            print(
                f"| {row.what:<75} | {row.asked:<13} | {row.measured:<15} | {holds:<5} |",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
