"""The batching layer: ids, bookkeeping, shared contexts, continuous batches, sizes, journal.

``python -m asv_bench.batching_checks`` sets these against what was promised, and checks what is no
time: bits, percentiles, fairness, kills, memory.
"""

import itertools
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from numbatch import LLM, IdMap, Request, SamplingParams
from numbatch.batching.forward import Batch
from numbatch.batching.kv_pool import KVPool
from numbatch.batching.scheduler import Scheduler
from numbatch.batching.sequence import Sequence

from .sizes import (  # noqa: F401
    CPU,
    min_run_count,
    once,
    repeat,
    rounds,
    sized,
    timeout,
    version,
    warmup_time,
)


def random_tokens(rng, count):
    return rng.integers(1000, 40000, count)


class Ids:
    """Ids of about 13 bytes, asked for in random order."""

    params = (sized(100_000, 1_000),)
    param_names = ("ids",)
    timer = CPU

    @once
    def setup(self, count):
        rng = np.random.default_rng(0)
        self.names = [f"request-{i}" for i in rng.permutation(count)]
        self.shuffled = [self.names[i] for i in rng.permutation(count)]
        self.some = list(itertools.islice(itertools.cycle(self.shuffled), 1000))
        self.ids = IdMap(self.names)

    def time_build(self, count):
        IdMap(self.names)

    def time_1000_look_ups_one_by_one(self, count):
        for name in self.some:
            self.ids.get(name)

    def time_look_up_all(self, count):
        self.ids.index_of(self.shuffled)

    def time_look_up_all_in_their_order(self, count):
        self.ids.index_of(self.names)

    def track_bytes_above_the_ids_own(self, count):
        return (self.ids.nbytes - sum(map(len, self.names))) / count


class Scheduling:
    """Steps of 256 running requests and many waiting ones, without a model."""

    params = (50,)
    param_names = ("tags",)
    timer = CPU
    number = sized(300, 20)
    waiting = sized(20_000, 2_000)

    @once
    def setup(self, tags):
        rng = np.random.default_rng(0)
        params = SamplingParams(max_tokens=64, ignore_eos=True)
        pool = KVPool(SimpleNamespace(head_size=1, kv_heads=1), 1, 256 * 500)
        self.scheduler = Scheduler(pool, 256, 2048)
        for i in range(256 + self.waiting):
            request = Request(
                i, random_tokens(rng, 100), params, priority=i * 7 % 3, tag=str(i % tags)
            )
            self.scheduler.add(Sequence(request, 400))
        while len(self.scheduler.running) < 256:
            self.step()

    def step(self):
        """Run a step; return the seconds of the bookkeeping alone."""
        begin = time.perf_counter()
        chunks = self.scheduler.schedule()
        self.scheduler.advance(chunks)
        seconds = time.perf_counter() - begin
        finished = []
        for sequence, _, _ in chunks:
            if sequence.behind == 0:
                sequence.append(1, -1.0)
                if sequence.length == sequence.capacity:
                    finished.append(sequence)
        begin = time.perf_counter()
        for sequence in finished:
            self.scheduler.finish(sequence)
        return seconds + time.perf_counter() - begin

    def time_step(self, tags):
        self.step()

    def median_ms_a_step(self):
        return 1000 * float(np.median([self.step() for _ in range(300)]))


class Fairness:
    """Two tags, one sending 100 times more, without a model."""

    params = (0, 200)
    param_names = ("steps_late",)
    steps = 500

    def track_tokens_apart_most(self, late):
        return tags_apart(512, (20, 900), (100, 30), late, self.steps)


def tags_apart(budget, heavy, light, late, steps):
    """Return how far apart what two tags were served grows while both have requests waiting.

    ``late``: how many steps after the heavy one the light one begins.
    """
    pool = KVPool(SimpleNamespace(head_size=1, kv_heads=1), 1, 32 * 1024)
    scheduler = Scheduler(pool, 32, budget)
    rng, ids = np.random.default_rng(0), itertools.count()
    served, waiting, worst = {"heavy": 0, "light": 0}, {"heavy": 0, "light": 0}, 0
    for step in range(late + steps):
        for tag, most, (prompt, output) in (("heavy", 6400, heavy), ("light", 64, light)):
            while waiting[tag] < most and (tag == "heavy" or step >= late):
                params = SamplingParams(max_tokens=output, ignore_eos=True)
                tokens = rng.integers(0, 1 << 20, prompt)
                scheduler.add(Sequence(Request(next(ids), tokens, params, tag=tag), 1024))
                waiting[tag] += 1
        chunks = scheduler.schedule()
        scheduler.advance(chunks)
        for sequence, _, length in chunks:
            served[sequence.request.tag] += length if step >= late else 0
            if sequence.behind == 0:
                sequence.append(1, -1.0)
                if sequence.length == sequence.capacity:
                    waiting[sequence.request.tag] -= 1
                    scheduler.finish(sequence)
        worst = max(worst, abs(served["heavy"] - served["light"]))
    return worst


