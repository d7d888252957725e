"""Scoring, generation and loading of the default model, on text made from a fixed seed."""

import subprocess
import sys

import numpy as np

from numbatch import LLM, SamplingParams

from .sizes import repeat, rounds  # noqa: F401

FIRST_TOKEN = (
    "from numbatch import LLM, SamplingParams;"
    "LLM('smollm2').generate('Hello', SamplingParams(max_tokens=1))"
)


def random_prompts(sequences, length):
    rng = np.random.default_rng(0)
    return list(rng.integers(1000, 40000, (sequences, length)))


class Scoring:
    """Log-probabilities of all tokens."""

    params = ([1, 8], [256], [1, 2])
    param_names = ("sequences", "length", "threads")
    timeout = 300

    def setup(self, sequences, length, threads):
        self.llm = LLM("smollm2", threads=threads)
        self.prompts = random_prompts(sequences, length)
        self.llm.score(self.prompts[:1])  # compile

    def time_score(self, sequences, length, threads):
        self.llm.score(self.prompts)


class Generation:
    """Greedy continuation by 16 tokens."""

    params = ([1, 8, 32], [1, 2])
    param_names = ("sequences", "threads")
    timeout = 300

    def setup(self, sequences, threads):
        self.llm = LLM("smollm2", threads=threads)
        self.prompts = random_prompts(sequences, 16)
        self.sampling = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
        self.llm.generate(self.prompts[:1], self.sampling)  # compile

    def time_generate(self, sequences, threads):
        self.llm.generate(self.prompts, self.sampling)


class Memory:
    """Peak memory of a process that scores 8 sequences of 512 tokens."""

    timeout = 300

    def peakmem_score_8_by_512(self):
        LLM("smollm2").score(random_prompts(8, 512))


class Start:
    """A new process with a warm JIT cache, from its start to the first generated token."""

    timeout = 300
    number = 1

    def setup(self):
        self.time_first_token()

    def time_first_token(self):
        subprocess.run([sys.executable, "-c", FIRST_TOKEN], check=True)
