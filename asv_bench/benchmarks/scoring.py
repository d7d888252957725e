"""Scoring and generation with the default model, memory and the start of a process."""

import subprocess
import sys

import numpy as np

from numbatch import LLM, SamplingParams

from .sizes import (  # noqa: F401
    CHILDREN,
    min_run_count,
    once,
    only,
    repeat,
    rounds,
    timeout,
    timer_of,
    version,
    warmup_time,
)

FIRST_TOKEN = (
    "from numbatch import LLM, SamplingParams;"
    "LLM('smollm2').generate('Hello', SamplingParams(max_tokens=1))"
)


class Texts:
    """Texts of random tokens, new in each call: what was read before is kept, and costs no time."""

    def __init__(self):
        self._rng = np.random.default_rng(0)

    def __call__(self, sequences, length):
        return list(self._rng.integers(1000, 40000, (sequences, length)))


class Scoring:
    """Log-probabilities of all tokens."""

    params = ([1, 8], [256], [1, 2])
    param_names = ("sequences", "length", "threads")

    @once
    def setup(self, sequences, length, threads):
        only(threads == 1 or sequences == 8)
        self.timer = timer_of(threads)
        self.llm = LLM("smollm2", threads=threads)
        self.texts = Texts()
        self.llm.score(self.texts(1, length))

    def time_score(self, sequences, length, threads):
        self.llm.score(self.texts(sequences, length))


class Generation:
    """Greedy continuation by 16 tokens."""

    params = ([1, 8, 32], [1, 2])
    param_names = ("sequences", "threads")

    @once
    def setup(self, sequences, threads):
        # Two threads meet some 3,000 times: on a busy machine that takes ten times as long.
        only(threads == 1 and sequences != 8)
        self.timer = timer_of(threads)
        self.llm = LLM("smollm2", threads=threads)
        self.texts = Texts()
        self.sampling = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
        self.llm.generate(self.texts(1, 16), self.sampling)

    def time_generate(self, sequences, threads):
        self.llm.generate(self.texts(sequences, 16), self.sampling)


class Memory:
    """Peak memory of a process that scores 8 sequences of 512 tokens."""

    def peakmem_score_8_by_512(self):
        LLM("smollm2").score(Texts()(8, 512))


class Start:
    """A new process with a warm JIT cache, from its start to the first generated token."""

    timer = CHILDREN

    def time_first_token(self):
        subprocess.run([sys.executable, "-c", FIRST_TOKEN], check=True)
