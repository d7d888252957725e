"""Drawing tokens from rows of logits, and log-probabilities of tiles, on one thread.

Run as ``python -m asv_bench.benchmarks.sampling`` to print a table: interleaved, medians.
"""

import time

import numba
import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.logit_tiles import SEGMENT, STATE, reduce_row, start_lanes
from numbatch.kernels.scoring.processors import compile_processor
from numbatch.kernels.scoring.row_states import reduce_rows, state_numbers
from numbatch.kernels.scoring.sampling import ROW, sample_rows, sampling_scratch

from .sizes import (  # noqa: F401
    CPU,
    min_run_count,
    once,
    repeat,
    rounds,
    sized,
    timeout,
    version,
    warmup_time,
)

VOCABULARY = 49152
ROWS = 4

NEUTRAL = dict(zip(ROW.names, (1.0, 1.0, 0.0, 0, 1.0, 0.0, 0.0, 0, 1, 0, 0, 0), strict=True))

SETTINGS = {
    "greedy": {"temperature": 0.0},
    "greedy, 5 log-probabilities": {"temperature": 0.0},
    "all": {},
    "temperature 0.7": {"temperature": 0.7},
    "top_k 50": {"top_k": 50},
    "top_k 50, top_p 0.95, temperature 0.8": {"top_k": 50, "top_p": 0.95, "temperature": 0.8},
    "top_p 0.95": {"top_p": 0.95},
    "top_p 0.95, temperature 0.7": {"top_p": 0.95, "temperature": 0.7},
    "min_p 0.05": {"min_p": 0.05},
    "penalties over 500 tokens": {"temperature": 0.0, "repetition": 1.1},
}


ALIKE = ("temperature 0.7", "top_k 50", "top_p 0.95")
"""Settings that go the way of others: they are printed, and not timed for each commit."""


@numba.njit
def ban_one(logits, argument, position):
    """Compile what a user would: one token is banned."""
    logits[argument] = -np.inf


@cpu_kernel
def reduce_segments(logits, state):
    """Reduce rows of logits by segments, as scoring does."""
    for row in range(logits.shape[0]):
        for low in range(0, logits.shape[1], SEGMENT):
            start_lanes(state, 0)
            for at in range(low, min(low + SEGMENT, logits.shape[1]), 256):
                reduce_row(logits[row], at, 256, state, 0)


def likely_logits(rows=ROWS):
    """Rows like a model's: a bell curve, and a few tokens that stand out."""
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((rows, VOCABULARY)) * 2.5).astype(np.float32)
    for row in logits:
        row[rng.integers(0, VOCABULARY, 40)] += np.linspace(6, 1, 40).astype(np.float32)
    return logits


class Draw:
    """Rows of 49,152 logits, drawn from in every way; the time is that of ``ROWS`` rows."""

    params = ([name for name in SETTINGS if name not in ALIKE],)
    param_names = ("setting",)
    timer = CPU
    number = sized(50, 1)

    @once
    def setup(self, setting):
        self.prepare(setting)

    def prepare(self, setting, processor=None, logits=None, scratch=None):
        changes = SETTINGS[setting] | {"processor": processor.address if processor else 0}
        top = 5 if "log-probabilities" in setting else 0
        tokens = 500 if "penalties" in setting else 0
        rng = np.random.default_rng(1)
        rows = [tuple((NEUTRAL | changes | {"position": i}).values()) for i in range(ROWS)]
        self.inputs = (
            likely_logits() if logits is None else logits,
            np.array(rows, ROW),
            rng.integers(0, VOCABULARY, tokens * ROWS),
            np.arange(ROWS + 1) * tokens,
        )
        self.outputs = (
            np.empty(ROWS, np.int64),
            np.empty(ROWS, np.float32),
            np.empty((ROWS, top), np.int64),
            np.empty((ROWS, top), np.float32),
        )
        self.processor = processor  # its machine code must live
        self.scratch = sampling_scratch(1, VOCABULARY)[0] if scratch is None else scratch
        self.states = np.empty((ROWS, state_numbers(VOCABULARY)), np.float32)
        self.time_draw(setting)

    def time_draw(self, setting):
        logits, *rest = self.inputs
        reduce_rows(0, ROWS, logits, self.states)
        sample_rows(0, ROWS, self.scratch, logits, self.states, *rest, *self.outputs)


class Processor(Draw):
    """The same with a user's function in it."""

    params = (["greedy", "all"],)

    @once
    def setup(self, setting):
        self.prepare(setting, compile_processor(ban_one))


class Reduce:
    """The part of log-probabilities that is not the product: rows of logits in the cache."""

    timer = CPU
    number = sized(200, 1)

    @once
    def setup(self):
        self.logits, self.state = likely_logits(), np.empty(STATE, np.float32)
        self.time_reduce()

    def time_reduce(self):
        reduce_segments(self.logits, self.state)


def interleaved(calls, times=60):
    """Median seconds of each call, all in turn."""
    seconds = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            call()  # what another call left in the caches is gone
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(each)) for name, each in seconds.items()}


def numpy_greedy(logits):
    """What greedy decoding and its log-probability cost in NumPy."""
    best = logits.argmax(1)
    peak = logits[range(len(logits)), best]
    return best, -np.log(np.exp(logits - peak[:, None]).sum(1))


def main():
    """Print microseconds a row, and what a user's function adds."""
    calls = {}
    logits, scratch = likely_logits(), sampling_scratch(1, VOCABULARY)[0]
    for setting in SETTINGS:
        for name, processor in (("", None), (" + function", compile_processor(ban_one))):
            case = Draw()
            case.prepare(setting, processor, logits, scratch)
            calls[setting + name] = lambda case=case: case.time_draw("")
    reduce = Reduce()
    reduce.setup()
    calls["reduce"] = reduce.time_reduce
    calls["NumPy"] = lambda: numpy_greedy(logits)
    found = {name: 1e6 * each / ROWS for name, each in interleaved(calls).items()}
    print(f"microseconds a row of {VOCABULARY} logits, {ROWS} rows, one thread, medians\n")
    print("| setting | us a row | with a user's function |")
    print("|---|---|---|")
    for setting in SETTINGS:
        print(f"| {setting} | {found[setting]:.1f} | {found[setting + ' + function']:.1f} |")
    print(f"\ngreedy with its log-probability in NumPy: {found['NumPy']:.0f}")
    per_vector = 1e3 * found["reduce"] / (VOCABULARY / 16)
    print(f"log-sum-exp of tiles: {found['reduce']:.1f}, {per_vector:.2f} ns for 16 logits")


if __name__ == "__main__":
    main()
