"""Attention alone, in the shapes of the default model: scoring and decoding, kinds of cache."""

from asv_bench.attention_steps import SMOLLM2, AttentionSteps

from .sizes import repeat, rounds  # noqa: F401

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
    timeout = 300

    def setup(self, shape, kv_dtype, threads):
        self.steps = steps_of(shape, kv_dtype, threads)
        self.time_attend(shape, kv_dtype, threads)  # compile

    def time_attend(self, shape, kv_dtype, threads):
        self.steps.attend()


class Store:
    """Keys and values of the step's tokens into the cache, in the same layers, on one thread."""

    params = (list(SHAPES), ["float32", "bfloat16", "int8"])
    param_names = ("shape", "kv_dtype")
    timeout = 300

    def setup(self, shape, kv_dtype):
        self.steps = steps_of(shape, kv_dtype, 1)
        self.time_store(shape, kv_dtype)  # compile

    def time_store(self, shape, kv_dtype):
        self.steps.store()


def steps_of(shape, kv_dtype, threads):
    *sizes, layers = SHAPES[shape]
    return AttentionSteps(*sizes, kv_dtype, threads=threads, **{**SMOLLM2, "layers": layers})
