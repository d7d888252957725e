"""Scoring and generation beside llama.cpp and torch: one model, one run, interleaved.

Peers take turns with the same number of threads, each in a process of its own and at its best:
llama.cpp by its C interface with all sequences in a call, from the model's own file and from two
that it makes of it (Q4_0, Q8_0), of which the fastest is taken, case by case; torch by transformers
on the dequantized weights, in bfloat16 where the CPU multiplies that, else in float32 (where it is
emulated, on a Zen 3, it took five times as long). Before anything is timed, log-probabilities are
compared with torch's in float32 on the weights of the model's own file.

Rates are medians of the rounds. Where others use the machine, the ratio of each one's fastest round
says what it can do undisturbed.

No peer guesses tokens ahead here, and neither does Numbatch: what that gains is a row of its own.

Then: two threads against one, attention's share of scoring 4,096 tokens, what a step takes beside
its kernels, and new processes to their first token.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.peers.first_token import first_token
from asv_bench.peers.llama import Setting, quantized_files, running_llama
from asv_bench.peers.process import Process
from asv_bench.peers.scoring_parts import (
    attention_share,
    beside_kernels,
    guesses_gain,
    threads_ratio,
)
from asv_bench.peers.torch_model import TorchModel
from numbatch import LLM, Request, SamplingParams
from numbatch.kernels.simd_bfloat16 import has_bfloat16
from numbatch.kernels.simd_path import simd_path
from numbatch.models.locate import locate

__all__ = ["main"]

TOLERANCE = 0.15
"""Mean difference of a token's log-probability from float32's beyond which nothing is timed."""

CASES = {  # texts, tokens of each, tokens to generate after them
    "score 1 x 512": (1, 512, 0),
    "score 32 x 256": (32, 256, 0),
    "generate, 1 sequence": (1, 8, 32),
    "generate, 8 sequences": (8, 8, 32),
    "generate, 32 sequences": (32, 8, 32),
}


PARTS = ("threads", "guesses", "attention", "beside")
"""Rows without a peer."""

FIRST = "first token"
"""The row of new processes, which is measured before this one takes memory."""

KV_TOKENS = 16_384
"""Keys and values that Numbatch keeps: twice what the largest case needs."""


class Ours:
    """Numbatch; texts are new in each call, so that no beginning is known already.

    The memory of its keys and values is written once before anything is timed, as is that of the
    peers, who use the same in each call: on a virtual machine a page's first use may cost more than
    the tokens in it.
    """

    name = "numbatch"

    def __init__(self, path: Path, threads: int, compute: str | None) -> None:
        self.llm = LLM(
            path, threads=threads, compute=compute, kv_tokens=KV_TOKENS, num_speculative_tokens=0
        )
        self.score(_texts(np.random.default_rng(3), KV_TOKENS // 256, 256))

    def call(self, method: str, *args: Any) -> tuple[float, Any]:
        """Return how long a method took, and what it returned; as a ``Process`` does."""
        begin = time.perf_counter()
        result = getattr(self, method)(*args)
        return time.perf_counter() - begin, result

    def score(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Return log-probabilities of all tokens but each row's first."""
        requests = [Request(i, row) for i, row in enumerate(tokens)]
        results = {result.id: result for result in self.llm.engine.run(requests)}
        return [results[i].logprobs[1:] for i in range(len(tokens))]

    def generate(self, tokens: np.ndarray, count: int) -> None:
        """Continue each row by the likeliest tokens."""
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        for _ in self.llm.engine.run([Request(i, row, params) for i, row in enumerate(tokens)]):
            pass


