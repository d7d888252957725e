"""The engine: requests go in, steps run, results come out as they finish."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from numbatch.batching.backend import Backend, CpuBackend
from numbatch.batching.batch_sizer import PRESETS, BatchSizer
from numbatch.batching.drafts import DEFAULT_TOKENS, Drafter
from numbatch.batching.policy import Policy, check_policy
from numbatch.batching.request import Request
from numbatch.batching.request_check import check_tokens
from numbatch.batching.results import FailedResult, Result
from numbatch.batching.scheduler import Chunk, Scheduler
from numbatch.batching.sequence import Sequence
from numbatch.batching.step_batch import BatchMaker, halves
from numbatch.batching.step_outputs import StepOutputs, logit_rows, scored
from numbatch.errors import InputError
from numbatch.models.decoder import Decoder
from numbatch.models.load import LoadedModel

__all__ = ["Engine"]

Sink = Callable[[Sequence, Result], None]


class Engine:
    """Runs requests through a model in batches.

    Parameters
    ----------
    model : LoadedModel
    max_model_len : int, optional
        The longest sequence, prompt and output together. None: the model's own context, or what
        the KV pool holds if that is less.
    max_num_seqs : int
        The most sequences that run at a time.
    max_num_batched_tokens : int
        The most tokens in a step.
    kv_tokens : int, optional
        How many tokens of keys and values are held over all sequences. None: enough for
        ``max_num_seqs`` sequences of ``max_model_len``, within a quarter of the machine's memory;
        the system gives the memory only as it is used.
    kv_dtype : {"float32", "bfloat16", "int8"}, optional
        How keys and values are held. None: bfloat16 where the CPU multiplies it, else float32.
    compute : {"float32", "bfloat16", "int8"}, optional
        The arithmetic of products with weights. None: bfloat16 where the CPU has tile registers
        (AMX), int8 with other AVX-512, else float32.
    threads : int, optional
        None: ``NUMBA_NUM_THREADS``, else all cores.
    backend : Backend, optional
        The device that computes; the CPU by default.
    seed : int
        For requests that name no seed.
    policy : Policy, optional
        Who is served next; :class:`FairPriority` by default.
    enable_prefix_caching : bool
        Whether sequences share the keys and values of a common beginning.
    preset : {"latency", "throughput", "streaming"}, optional
        Steps are sized while the engine runs: as large as gains throughput, and for ``latency`` and
        ``streaming`` so that 95 of 100 take less than 100 or 250 ms. None: every step may have
        ``max_num_batched_tokens``.
    target_latency_ms : float, optional
        Another time for a step.
    lookahead : int, optional
        How many requests of an iterator may be read and not finished: among them priority holds.
        None: twice ``max_num_seqs``.
    num_speculative_tokens : int
        How many tokens of a sequence are guessed ahead at most, from what stands in it, and checked
        in one step; as many as pay. Results are the same to the bit. 0: none.

    Raises
    ------
    InputError
        If a size is out of range, or ``kv_dtype`` is not known.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_model_len: int | None = None,
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 512,
        kv_tokens: int | None = None,
        kv_dtype: str | None = None,
        compute: str | None = None,
        threads: int | None = None,
        backend: Backend | None = None,
        seed: int = 0,
        policy: Policy | None = None,
        enable_prefix_caching: bool = True,
        preset: str | None = None,
        target_latency_ms: float | None = None,
        lookahead: int | None = None,
        num_speculative_tokens: int = DEFAULT_TOKENS,
    ) -> None:
        for name, value in (
            ("max_model_len", max_model_len),
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
            ("kv_tokens", kv_tokens),
            ("lookahead", lookahead),
        ):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, should be at least 1")
        if policy is not None:
            check_policy(policy)
        self.model = model
        decoder = model.decoder
        self.backend: Any = backend or CpuBackend(model, threads, kv_dtype, compute)
        self.compute = self.backend.compute
        affordable = kv_tokens or self.backend.affordable_tokens()
        self.context = self._context(decoder, max_model_len, affordable)
        pool = self.backend.pool(kv_tokens or min(max_num_seqs * self.context, affordable))
        self.forward = self.backend.forward(
            pool, max_num_batched_tokens, max_num_seqs, self.context
        )
        self.sampler = self.backend.sampler(seed)
        self.scheduler = Scheduler(
            pool, max_num_seqs, max_num_batched_tokens, policy, share=enable_prefix_caching
        )
        self.sizer = BatchSizer(max_num_batched_tokens, _target(preset, target_latency_ms))
        self._drafter = Drafter(num_speculative_tokens, self.sizer.time, self.backend.tile)
        self._sizes_steps = preset is not None or target_latency_ms is not None
        self.lookahead = lookahead or 2 * max_num_seqs
        self.lock = threading.RLock()
        self._outputs = StepOutputs(model, self.forward, self.sampler, logit_rows(max_num_seqs))
        self._batches = BatchMaker(pool.block_size)
        self._deadlines: list[tuple[float, int, Sequence]] = []

    @staticmethod
    def _context(decoder: Decoder, wanted: int | None, affordable: int) -> int:
        own = decoder.config.context
        if wanted is not None and wanted > own:
            raise InputError(f"max_model_len is {wanted}, this model was made for up to {own}")
        if wanted is not None and wanted > affordable:
            raise InputError(
                f"max_model_len is {wanted}, but the KV pool holds only {affordable} tokens; "
                f"raise kv_tokens or lower max_model_len"
            )
        return wanted or min(own, affordable)

    def check(self, request: Request) -> None:
        """Raise InputError if a request can never be served."""
        check_tokens(request, self.context, self.model.decoder.config.vocabulary)
        self._outputs.prepare(request)

    def submit(self, request: Request, sink: Sink | None = None) -> Sequence | None:
        """Queue a request, or answer it at once where nothing can or has to be computed.

        Parameters
        ----------
        request : Request
        sink : function, optional
            Called as ``sink(sequence, result)`` when the result is there, by whoever runs the step.

        Returns
        -------
        Sequence or None
            None where it was answered at once.

        Raises
        ------
        InputError
            If it can never be served.
        """
        self.check(request)
        sequence = Sequence(request, self.context, sink)
        if request.params is None and request.score_from >= sequence.length:
            sequence.open()
            if sink is not None:
                sink(sequence, scored(sequence))
            return None
        with self.lock:
            if request.deadline is not None:
                sequence.expires = time.monotonic() + request.deadline
            self.scheduler.add(sequence)
            if request.deadline is not None:
                entry = (sequence.expires, sequence.arrival, sequence)
                heapq.heappush(self._deadlines, entry)
        return sequence

    def cancel(self, sequence: Sequence, reason: str = "cancelled") -> Result | None:
        """Give a sequence up; its result tells why. None if it was done already."""
        with self.lock:
            if sequence.is_done:
                return None
            self.scheduler.finish(sequence)
        return self._deliver(sequence, FailedResult(sequence.request.id, reason))

    def run(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Serve requests; yield each result when it is finished, in no particular order.

        Requests are read only as fast as they are served. One that cannot be served yields a
        :class:`FailedResult` and disturbs no other. If the caller stops early, what was running is
        given up.
        """
        source: Iterator[Request | None] = iter(requests)
        done: deque[Result] = deque()
        mine: set[Sequence] = set()

        def sink(sequence: Sequence, result: Result) -> None:
            mine.discard(sequence)
            done.append(result)

        more = True
        try:
            while more or mine:
                while more and len(mine) < self.lookahead:
                    request = next(source, None)
                    if request is None:
                        more = False
                        break
                    try:
                        sequence = self.submit(request, sink)
                    except InputError as error:
                        done.append(FailedResult(request.id, str(error)))
                        sequence = None
                    if sequence is not None:
                        mine.add(sequence)
                    while done:
                        yield done.popleft()
                if mine:
                    self.step()
                while done:
                    yield done.popleft()
        finally:
            for sequence in list(mine):
                self.cancel(sequence)

    def step(self) -> list[Result]:
        """Run one batch; return the results that it finished, after their sinks were called.

        On a GPU a batch that only scores is started, and finishes in the next step.
        """
        with self.lock:
            finished = self._expired()
            self.scheduler.token_budget = self._step_tokens()
            chunks = self._drafter.extend(self.scheduler.schedule(), self.scheduler)
            if chunks:
                begin = time.perf_counter()
                finished += self._run(chunks)
                self._learn(chunks, self._drafter.added, time.perf_counter() - begin)
                self._drafter.learn()
            else:
                finished += self._take_late()
            return [self._deliver(sequence, result) for sequence, result in finished]

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def _take_late(self) -> list[tuple[Sequence, Result]]:
        """Wait for what earlier steps left under way, and return it: on the CPU nothing is."""
        return []

    def _step_tokens(self) -> int:
        if not self._sizes_steps:
            return self.sizer.most_tokens
        decoding = [s.computed + 1 for s in self.scheduler.running if s.behind == 1]
        return self.sizer.choose(len(decoding), sum(decoding)).tokens

    def _learn(self, chunks: list[Chunk], guesses: int, seconds: float) -> None:
        tokens = decoding = kv_read = kv_decoding = 0
        for _, start, length in chunks:
            tokens += length
            kv_read += length * start + length * (length + 1) // 2
            if length == 1:
                decoding += 1
                kv_decoding += start + 1
        rows = len(chunks) + guesses  # of logits
        self.sizer.observe(tokens, decoding, rows, kv_read, kv_decoding, seconds)

    def _deliver(self, sequence: Sequence, result: Result) -> Result:
        if sequence.sink is not None:
            sequence.sink(sequence, result)
        return result

    def _expired(self) -> list[tuple[Sequence, Result]]:
        """Take out what is not finished by its deadline."""
        expired: list[tuple[Sequence, Result]] = []
        now = time.monotonic()
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].is_done):
            sequence = heapq.heappop(self._deadlines)[2]
            if not sequence.is_done:
                self.scheduler.finish(sequence)
                error = f"not finished within its deadline of {sequence.request.deadline} s"
                expired.append((sequence, FailedResult(sequence.request.id, error)))
        return expired

    def _run(self, chunks: list[Chunk]) -> list[tuple[Sequence, Result]]:
        """Run chunks; where memory runs out, run them in parts and make the next steps smaller."""
        try:
            hidden = self.forward.run(self._batches.make(chunks))
            failed = self._outputs.score(chunks, hidden)
            finished = self._outputs.sample(chunks, hidden)
        except MemoryError:
            if any(chunk.guesses for chunk in chunks):
                return self._run([chunk.known for chunk in chunks])
            parts = halves(chunks)
            self.sizer.shrink(sum(chunk.length for chunk in chunks))
            if len(parts) == 1:
                sequence = chunks[0].sequence
                self.scheduler.finish(sequence)
                return [(sequence, FailedResult(sequence.request.id, "out of memory"))]
            return [each for part in parts for each in self._run(part)]
        guessed = self._drafter.added > 0
        self.scheduler.advance([_kept(chunk) for chunk in chunks] if guessed else chunks)
        bad = {sequence for sequence, _ in failed}
        finished += failed
        finished += [each for each in self._outputs.finish_scored(chunks) if each[0] not in bad]
        for sequence, _ in finished:
            self.scheduler.finish(sequence)
        return finished


def _kept(chunk: Chunk) -> Chunk:
    """Return a chunk that was run, without guesses that were not drawn."""
    # The last token, which was drawn just now, was not run yet.
    length = chunk.sequence.length - 1 - chunk.start
    return chunk if chunk.length <= length else chunk._replace(length=length)


def _target(preset: str | None, target_latency_ms: float | None) -> float | None:
    """Return the time that a step may take, in milliseconds."""
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset is {preset!r}, should be one of {', '.join(PRESETS)}")
    if target_latency_ms is not None or preset is None:
        return target_latency_ms
    return PRESETS[preset].target_latency_ms
