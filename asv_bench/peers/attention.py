"""Attention beside torch's scaled_dot_product_attention: interleaved in one run, medians.

SmolLM2's shape: 9 heads over 3 heads of keys, head size 64. torch is given keys and values already
expanded to 9 heads, contiguous, no paging, and equal lengths, which is what suits it best; Numbatch
reads shuffled blocks of 16 tokens. Results are compared before anything is timed.
"""

import argparse
import time

import numpy as np
import torch

from asv_bench.attention_steps import SMOLLM2, AttentionSteps

SHAPES = {  # sequences, tokens of context, tokens attended for
    "scoring, 4096 tokens": (1, 4096, 4096),
    "scoring, last 512 of 4096": (1, 4096, 512),
    "scoring, 8 x 512": (8, 512, 512),
    "decoding, 1 x 4096": (1, 4096, 1),
    "decoding, 8 x 1024": (8, 1024, 1),
    "decoding, 32 x 512": (32, 512, 1),
}
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "int8": 6e-2}


class Torch:
    """The same queries, keys and values as tensors of shape (sequences, heads, tokens, size)."""

    def __init__(self, steps, sequences, context, tokens, dtype):
        kv_heads, group, size = steps.shape
        k, v = (
            torch.from_numpy(x).reshape(sequences, context, kv_heads, size).transpose(1, 2)
            for x in steps.kv
        )
        self.k, self.v = (
            x.repeat_interleave(group, 1)
            .contiguous()
            .to(dtype)[None]
            .expand(steps.layers, *[-1] * 4)
            for x in (k, v)
        )
        if tokens == 1:  # as many layers as are read in turns, none of which stays in a cache
            self.k, self.v = self.k.clone(), self.v.clone()
        q = torch.from_numpy(steps.q).reshape(sequences, tokens, kv_heads * group, size)
        self.q = q.transpose(1, 2).contiguous().to(dtype)
        self.mask = None
        if 1 < tokens < context:
            seen = torch.arange(context)[None] <= torch.arange(context - tokens, context)[:, None]
            self.mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf)
        self.causal = tokens == context

    def attend(self):
        for k, v in zip(self.k, self.v, strict=True):
            out = torch.nn.functional.scaled_dot_product_attention(
                self.q, k, v, attn_mask=self.mask, is_causal=self.causal
            )
        return out


def seconds(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def compare(name, shape, threads, rounds):
    layers = 30 if shape[2] == 1 else 2
    model = {**SMOLLM2, "layers": layers}
    ours = {
        kind: AttentionSteps(*shape, kind, threads=threads, **model)
        for kind in ("bfloat16", "float32", "int8")
    }
    steps = ours["bfloat16"]
    theirs = {
        f"torch {kind}": Torch(steps, *shape, getattr(torch, kind))
        for kind in ("bfloat16", "float32")
    }
    exact = theirs["torch float32"].attend().transpose(1, 2).reshape(steps.q.shape).numpy()
    for kind, each in ours.items():
        each.attend()
        worst = np.abs(each.out - exact).max()
        if not worst <= TOLERANCE[kind] * max(1, np.abs(exact).max()):
            raise SystemExit(f"{name}, {kind}: differs from torch by {worst}")
    all_of = {**ours, **theirs}
    times = {kind: [] for kind in all_of}
    for _ in range(rounds):
        for kind, each in all_of.items():
            times[kind].append(seconds(each.attend))
    tokens = shape[0] * shape[2]
    median = {kind: np.median(each) / layers * 30 / tokens for kind, each in times.items()}
    cells = "".join(f"{1e6 * each:12.0f}" for each in median.values())
    best = min(each for kind, each in median.items() if kind.startswith("torch"))
    rate = 2 * steps.products() * 30 / layers / tokens / median["bfloat16"] / 1e9
    read = steps.kv_bytes() * 30 / layers / tokens / median["bfloat16"] / 1e9
    print(f"{name:28s}{cells}{best / median['bfloat16']:9.1f}{rate:11.0f}{read:9.1f}", flush=True)


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m asv_bench.peers attention")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(
        f"Microseconds a token, 30 layers, {options.threads} threads; torch's best / ours in bf16"
    )
    print(
        f"{'':28s}    bfloat16     float32        int8  torch bf16 torch fp32"
        "    ratio   GFLOP/s     GB/s"
    )
    for name, shape in SHAPES.items():
        compare(name, shape, options.threads, options.rounds)
