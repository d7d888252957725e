"""From files and texts to results, and how close the results are to the reference's.

The text is the repository's licence, which does not change. The reference log-probabilities are
those of transformers in float32 on the dequantized weights (``python -m asv_bench.reference
--save``).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from numbatch import LLM, SamplingParams

from .sizes import (  # noqa: F401
    CHILDREN,
    min_run_count,
    once,
    repeat,
    rounds,
    sized,
    timeout,
    timer_of,
    version,
    warmup_time,
)

FOLDER = Path(__file__).resolve().parent
CHARACTERS = sized(4000, 400)


def licence(characters):
    """The beginning of the licence's text."""
    return (FOLDER.parents[1] / "LICENSE").read_text()[:characters]


class Texts:
    """Texts in, results out, in one process."""

    params = ([1, 2],)
    param_names = ("threads",)

    @once
    def setup(self, threads):
        self.timer = timer_of(threads)
        text = licence(CHARACTERS)
        size = CHARACTERS // 8
        self.texts = [text[i * size : (i + 1) * size] for i in range(8)]
        self.options = [" the License", " a copy", " any person", " nothing"]
        self.llm = LLM("smollm2", threads=threads)
        self.sampling = SamplingParams(temperature=0, max_tokens=sized(16, 2), ignore_eos=True)
        self.llm.score(["Hello there"])
        self.llm.generate(["Hello there"], self.sampling)

    def time_perplexity_of_8_texts(self, threads):
        self.llm.perplexity(self.texts)

    def time_continue_8_texts(self, threads):
        self.llm.generate(self.texts, self.sampling)

    def time_choose_of_4(self, threads):
        self.llm.choose(self.texts[0], self.options)


class CommandLine:
    """``numbatch run`` on a file, in a new process with a warm JIT cache."""

    timer = CHILDREN

    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "requests.jsonl"
        lines = [
            {"custom_id": f"{i}", "prompt": licence(100 + i), "max_tokens": sized(8, 2)}
            for i in range(sized(16, 2))
        ]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def teardown(self):
        self.folder.cleanup()

    def time_run(self):
        command = [sys.executable, "-m", "numbatch", "run", str(self.path), "-q", "--overwrite"]
        output = self.path.with_name("results.jsonl")
        subprocess.run([*command, "-o", str(output)], check=True, env=os.environ)


class Exactness:
    """The default model on the licence's text."""

    def setup(self):
        self.expected = np.load(FOLDER / "licence_logprobs.npy").astype(np.float64)
        self.llm = LLM("smollm2")

    def logprobs(self):
        (row,) = self.llm.score([licence(4000)])
        return row[1:].astype(np.float64)

    def track_largest_error_of_a_logprob(self):
        return float(np.abs(self.logprobs() - self.expected).max())

    def track_perplexity(self):
        return float(np.exp(-self.logprobs().mean()))

    def track_perplexity_of_the_reference(self):
        return float(np.exp(-self.expected.mean()))