def _texts(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    return rng.integers(100, 40_000, (count, length))


def _rate(model: Any, case: tuple[int, int, int], rng: np.random.Generator) -> float:
    """Return tokens a second of a case with new texts."""
    count, length, new = case
    tokens = _texts(rng, count, length)
    call = ("generate", tokens, new) if new else ("score", tokens)
    return count * (new or length) / model.call(*call)[0]


def _check(models: list[Any], path: Path, threads: int, tokens: np.ndarray) -> None:
    """Print how far log-probabilities are from float32's; stop where ours are too far."""
    reference = Process(TorchModel, path, threads, "float32")
    exact = np.concatenate(reference.call("score", tokens)[1])
    reference.close()
    for model in models:
        difference = np.abs(np.concatenate(model.call("score", tokens)[1]) - exact)
        print(f"log-probabilities against float32, {model.name:30}: mean difference "
              f"{difference.mean():.4f}, largest {difference.max():.3f}")  # fmt: skip
        if model.name == Ours.name and not difference.mean() < TOLERANCE:
            raise SystemExit(f"the difference should be less than {TOLERANCE}: nothing is timed")


def _llamas(path: Path, folder: Path, threads: int) -> list[Process]:
    """Start llama.cpp with each file, repacked for the CPU where it lives through that."""
    try:
        files = quantized_files(path, folder, threads)
    except ImportError as error:
        print(f"llama-cpp-python is left out: {error}")
        return []
    found = []
    for name, file in files.items():
        setting = Setting(file, name, True)
        try:
            process = Process(running_llama, setting, threads)
        except EOFError:
            print(f"llama.cpp dies on {name} with repacked weights (see asv_bench/peers/llama.py)")
            setting = Setting(file, name, False)
            process = Process(running_llama, setting, threads)
        found.append(process)
    return found


def _fastest(
    llamas: list[Process], case: tuple[int, int, int], rng: np.random.Generator
) -> Process:
    """Return the llama.cpp that is fastest at a case; the first call of each warms up."""
    rates = [max(_rate(llama, case, rng) for _ in range(3)) for llama in llamas]
    return llamas[int(np.argmax(rates))]


def _ratio(rates: dict[str, float], name: str) -> float:
    """Return the rate of ``name`` over the best of the others."""
    return rates[name] / max(rate for key, rate in rates.items() if key != name)


def _compare(ours: Ours, llamas: list[Process], torch: Process, chosen: str, rounds: int) -> None:
    rng = np.random.default_rng(0)
    print(f"\n{'tokens a second':24}{'numbatch':>10}{'llama.cpp':>11}{torch.name:>16}"
          f"{'ratio to the better':>21}{'of the fastest':>16}  llama.cpp's weights")  # fmt: skip
    for name, case in CASES.items():
        if chosen not in name:
            continue
        best = [_fastest(llamas, case, rng)] if llamas else []
        rates: dict[str, list[float]] = {}
        for round_number in range(rounds + 1):
            for model in (ours, *best, torch):
                rate = _rate(model, case, rng)
                if round_number:  # the first warms up
                    rates.setdefault(model.name, []).append(rate)
        middle = {key: float(np.median(values)) for key, values in rates.items()}
        top = {key: max(values) for key, values in rates.items()}
        llama = middle[best[0].name] if best else np.nan
        print(f"{name:24}{middle[ours.name]:10.0f}{llama:11.0f}{middle[torch.name]:16.0f}"
              f"{_ratio(middle, ours.name):21.2f}{_ratio(top, ours.name):16.2f}"
              f"  {best[0].name if best else ''}",
              flush=True)  # fmt: skip


def _threads(ours: Ours, path: Path, args: argparse.Namespace) -> None:
    one = LLM(path, threads=1, compute=args.compute, num_speculative_tokens=0)
    for name, (count, length, new) in CASES.items():
        ratio = threads_ratio(ours.llm, one, count, length, new, args.rounds)
        print(f"{args.threads} threads against one, {name:24}{ratio:8.2f}", flush=True)


def _guesses(ours: Ours, path: Path, args: argparse.Namespace) -> None:
    guessing = LLM(path, threads=args.threads, compute=args.compute, kv_tokens=KV_TOKENS)
    for count in (1, 8, 32):
        for temperature in (0, 0.8):
            rate, ratio = guesses_gain(guessing, ours.llm, count, temperature, args.rounds)
            print(f"with guesses, {count:2} real texts, temperature {temperature:3}: {rate:6.0f} "
                  f"tokens/s, {ratio:.2f} times without", flush=True)  # fmt: skip


def _parts(ours: Ours, path: Path, args: argparse.Namespace) -> None:
    """Print the rows that have no peer."""
    print()
    if args.threads > 1 and args.only in "threads":
        _threads(ours, path, args)
    if args.only in "guesses":
        _guesses(ours, path, args)
    if args.only in "attention":
        share = attention_share(ours.llm, 4096)
        print(f"attention's share of scoring 1 x 4,096 tokens   {100 * share:.1f} %", flush=True)
    if args.only in "beside":
        share = beside_kernels(ours.llm)
        print(f"beside the kernels, a step that generates for 1 sequence   {100 * share:.1f} %")


def _peers(ours: Ours, path: Path, args: argparse.Namespace) -> None:
    """Print the rows with peers."""
    with tempfile.TemporaryDirectory() as folder:
        llamas = _llamas(path, Path(folder), args.threads)
        dtype = "bfloat16" if has_bfloat16() else "float32"
        torch = Process(TorchModel, path, args.threads, dtype)
        _check([ours, *llamas, torch], path, args.threads, _texts(np.random.default_rng(1), 2, 64))
        _compare(ours, llamas, torch, args.only, args.rounds)
        for process in (torch, *llamas):
            process.close()


def main(argv: list[str]) -> None:
    """Print tokens a second of each, the ratio to the best peer, and the rows without one."""
    parser = argparse.ArgumentParser(prog="python -m asv_bench.peers scoring")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compute", choices=["float32", "bfloat16", "int8"])
    parser.add_argument(
        "--only", default="",
        help="rows whose name holds this; also: threads, guesses, attention, beside, first token",
    )  # fmt: skip
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    path = locate("smollm2")
    if args.only in FIRST:
        first_token(path, args.threads, args.rounds)
    if any(args.only in name for name in (*CASES, *PARTS)):
        ours = Ours(path, args.threads, args.compute)
        print(f"path {simd_path()}, compute {ours.llm.engine.compute}, {args.threads} threads")
        if any(args.only in name for name in CASES):
            _peers(ours, path, args)
        _parts(ours, path, args)
