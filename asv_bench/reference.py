"""Measure accuracy, memory, starts and speed: ``python -m asv_bench.reference``.

Log-probabilities against transformers (float32, on the weights that its own GGUF loader
dequantizes), memory, time to the first token, and speed. The text is Python's own documentation,
which every installation carries (``pydoc_data.topics``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch

from numbatch import LLM, SamplingParams
from numbatch.models.locate import locate

DOCUMENTS = 24
CHARACTERS = 1500

ARITHMETIC = (
    *(("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "int8")),
    *(("int8", "bfloat16"), ("int8", "int8")),
)
"""``compute`` and ``kv_dtype``."""

FIRST_TOKEN = """
from numbatch import LLM, SamplingParams
LLM("smollm2").generate("Hello", SamplingParams(max_tokens=1))
"""

MEMORY = """
import numpy
from numbatch import LLM, SamplingParams
prompts = list(numpy.random.default_rng(0).integers(1000, 40000, (8, 480)))
llm = LLM("smollm2")
llm.score(prompts)
llm.generate(prompts, SamplingParams(max_tokens=32, ignore_eos=True))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) / 1000)
"""


def documents() -> list[str]:
    """Return passages of real English text."""
    long = sorted(text for text in topics.values() if len(text) >= CHARACTERS)
    return [text[:CHARACTERS] for text in long[:DOCUMENTS]]


def reference_model():
    """Load the default model with transformers."""
    import transformers

    path = locate("smollm2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        ).eval()


def accuracy() -> None:
    """Print, for each arithmetic, what differs from transformers in float32."""
    llm = LLM("smollm2")
    texts, model = documents(), reference_model()
    expected = []
    for text in texts:
        tokens = torch.tensor(llm.encode(text))
        with torch.no_grad():
            logprobs = torch.log_softmax(model(tokens[None]).logits[0], -1)
        expected.append(logprobs[torch.arange(len(tokens) - 1), tokens[1:]].numpy())
    theirs = np.concatenate(expected).astype(np.float64)
    perplexity = np.exp(-theirs.mean())
    print(f"transformers, float32: corpus perplexity {perplexity:.5f} of {len(theirs):,} tokens")
    for compute, kv_dtype in ARITHMETIC:
        own = LLM("smollm2", compute=compute, kv_dtype=kv_dtype)
        ours = np.concatenate([row[1:] for row in own.score(texts)]).astype(np.float64)
        found, difference = np.exp(-ours.mean()), np.abs(ours - theirs)
        print(
            f"compute {compute:8}, kv_dtype {kv_dtype:8}: perplexity {found:.5f} "
            f"({100 * (found / perplexity - 1):+.3f} %), log-probabilities differ by "
            f"{difference.mean():.1e}, {difference.max():.1e} at most"
        )


def run(program: str, **environment: str) -> tuple[float, str]:
    """Run a program in a new process; return its seconds and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, done.stdout


def processes() -> None:
    """Print what new processes need: time to the first token, memory."""
    run(FIRST_TOKEN)
    warm = np.median([run(FIRST_TOKEN)[0] for _ in range(5)])
    print(f"first token, warm JIT cache           {warm:10.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(locate("smollm2").parent, os.path.join(folder, "models"))
        cold, _ = run(FIRST_TOKEN, NUMBATCH_CACHE=folder)
        print(f"first token, cold JIT cache           {cold:10.2f} s")
        _, printed = run(MEMORY, NUMBATCH_CACHE=folder)
    print(f"peak memory, 8 x 512, compiling       {float(printed):10.0f} MB")
    run(MEMORY)
    print(f"peak memory, 8 x 512, warm JIT cache  {float(run(MEMORY)[1]):10.0f} MB")


def speed() -> None:
    """Print tokens a second: the median of five runs each, of new texts in each."""
    llm, rng = LLM("smollm2"), np.random.default_rng(0)
    greedy = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)

    def prompts(sequences: int, length: int) -> list[np.ndarray]:
        return list(rng.integers(1000, 40000, (sequences, length)))

    for name, sequences, length in (("1 x 512", 1, 512), ("8 x 256", 8, 256)):
        tokens = rate(lambda s=sequences, n=length: llm.score(prompts(s, n)), sequences * length)
        print(f"scoring, {name}                      {tokens}")
    for sequences in (1, 8, 32):
        tokens = rate(lambda s=sequences: llm.generate(prompts(s, 16), greedy), sequences * 32)
        print(f"generation, {sequences:2} sequences              {tokens}")


def rate(action, tokens: int) -> str:
    """Return the median tokens a second of an action, which is run once before."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return f"{tokens / np.median(times[1:]):10.0f} tokens/s"


def save_licence() -> None:
    """Write the reference's log-probabilities of the licence, for ``benchmarks/end_to_end.py``."""
    folder = Path(__file__).parent
    text = (folder.parent / "LICENSE").read_text()[:4000]
    tokens = torch.tensor(LLM("smollm2").encode(text))
    with torch.no_grad():
        logprobs = torch.log_softmax(reference_model()(tokens[None]).logits[0].double(), -1)
    chosen = logprobs[torch.arange(len(tokens) - 1), tokens[1:]]
    np.save(folder / "benchmarks" / "licence_logprobs.npy", chosen.numpy().astype(np.float32))


PARTS = {"accuracy": accuracy, "processes": processes, "speed": speed}


def main() -> None:
    """Print the named parts, or all; with ``--save`` write what benchmarks compare with."""
    if sys.argv[1:] == ["--save"]:
        save_licence()
        return
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"{unknown[0]} is no part, should be one of {', '.join(PARTS)}")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
