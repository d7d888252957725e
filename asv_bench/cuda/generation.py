"""Generation of one and of many sequences against transformers' continuous batching."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from asv_bench.cuda.common import (
    VOCABULARY,
    copy_bandwidth,
    limits,
    model,
    row,
    torch_model,
    weights_of,
)
from asv_bench.cuda.scoring import free
from numbatch.batching.backend import make_engine
from numbatch.batching.request import Request, SamplingParams

PROMPT = 128


def prompts(count: int) -> list[np.ndarray]:
    """Return prompts of random tokens."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, VOCABULARY, PROMPT) for _ in range(count)]


def requests(given: list[np.ndarray], length: int) -> list[Request]:
    """Return requests that continue prompts greedily."""
    params = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True)
    return [Request(i, ids, params) for i, ids in enumerate(given)]


def tokens_a_second(engine: Any, given: list[np.ndarray], short: int, long: int) -> float:
    """Return the rate of decoding: the time of more tokens less that of fewer."""
    count = len(given)

    def run(length: int) -> float:
        begin = time.perf_counter()
        list(engine.run(requests(given, length)))
        return time.perf_counter() - begin

    run(short), run(long)
    times = [run(long) - run(short) for _ in range(3)]
    return count * (long - short) / float(np.median(times))


@torch.no_grad()  # its threads write to what it allocates: inference_mode() forbids that
def peer_rate(peer: Any, given: list[np.ndarray], short: int, long: int) -> float:
    """Return the same for transformers' ``generate`` (one) or ``generate_batch`` (several)."""
    import transformers

    count, ids_of = len(given), [ids.tolist() for ids in given]

    def run(length: int) -> float:
        config = transformers.GenerationConfig(
            max_new_tokens=length, min_new_tokens=length, do_sample=False, eos_token_id=-1,
            pad_token_id=0,
        )  # fmt: skip
        begin = time.perf_counter()
        if count == 1:
            ids = torch.tensor(ids_of, device="cuda")
            mask = torch.ones_like(ids)
            found = peer.generate(ids, attention_mask=mask, generation_config=config)
            lengths = [found.shape[1] - ids.shape[1]]
        else:
            outputs = peer.generate_batch(inputs=ids_of, generation_config=config)
            lengths = [len(each.generated_tokens) for each in outputs.values()]
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if lengths != [length] * count:
            raise RuntimeError(f"the peer made {sum(lengths)} tokens, not {count} times {length}")
        return seconds

    run(short)
    times = [run(long) - run(short) for _ in range(1 if count > 1 else 2)]
    return count * (long - short) / float(np.median(times))


def measure(name: str, *options: str) -> None:
    """Time a shape in bfloat16, 4-bit, and the peer.

    Options may name one kind of weights; ``alone``: one sequence; ``nopeer``: not the peer.
    """
    rates: dict[str, float] = {}
    settings = {"max_num_batched_tokens": 8192, "max_num_seqs": 256, "max_model_len": 1024,
                "kv_tokens": 256 * 512}  # fmt: skip
    kinds = [("bf16", 16, {}), ("4-bit", 4, {})]
    if "invariant" in options:
        kinds.append(("invariant", 16, {"invariant": True}))
    named = [each for each in kinds if each[0] in options and each[0] != "invariant"]
    for kind, bits, more in named or kinds:
        loaded = model(name, bits=bits)
        engine = make_engine(loaded, "cuda", **settings, **more)
        size = weights_of(loaded) * (2 if bits == 16 else 0.5625)
        for count in (1,) if "alone" in options else (1, 16, 256):
            rate = tokens_a_second(engine, prompts(count), 32, 160)
            rates[f"{kind} {count}"] = rate
            row(
                f"generation {name}, {kind}, {count} sequences", f"{rate:,.0f} tok/s",
                f"{rate / count * size / copy_bandwidth():.0%} of copy",
            )  # fmt: skip
        del engine
        free()
    if not named:
        ratio = rates["4-bit 1"] / rates["bf16 1"]
        row(f"{name}: 4-bit over bf16, 1 sequence", f"x {ratio:.2f}")
    if {"nopeer", "alone"} & set(options) or "bf16 1" not in rates:
        return
    for count, lengths, kind in ((1, (16, 64), "sdpa"), (256, (16, 64), "paged|sdpa")):
        peer = torch_model(name)
        peer.set_attn_implementation(kind)
        rate = peer_rate(peer, prompts(count), *lengths)
        row(
            f"generation {name}, transformers, {count} sequences", f"{rate:,.0f} tok/s",
            f"ours x {rates[f'bf16 {count}'] / rate:.2f}",
        )  # fmt: skip
        del peer
        free()


def main(*options: str) -> None:
    """Print the table for the shapes named, or for both."""
    print(limits())
    for name in [each for each in options if each in ("1B", "8B")] or ["1B", "8B"]:
        measure(name, *options)
