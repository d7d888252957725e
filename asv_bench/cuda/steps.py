"""Where the time of a step goes: kernels of a shape cut to a few layers, by torch's profiler."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from asv_bench.cuda.common import VOCABULARY, model
from asv_bench.cuda.generation import prompts, requests
from asv_bench.cuda.scoring import texts
from numbatch.batching.backend import make_engine
from numbatch.batching.request import Request

LAYERS = 4


def table(name: str, action: Any) -> None:
    """Print the kernels of an action, the longest first."""
    action()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        action()
        torch.cuda.synchronize()
    found = sorted(profile.key_averages(), key=lambda each: -each.device_time_total)
    total = sum(each.device_time_total for each in found)
    print(f"{name}: {total / 1e3:.1f} ms on the device")
    for each in found[:14]:
        share = each.device_time_total / total
        mean = each.device_time_total / each.count
        print(f"  {share:5.1%} {mean:9.1f} us x {each.count:5d}  {each.key[:70]}", flush=True)


def main(name: str = "8B") -> None:
    """Profile decoding of one and of many sequences, and scoring."""
    for bits in (16, 4):
        loaded = model(name, bits=bits)
        decoder = dataclasses.replace(loaded.decoder, layers=loaded.decoder.layers[:LAYERS])
        cut = dataclasses.replace(loaded, decoder=decoder)
        engine = make_engine(
            cut, "cuda", max_num_batched_tokens=16384, max_num_seqs=256, max_model_len=2048,
            kv_tokens=2**17, enable_prefix_caching=False,
        )  # fmt: skip
        for count in (1, 256) if bits == 16 else (1,):
            table(
                f"{bits} bits, {count} sequences, 32 tokens each",
                lambda e=engine, n=count: list(e.run(requests(prompts(n), 32))),
            )
        if bits == 16:
            ids = texts(12)
            table(
                "scoring",
                lambda e=engine, t=ids: list(e.run(Request(i, x) for i, x in enumerate(t))),
            )
        del engine
    print(f"{LAYERS} layers; vocabulary {VOCABULARY}; numpy {np.__version__}")