class StepOverhead:
    """Steps that decode, without the model: all that Python does around it."""

    params = (1, 32, 256)
    param_names = ("sequences",)
    timer = CPU
    number = 20  # no sequence ends meanwhile

    @once
    def setup(self, sequences):
        self.llm = LLM("smollm2", max_num_seqs=sequences, kv_tokens=512 * sequences)
        engine, rng = self.llm.engine, np.random.default_rng(0)
        hidden = np.zeros((512, engine.forward.run(one_token()).shape[1]), np.float32)
        logits = np.zeros((sequences, engine.model.decoder.config.vocabulary), np.float32)
        engine.forward.run = lambda batch: hidden[: len(batch.tokens)]
        engine.forward.logits = lambda rows: logits[: len(rows)]
        engine.sampler.team = GivenTokens(random_tokens(rng, 100_000))
        params = SamplingParams(temperature=0, max_tokens=450, ignore_eos=True)
        for i in range(sequences):
            engine.submit(Request(i, random_tokens(rng, 40), params))
        while engine.scheduler.waiting or any(s.behind > 1 for s in engine.scheduler.running):
            engine.step()

    def time_step(self, sequences):
        self.llm.engine.step()


def one_token():
    """Return a batch of one token."""
    zero = np.zeros(1, np.int64)
    return Batch(zero, zero, zero, zero, zero.reshape(1, 1))


class GivenTokens:
    """Stands in for the team that samples: the tokens are given."""

    def __init__(self, tokens):
        self.tokens = itertools.cycle(tokens.tolist())

    def run(self, call):
        chosen, logprob = call.args[4:6]
        chosen[:] = list(itertools.islice(self.tokens, len(chosen)))
        logprob[:] = -1


class SharedContext:
    """Multiple choice: options of 10 tokens under contexts of 400."""

    params = (True,)
    param_names = ("shared",)
    timer, threads = CPU, 1
    contexts, options = 1, 8

    def setup(self, shared):
        self.llm = LLM("smollm2", enable_prefix_caching=shared, threads=self.threads)
        self.llm.score([random_tokens(np.random.default_rng(1), 20)])  # compile
        self.seed = 0

    def requests(self):
        self.seed += 1  # contexts that no earlier run has left behind
        rng = np.random.default_rng(self.seed)
        for i in range(self.contexts):
            context = random_tokens(rng, 400)
            for j in range(self.options):
                tokens = np.concatenate([context, random_tokens(rng, 10)])
                yield Request(f"{i}-{j}", tokens, score_from=400)

    def time_choose(self, shared):
        self.results = list(self.llm.engine.run(list(self.requests())))


class Continuous:
    """Outputs of 8 to 256 tokens: joining and leaving at any step, or in batches that wait.

    Both have the same KV memory: room for 8 sequences of the longest kind.
    """

    params = (True,)
    param_names = ("continuous",)
    timer, threads = CPU, 1
    count, at_once = 10, 8

    def setup(self, continuous):
        most = 4 * self.at_once if continuous else self.at_once
        self.llm = LLM(
            "smollm2",
            max_num_seqs=most,
            kv_tokens=self.at_once * 272,
            max_model_len=272,
            threads=self.threads,
        )
        self.llm.score([random_tokens(np.random.default_rng(1), 20)])

    def requests(self):
        rng = np.random.default_rng(0)
        for i in range(self.count):
            params = SamplingParams(
                temperature=0, max_tokens=int(rng.integers(8, 257)), ignore_eos=True
            )
            yield Request(i, random_tokens(rng, 16), params)

    def time_generate(self, continuous):
        self.serve(list(self.requests()), continuous)

    def serve(self, requests, continuous):
        size = len(requests) if continuous else self.at_once
        for begin in range(0, len(requests), size):
            list(self.llm.engine.run(requests[begin : begin + size]))


class Journal:
    """A run with and without a journal."""

    params = (True,)
    param_names = ("journal",)
    timer = CPU

    def setup(self, journal):
        self.llm = LLM("smollm2", threads=1)
        rng = np.random.default_rng(0)
        self.requests = [Request(i, random_tokens(rng, 32)) for i in range(60)]
        self.llm.score([random_tokens(rng, 20)])

    def time_run(self, journal):
        with tempfile.TemporaryDirectory() as folder:
            self.llm.run(self.requests, journal=Path(folder) / "journal" if journal else None)


class StepTimes:
    """Steps in which prompts and decoding are mixed, of requests that never end."""

    def __init__(self, **sizes):
        llm = LLM("smollm2", **sizes)
        llm.score([random_tokens(np.random.default_rng(1), 20)])  # compile
        self.engine, self.requests, self.tokens = llm.engine, endless_requests(), 0
        self.run_layers, self.engine.forward.run = self.engine.forward.run, self.counted

    def counted(self, batch):
        self.tokens += len(batch.tokens)
        return self.run_layers(batch)

    def step(self):
        """Run a step; return its seconds."""
        while self.engine.scheduler.waiting < 64:
            self.engine.submit(next(self.requests))
        begin = time.perf_counter()
        self.engine.step()
        return time.perf_counter() - begin

    def rate(self, seconds):
        """Run steps for a while; return the tokens a second."""
        passed, before = 0.0, self.tokens
        while passed < seconds:
            passed += self.step()
        return (self.tokens - before) / passed


def endless_requests():
    rng = np.random.default_rng(0)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    for i in itertools.count():
        yield Request(i, random_tokens(rng, int(rng.integers(20, 200))), params)
