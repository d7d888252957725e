"""Attention alone, in the shapes of the default model: scoring and decoding, kinds of cache."""

from asv_bench.attention_steps import SMOLLM2, AttentionSteps

from .sizes import (  # noqa: F401
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

SHAPES = {  # sequences, tokens of context, tokens attended for, layers
    "score 512 at 4096": (1, 4096, 512, 2),
    "score 8 x 256": (8, 256, 256, 2),
    "decode 1 at 4096": (1, 4096, 1, 30),
    "decode 32 at 512": (32, 512, 1, 30),
}


class Attention:
    """All layers of a decoding step; two layers of a scoring step."""

    params = (list(SHAPES), ["float32", "bfloat16", "int8"], [1, 2])
    param_names = ("shape", "kv_dtype", "threads")

    @once
    def setup(self, shape, kv_dtype, threads):
        # One kind of cache in each shape; in one of them each kind, and two threads.
        only(shape == "decode 32 at 512" or (kv_dtype, threads) == ("bfloat16", 1))
        only(threads == 1 or kv_dtype == "bfloat16")
        self.timer = timer_of(threads)
        self.steps = steps_of(shape, kv_dtype, threads)
        self.time_attend(shape, kv_dtype, threads)

    def time_attend(self, shape, kv_dtype, threads):
        self.steps.attend()


class Store:
    """Keys and values of the step's tokens into the cache, in the same layers, on one thread."""

    params = (["score 8 x 256", "decode 32 at 512"], ["bfloat16", "int8"])
    param_names = ("shape", "kv_dtype")
    timer = timer_of(1)
    number = 10

    @once
    def setup(self, shape, kv_dtype):
        self.steps = steps_of(shape, kv_dtype, 1)
        self.time_store(shape, kv_dtype)

    def time_store(self, shape, kv_dtype):
        self.steps.store()


def steps_of(shape, kv_dtype, threads):
    *sizes, layers = SHAPES[shape]
    return AttentionSteps(*sizes, kv_dtype, threads=threads, **{**SMOLLM2, "layers": layers})
