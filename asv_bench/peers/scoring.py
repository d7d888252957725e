"""Scoring and generation beside llama.cpp and torch: one model, one run, interleaved.

Peers are asked in the same process, with the same GGUF file and the same number of threads:
llama-cpp-python as it is, torch by transformers on the dequantized weights in bfloat16. Before
anything is timed, log-probabilities are compared with torch's in float32.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from numbatch import LLM, Request, SamplingParams
from numbatch.kernels.simd_path import simd_path
from numbatch.models.locate import locate

__all__ = ["main"]

TOLERANCE = 0.15
"""Mean difference of a token's log-probability from float32's beyond which nothing is timed."""


class Ours:
    """Numbatch; texts are new in each call, so that no beginning is known already."""

    name = "numbatch"

    def __init__(self, path: Path, threads: int, compute: str | None) -> None:
        self.llm = LLM(path, threads=threads, compute=compute)

    def score(self, tokens: np.ndarray) -> list[np.ndarray]:
        requests = [Request(i, row) for i, row in enumerate(tokens)]
        results = {result.id: result for result in self.llm.engine.run(requests)}
        return [results[i].logprobs[1:] for i in range(len(tokens))]

    def generate(self, tokens: np.ndarray, count: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        for _ in self.llm.engine.run([Request(i, row, params) for i, row in enumerate(tokens)]):
            pass


class Torch:
    """transformers with torch, dense weights."""

    def __init__(self, path: Path, threads: int, dtype: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.name = torch, f"torch {dtype}"
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=getattr(torch, dtype)
        ).eval()

    def score(self, tokens: np.ndarray) -> list[np.ndarray]:
        torch = self.torch
        out: list[np.ndarray] = []
        for low in range(0, len(tokens), 8):  # more rows of logits take more memory, no less time
            ids = torch.from_numpy(tokens[low : low + 8])
            with torch.inference_mode():
                logits = self.model(ids).logits[:, :-1].float()
                found = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
            out += list(found.numpy())
        return out

    def generate(self, tokens: np.ndarray, count: int) -> None:
        with self.torch.inference_mode():
            self.model.generate(
                self.torch.from_numpy(tokens), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip


class Llama:
    """llama-cpp-python: one sequence at a time, which is all that its interface offers."""

    name = "llama.cpp"

    def __init__(self, path: Path, threads: int, context: int) -> None:
        import llama_cpp
        from llama_cpp import llama_cpp as low

        # With its own AMX buffers version 0.3.36 ends in a segmentation fault on some CPUs.
        defaults = low.llama_model_default_params

        def plain() -> Any:
            params = defaults()
            params.use_extra_bufts = False
            return params

        low.llama_model_default_params = plain
        try:
            kwargs: Any = {"n_ctx": context, "n_batch": 512, "verbose": False}
            kwargs |= {"n_threads": threads, "n_threads_batch": threads}
            self.scorer = llama_cpp.Llama(str(path), logits_all=True, **kwargs)
            self.writer = llama_cpp.Llama(str(path), **kwargs)
        finally:
            low.llama_model_default_params = defaults

    def score(self, tokens: np.ndarray) -> list[np.ndarray]:
        out = []
        for row in tokens:
            self.scorer.reset()
            self.scorer.eval(row.tolist())
            logits = self.scorer.scores[: len(row) - 1].astype(np.float32)
            top = logits.max(axis=1, keepdims=True)
            norm = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
            out.append(logits[np.arange(len(row) - 1), row[1:]] - norm)
        return out

    def generate(self, tokens: np.ndarray, count: int) -> None:
        for row in tokens:
            self.writer.reset()
            self.writer.eval(row.tolist())
            for _ in range(count):
                token = self.writer.sample(temp=0)
                self.writer.eval([token])


def _peers(args: argparse.Namespace, path: Path) -> list[Any]:
    makers: list[tuple[str, Callable[[], Any]]] = [
        ("llama-cpp-python", lambda: Llama(path, args.threads, 1024)),
        ("torch and transformers", lambda: Torch(path, args.threads, "bfloat16")),
    ]
    found = []
    for name, make in makers:
        try:
            found.append(make())
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def _check(ours: Ours, path: Path, threads: int, tokens: np.ndarray) -> None:
    try:
        exact = np.concatenate(Torch(path, threads, "float32").score(tokens))
    except ImportError as error:
        raise SystemExit(
            f"torch and transformers are needed for the comparison: {error}"
        ) from error
    difference = np.abs(np.concatenate(ours.score(tokens)) - exact)
    print(f"log-probabilities against float32: mean difference {difference.mean():.4f}, "
          f"largest {difference.max():.3f}")  # fmt: skip
    if not difference.mean() < TOLERANCE:
        raise SystemExit(f"the mean difference should be less than {TOLERANCE}: nothing is timed")


def _rate(run: Callable[[], Any], tokens: int) -> float:
    begin = time.perf_counter()
    run()
    return tokens / (time.perf_counter() - begin)


def main(argv: list[str]) -> None:
    """Print tokens a second of each, and the ratio to the best peer."""
    parser = argparse.ArgumentParser(prog="python -m asv_bench.peers scoring")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compute", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--only", help="cases whose name holds this")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    path = locate("smollm2")
    rng = np.random.default_rng(0)

    def texts(count: int, length: int) -> np.ndarray:
        return rng.integers(100, 40_000, (count, length))

    ours = Ours(path, args.threads, args.compute)
    print(f"path {simd_path()}, compute {ours.llm.engine.compute}, {args.threads} threads")
    _check(ours, path, args.threads, texts(2, 64))
    everyone = [ours, *_peers(args, path)]
    cases = [(f"score {n} x {length}", n, length, 0) for n, length in ((1, 512), (32, 256))]
    cases += [(f"generate, {n} sequences", n, 8, 32) for n in (1, 8, 32)]
    print(f"{'tokens a second':24}" + "".join(f"{each.name:>18}" for each in everyone) + "   ratio")
    for name, count, length, new in cases:
        if args.only and args.only not in name:
            continue
        rates: dict[str, list[float]] = {each.name: [] for each in everyone}
        for round_number in range(args.rounds + 1):
            for each in everyone:
                tokens = texts(count, length)
                # llama.cpp takes texts one after another: a few tell its rate.
                if each.name == "llama.cpp":
                    tokens = tokens[:2]

                if new:
                    run = partial(each.generate, tokens, new)
                else:
                    run = partial(each.score, tokens)
                rate = _rate(run, len(tokens) * (new or length))
                if round_number:  # the first warms up
                    rates[each.name].append(rate)
        middle = {key: float(np.median(values)) for key, values in rates.items()}
        best = max((value for key, value in middle.items() if key != ours.name), default=np.nan)
        row = "".join(f"{middle[each.name]:18.0f}" for each in everyone)
        print(f"{name:24}{row}{middle[ours.name] / best:8.2f}", flush=True)
