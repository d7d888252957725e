"""The Python interface: texts in, results out, in input order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.batching.backend import make_engine
from numbatch.batching.batch_result import BatchResponse, BatchResult
from numbatch.batching.batch_sizer import WARM_UP, StepSize
from numbatch.batching.calibrate import calibrate
from numbatch.batching.job import Job
from numbatch.batching.job_book import check_request, check_requests
from numbatch.batching.journal import Journal
from numbatch.batching.journal_records import model_fingerprint
from numbatch.batching.journaled_run import JournaledRun
from numbatch.batching.policy import Policy
from numbatch.batching.prompts import (
    shown,
)
from numbatch.batching.request import Request
from numbatch.batching.results import (
    FailedResult,
    Result,
)
from numbatch.batching.service import Service
from numbatch.batching.sizes import largest_batch
from numbatch.batching.text_calls import TextCalls
from numbatch.errors import InputError
from numbatch.models.load import load_model

__all__ = ["LLM"]


class LLM(TextCalls):
    """A model, ready to score and to continue texts in batches.

    Parameters
    ----------
    model : str or Path
        A GGUF file, a Hugging Face folder, ``hf:owner/name``, or ``smollm2``, which is fetched
        once.
    device : str
        ``cpu``, ``cuda`` (the first GPU), ``cuda:1`` and so on, or ``cuda:*`` (all GPUs of the
        machine, with a process for each).
    invariant : bool
        On a GPU: results do not depend on what else is in a step, as they never do on the CPU;
        slower, and 4- and 8-bit weights are unpacked.
    logits_processor : function, optional
        On a GPU: a ``@numba.cuda.jit(device=True)`` function ``(logit, token, request, position) ->
        logit`` that is compiled into the sampler; ``request`` is the request's seed, ``position``
        how many tokens it has drawn before.
    max_model_len : int, optional
        The longest sequence, prompt and output together. None: the model's own context, or what
        memory holds if that is less.
    max_num_seqs : int
        The most sequences that run at a time.
    max_num_batched_tokens : int
        The most tokens in a step.
    kv_tokens : int, optional
        How many tokens of keys and values are held over all sequences; see :class:`Engine`.
    kv_dtype : {"float32", "bfloat16", "int8"}, optional
        How keys and values are held. None: bfloat16 where the CPU multiplies it, else float32.
    compute : {"float32", "bfloat16", "int8"}, optional
        The arithmetic of products with weights. None: bfloat16 where the CPU has tile registers
        (AMX; there int8 is faster for one sequence at a time), int8 with other AVX-512, else
        float32.
    threads : int, optional
        None: ``NUMBA_NUM_THREADS``, else all cores.
    seed : int
        For requests that name no seed: the same seed and ids draw the same tokens.
    policy : Policy, optional
        Who is served next; :class:`FairPriority` by default.
    enable_prefix_caching : bool
        Whether the keys and values of a common beginning are computed once.
    preset : {"latency", "throughput", "streaming"}, optional
        For interactive use, bulk work, or text that is read while it is made; see
        :class:`Engine`.
    target_latency_ms : float, optional
        How long a step may take; its size is then chosen while the engine runs.
    lookahead : int, optional
        How many requests of an iterator may be read and not finished: among them priority holds.
        None: twice ``max_num_seqs``.
    num_speculative_tokens : int, optional
        How many tokens of a text are guessed ahead at most, from what stands in it, and checked in
        one step: as many as pay, so that text which repeats itself or its prompt is generated
        faster. Results are the same to the bit. 0: none; None: 15, on a GPU none.

    Raises
    ------
    ModelError
        If the model cannot be found, read, or is of a kind that is not supported.
    InputError
        If a size is out of range.

    Notes
    -----
    Results do not depend on what else is in a call, on its order, on sizes of steps or on threads:
    they are bitwise the same. An error in one text is raised before any is run.

    Examples
    --------
    >>> llm = LLM("smollm2")  # doctest: +SKIP
    >>> llm.generate(["The capital of France is"])[0].text  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path = "smollm2",
        *,
        device: str = "cpu",
        invariant: bool = False,
        logits_processor: Any = None,
        max_model_len: int | None = None,
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 512,
        kv_tokens: int | None = None,
        kv_dtype: str | None = None,
        compute: str | None = None,
        threads: int | None = None,
        seed: int = 0,
        policy: Policy | None = None,
        enable_prefix_caching: bool = True,
        preset: str | None = None,
        target_latency_ms: float | None = None,
        lookahead: int | None = None,
        num_speculative_tokens: int | None = None,
    ) -> None:
        super().__init__(load_model(model))
        self.engine = make_engine(
            self.model,
            device,
            invariant=invariant,
            logits_processor=logits_processor,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_tokens=kv_tokens,
            kv_dtype=kv_dtype,
            compute=compute,
            threads=threads,
            seed=seed,
            policy=policy,
            enable_prefix_caching=enable_prefix_caching,
            preset=preset,
            target_latency_ms=target_latency_ms,
            lookahead=lookahead,
            num_speculative_tokens=num_speculative_tokens,
        )
        self._service = Service(self.engine)

    def submit(
        self,
        requests: Iterable[Request],
        *,
        lookahead: int | None = None,
        keep_results: bool = True,
        on_result: Callable[[BatchResponse], Any] | None = None,
    ) -> Job:
        """Begin to serve requests in the background.

        Jobs share the engine: requests of all of them run in the same steps, by priority and tag.

        Parameters
        ----------
        requests : iterable of Request
            Their ``tokens`` may be texts. Those of a list are all queued at once, so that priority
            holds among all of them; an iterator, which may be endless, is read only as fast as it
            is served.
        lookahead : int, optional
            Another number for this job than the model's.
        keep_results : bool
            Whether the job keeps results, for ``job[id]`` and ``job.result()``. If not, each goes
            to the one reader of ``job.as_completed()`` that takes it, and at most ``lookahead`` are
            held: where nobody reads, no more requests are read, and of an iterator an id is
            forgotten when its request is finished, so that memory stays bounded.
        on_result : function, optional
            Called with each response on the engine's thread. If it raises, it is not called again;
            the job goes on, and the exception is raised where the job ends.

        Returns
        -------
        Job

        Raises
        ------
        InputError
            If two requests of a list have one id (the message gives both places), ``lookahead`` is
            less than 1, or an argument is of another kind.

        Examples
        --------
        >>> job = llm.submit([Request("a", "Once upon a time", SamplingParams())])  # doctest: +SKIP
        >>> for response in job.as_completed():  # doctest: +SKIP
        ...     print(response.id, response.result.text)
        """
        if lookahead is not None and lookahead < 1:
            raise InputError(f"lookahead is {lookahead}, should be at least 1")
        _check_callback(on_result)
        return Job(
            self._service,
            requests,
            self._prepared,
            lookahead=lookahead or self.engine.lookahead,
            keep_results=keep_results,
            on_result=on_result,
        )

    def run(
        self,
        requests: Iterable[Request],
        *,
        journal: str | Path | None = None,
        on_result: Callable[[BatchResponse], Any] | None = None,
    ) -> BatchResult:
        """Serve requests and return all responses, in their order.

        Parameters
        ----------
        requests : iterable of Request
            Read to its end first.
        journal : str or Path, optional
            A file that keeps what is finished. The same call after a crash goes on where it
            stopped: what the file holds is not run again. A record that the crash tore is dropped,
            with a warning in the log.
        on_result : function, optional
            Called with each response that is computed now; see :meth:`submit`.

        Returns
        -------
        BatchResult
            Its ``stats`` are of what was computed now, not of what the journal held.

        Raises
        ------
        InputError
            If ids repeat, or the journal cannot be used: it belongs to another model or other
            requests, is of a newer version, damaged or in use.
        OutputError
            If the journal cannot be written.
        """
        check_requests(requests)
        _check_callback(on_result)
        given = [check_request(request) for request in requests]
        if journal is None:
            with self.submit(given, on_result=on_result) as job:  # cancelled at Ctrl-C
                return job.result()
        with Journal(journal, self.identity) as book:
            return JournaledRun(self.submit, given, book, on_result).result()

    def calculate_optimal_batch_size(
        self,
        available_memory_mb: float,
        target_latency_ms: float | None = None,
        *,
        tokens_per_sequence: int | None = None,
    ) -> StepSize:
        """Return how many sequences should run at a time (``max_num_seqs``), and what bounds them.

        If nothing has been run yet, a few steps are run to see how long they take.

        Parameters
        ----------
        available_memory_mb : float
            For everything: weights, keys and values, working memory. 1 MB is 2**20 bytes.
        target_latency_ms : float, optional
            How long a step, which gives each sequence a token, may take.
        tokens_per_sequence : int, optional
            Prompt and output; ``max_model_len`` by default.

        Returns
        -------
        StepSize
            ``tokens`` is the number of sequences, each of which gets one token a step; ``limit`` is
            ``memory``, ``latency`` or ``throughput``.

        Raises
        ------
        InputError
            If memory or time do not suffice for one sequence; the message says how much is needed.
        """
        engine = self.engine
        if tokens_per_sequence is None:
            tokens_per_sequence = engine.context
        if engine.sizer.time.observations < WARM_UP:
            calibrate(engine)
        return largest_batch(
            self.model,
            available_memory_mb,
            target_latency_ms,
            engine.sizer.time,
            tokens_per_sequence=tokens_per_sequence,
            kv_dtype=engine.scheduler.pool.dtype,
            compute=engine.compute,
            threads=engine.forward.team.threads,
        )

    @property
    def identity(self) -> dict[str, str]:
        """What results depend on, besides the requests: for journals."""
        return {
            "model": model_fingerprint(self.model.path),
            "seed": str(self.engine.sampler.seed),
            "max_model_len": str(self.engine.context),
            "kv_dtype": self.engine.scheduler.pool.dtype,
            "compute": self.engine.compute,
        }

    def _prepared(self, request: Request) -> Request:
        """Return a request with its text turned into tokens."""
        if isinstance(request.tokens, np.ndarray) and request.tokens.dtype == np.int64:
            return request
        text = request.text or shown(request.tokens)
        return dataclasses.replace(request, tokens=self.encode(request.tokens), text=text)

    def _run(self, requests: Sequence[Request], use_tqdm: bool) -> list[Result]:
        """Serve requests that are all sound; return the results in their order."""
        for request in requests:
            self.engine.check(request)
        place = {request.id: i for i, request in enumerate(requests)}
        results: list[Result] = [FailedResult(request.id, "not run") for request in requests]
        # While jobs run, their thread alone drives the engine.
        running: Iterable[Result] = self.engine.run(requests)
        if self._service.is_active:
            running = (each.result for each in self.submit(requests).as_completed())
        if use_tqdm:
            from tqdm import tqdm

            running = tqdm(running, total=len(requests))
        for result in running:
            if isinstance(result, FailedResult):
                raise InputError(f"request {result.id!r} failed: {result.error}")
            results[place[result.id]] = result
        return results


def _check_callback(on_result: Any) -> None:
    if on_result is not None and not callable(on_result):
        raise InputError(f"on_result is {on_result!r}, should be a function of one response")
