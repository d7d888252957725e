"""The engine: requests go in, steps run, results come out as they finish."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from numbatch.batching.forward import Batch, ForwardPass
from numbatch.batching.kv_pool import KVPool
from numbatch.batching.request import Request
from numbatch.batching.results import FailedResult, GenerationResult, Result, ScoreResult
from numbatch.batching.sampler import Sampler
from numbatch.batching.scheduler import Chunk, Scheduler
from numbatch.batching.sequence import Sequence
from numbatch.batching.text_stream import TextStream
from numbatch.errors import InputError
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.threads import ThreadTeam
from numbatch.models.decoder import Decoder
from numbatch.models.load import LoadedModel

__all__ = ["Engine"]

KV_SHARE = 4
"""The KV pool may take one part in so many of the machine's memory, if nobody says otherwise."""


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
    threads : int, optional
        None: ``NUMBA_NUM_THREADS``, else all cores.
    seed : int
        For requests that name no seed.

    Raises
    ------
    InputError
        If a size is out of range.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_model_len: int | None = None,
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 512,
        kv_tokens: int | None = None,
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ("max_model_len", max_model_len),
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
            ("kv_tokens", kv_tokens),
        ):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, should be at least 1")
        self.model = model
        decoder = model.decoder
        self.context = self._context(decoder, max_model_len, kv_tokens)
        wanted = kv_tokens or min(max_num_seqs * self.context, _affordable_tokens(decoder))
        pool = KVPool(decoder.config, len(decoder.layers), wanted)
        team = ThreadTeam(threads)
        self.forward = ForwardPass(decoder, pool, team, max_num_batched_tokens, self.context)
        self.sampler = Sampler(team, decoder.config.vocabulary, seed)
        self.scheduler = Scheduler(pool, max_num_seqs, max_num_batched_tokens)
        self._texts: dict[Sequence, TextStream] = {}

    @staticmethod
    def _context(decoder: Decoder, wanted: int | None, kv_tokens: int | None) -> int:
        own = decoder.config.context
        if wanted is not None and wanted > own:
            raise InputError(f"max_model_len is {wanted}, this model was made for up to {own}")
        affordable = kv_tokens or _affordable_tokens(decoder)
        if wanted is not None and wanted > affordable:
            raise InputError(
                f"max_model_len is {wanted}, but the KV pool holds only {affordable} tokens; "
                f"raise kv_tokens or lower max_model_len"
            )
        return wanted or min(own, affordable)

    def check(self, request: Request) -> None:
        """Raise InputError if a request can never be served."""
        tokens, vocabulary = request.tokens, self.model.decoder.config.vocabulary
        if len(tokens) == 0:
            raise InputError(f"request {request.id!r} is empty, should have at least one token")
        if len(tokens) > self.context:
            raise InputError(
                f"request {request.id!r} has {len(tokens)} tokens, more than the context of "
                f"{self.context} tokens"
            )
        if request.params is not None and len(tokens) == self.context:
            raise InputError(
                f"request {request.id!r} has {len(tokens)} tokens and fills the context: there is "
                f"no room to generate"
            )
        bad = np.flatnonzero((tokens < 0) | (tokens >= vocabulary))
        if len(bad):
            raise InputError(
                f"request {request.id!r} has token id {tokens[bad[0]]} at place {bad[0]}, ids "
                f"should be from 0 to {vocabulary - 1}"
            )

    def run(self, requests: Iterable[Request]) -> Iterator[Result]:
        """Serve requests; yield each result when it is finished, in no particular order.

        Requests are read only as fast as they are served. One that cannot be served yields a
        :class:`FailedResult` and disturbs no other. If the caller stops early, what was running is
        given up.
        """
        source = iter(requests)
        more = True
        try:
            while more or self.scheduler.waiting or self.scheduler.running:
                while more and len(self.scheduler.waiting) < self.scheduler.max_sequences:
                    request = next(source, None)
                    if request is None:
                        more = False
                        break
                    yield from self._start(request)
                yield from self.step()
        finally:
            self._give_up()

    def _start(self, request: Request) -> list[Result]:
        """Queue a request, or answer it at once where nothing can or has to be computed."""
        try:
            self.check(request)
        except InputError as error:
            return [FailedResult(request.id, str(error))]
        sequence = Sequence(request, self.context)
        if request.params is None and request.score_from >= sequence.length:
            return [self._scored(sequence)]
        if request.params is not None:
            decoder = self.model.tokenizer.stream_decoder(skip_special=True, continues=True)
            self._texts[sequence] = TextStream(decoder, tuple(request.params.stop))
        self.scheduler.add(sequence)
        return []

    def _give_up(self) -> None:
        self.scheduler.waiting.clear()
        for sequence in list(self.scheduler.running):
            self.scheduler.finish(sequence)
        self._texts.clear()

    def step(self) -> list[Result]:
        """Run one batch; return the results that it finished."""
        chunks = self.scheduler.schedule()
        if not chunks:
            return []
        hidden = self.forward.run(self._batch(chunks))
        for chunk in chunks:
            chunk.sequence.computed += chunk.length
        self._score(chunks, hidden)
        return self._sample(chunks, hidden) + self._finish_scored(chunks)

    def _batch(self, chunks: list[Chunk]) -> Batch:
        block_size = self.scheduler.pool.block_size
        longest = max(len(chunk.sequence.blocks) for chunk in chunks)
        tables = np.zeros((len(chunks), longest), np.int64)
        for row, chunk in enumerate(chunks):
            tables[row, : len(chunk.sequence.blocks)] = chunk.sequence.blocks
        counts = [chunk.length for chunk in chunks]
        rows = np.repeat(np.arange(len(chunks)), counts)
        spans = [(c.sequence, c.start, c.start + c.length) for c in chunks]
        positions = np.concatenate([np.arange(start, stop) for _, start, stop in spans])
        tokens = np.concatenate([sequence.tokens[start:stop] for sequence, start, stop in spans])
        blocks = tables[rows, positions // block_size]
        slots = blocks * block_size + positions % block_size
        return Batch(tokens, positions, rows, slots, tables)

    def _score(self, chunks: list[Chunk], hidden: np.ndarray) -> None:
        """Fill in the log-probabilities that this step's hidden states tell."""
        places: list[np.ndarray] = []
        parts: list[tuple[Sequence, slice]] = []
        begin = 0
        for sequence, start, length in chunks:
            if sequence.params is None:
                low = max(start + 1, sequence.request.score_from)
                high = start + length + 1  # a hidden state tells of the token after it
                if low < high:
                    places.append(np.arange(begin + low - start - 1, begin + length))
                    parts.append((sequence, slice(low, high)))
            begin += length
        if not parts:
            return
        targets = np.concatenate([sequence.tokens[part] for sequence, part in parts])
        logprobs, greedy = self.forward.logprobs(hidden[np.concatenate(places)], targets)
        begin = 0
        for sequence, part in parts:
            end = begin + part.stop - part.start
            sequence.logprobs[part] = logprobs[begin:end]
            sequence.greedy[part] = greedy[begin:end]
            begin = end

    def _sample(self, chunks: list[Chunk], hidden: np.ndarray) -> list[Result]:
        """Draw a token for each sequence that has caught up with its own."""
        ends = np.cumsum([chunk.length for chunk in chunks]) - 1
        drawing = [
            (chunk.sequence, end)
            for chunk, end in zip(chunks, ends, strict=True)
            if chunk.sequence.params is not None and chunk.sequence.behind == 0
        ]
        if not drawing:
            return []
        sequences = [sequence for sequence, _ in drawing]
        logits = self.forward.logits(hidden[[end for _, end in drawing]])
        results = []
        for sequence, token in zip(sequences, self.sampler.sample(logits, sequences), strict=True):
            result = self._after_token(sequence, int(token))
            if result is not None:
                self.scheduler.finish(sequence)
                del self._texts[sequence]
                results.append(result)
        return results

    def _after_token(self, sequence: Sequence, token: int) -> Result | None:
        """Return the result if this token ended the sequence."""
        params, texts = sequence.params, self._texts[sequence]
        if token < 0 or params is None:
            return FailedResult(sequence.request.id, "the model's logits are not numbers (NaN)")
        if token in params.stop_token_ids:
            return self._generated(sequence, "stop", token)
        if token in self.model.eos_ids and not params.ignore_eos:
            return self._generated(sequence, "stop", None)
        stop = texts.push(token)
        full = sequence.length == sequence.capacity
        if full and stop is None:
            stop = texts.flush()
        if stop is not None:
            return self._generated(sequence, "stop", stop)
        return self._generated(sequence, "length", None) if full else None

    def _generated(
        self, sequence: Sequence, reason: str, stop_reason: str | int | None
    ) -> GenerationResult:
        texts = self._texts[sequence]
        if not isinstance(stop_reason, str):
            texts.flush()
        output = slice(sequence.prompt_length, sequence.length)
        return GenerationResult(
            id=sequence.request.id,
            prompt=sequence.request.text,
            prompt_token_ids=sequence.tokens[: sequence.prompt_length],
            text=texts.text,
            token_ids=sequence.tokens[output],
            logprobs=sequence.logprobs[output],
            finish_reason=reason,
            stop_reason=stop_reason,
            top_token_ids=sequence.top_ids[output],
            top_logprobs=sequence.top_logprobs[output],
        )

    def _finish_scored(self, chunks: list[Chunk]) -> list[Result]:
        results: list[Result] = []
        for sequence, _, _ in chunks:
            if sequence.params is None and sequence.behind == 0:
                self.scheduler.finish(sequence)
                results.append(self._scored(sequence))
        return results

    def _scored(self, sequence: Sequence) -> ScoreResult:
        return ScoreResult(
            id=sequence.request.id,
            text=sequence.request.text,
            token_ids=sequence.tokens,
            logprobs=sequence.logprobs,
            greedy=sequence.greedy,
        )


def _affordable_tokens(decoder: Decoder) -> int:
    """How many tokens of keys and values fit into the pool's share of the machine's memory."""
    config = decoder.config
    token = len(decoder.layers) * 2 * config.kv_heads * padded(config.head_size) * 4
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, memory // KV_SHARE // token)
