"""The Python interface: texts in, results out, in input order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from numbatch.batching.backend import make_engine
from numbatch.batching.batch_result import BatchResponse, BatchResult
from numbatch.batching.batch_sizer import WARM_UP, StepSize
from numbatch.batching.calibrate import calibrate
from numbatch.batching.job import Job
from numbatch.batching.journal import Journal
from numbatch.batching.journal_records import model_fingerprint
from numbatch.batching.journaled_run import JournaledRun
from numbatch.batching.policy import Policy
from numbatch.batching.prompts import (
    Message,
    Prompt,
    conversations,
    encode_pair,
    encode_prompt,
    one_each,
    pair_tokens,
    several,
    shown,
    unique,
)
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.results import (
    Choice,
    FailedResult,
    GenerationResult,
    LogLikelihood,
    Perplexity,
    Result,
    ScoreResult,
    perplexity_of,
)
from numbatch.batching.service import Service
from numbatch.batching.sizes import largest_batch
from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged
from numbatch.models.load import load_model
from numbatch.models.tokenizer import Tokenizer

__all__ = ["LLM"]


class LLM:
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
        How keys and values are held. None: bfloat16 where the CPU has tile registers, else float32.
    compute : {"float32", "bfloat16", "int8"}, optional
        The arithmetic of products with weights. None: bfloat16 where the CPU has tile registers,
        else float32.
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
    ) -> None:
        self.model = load_model(model)
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
        )
        self._service = Service(self.engine)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.model.tokenizer

    def encode(self, text: Prompt) -> np.ndarray:
        """Token ids that the model is given for a text: int64, BOS first where the model wants it.

        Raises
        ------
        InputError
            If the text is not valid Unicode, or ids are no whole numbers.
        """
        return encode_prompt(self.tokenizer, text)

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
            If two requests of a list have one id (the message gives both places), or ``lookahead``
            is less than 1.

        Examples
        --------
        >>> job = llm.submit([Request("a", "Once upon a time", SamplingParams())])  # doctest: +SKIP
        >>> for response in job.as_completed():  # doctest: +SKIP
        ...     print(response.id, response.result.text)
        """
        if lookahead is not None and lookahead < 1:
            raise InputError(f"lookahead is {lookahead}, should be at least 1")
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

        Raises
        ------
        InputError
            If ids repeat, or the journal cannot be used: it belongs to another model or other
            requests, is of a newer version, damaged or in use.
        OutputError
            If the journal cannot be written.
        """
        given = list(requests)
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
        if engine.sizer.time.observations < WARM_UP:
            calibrate(engine)
        return largest_batch(
            self.model,
            available_memory_mb,
            target_latency_ms,
            engine.sizer.time,
            tokens_per_sequence=tokens_per_sequence or engine.context,
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

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        ids: Sequence[str | int] | None = None,
        use_tqdm: bool = False,
    ) -> list[GenerationResult]:
        """Continue prompts.

        Parameters
        ----------
        prompts : texts, or lists of token ids
            Special tokens in a text are plain text; give token ids to name them.
        sampling_params : SamplingParams or one for each prompt, optional
        ids : sequence of str or int, optional
            A unique id for each prompt; by default its place.
        use_tqdm : bool
            Show a progress bar.

        Returns
        -------
        list of GenerationResult
            In input order.

        Raises
        ------
        InputError
            If a prompt is empty or too long, or ids repeat.
        """
        given = several(prompts)
        tokens = [self.encode(prompt) for prompt in given]
        return self._generate(tokens, given, sampling_params, ids, use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        ids: Sequence[str | int] | None = None,
        use_tqdm: bool = False,
    ) -> list[GenerationResult]:
        """Answer conversations, laid out by the model's chat template.

        Parameters
        ----------
        messages : list of ``{"role": ..., "content": ...}``, or a list of such lists
        sampling_params, ids, use_tqdm
            As for :meth:`generate`.

        Raises
        ------
        InputError
            If the model has no chat template, or a conversation does not fit it.
        """
        given = conversations(messages)
        texts = [self.tokenizer.apply_chat_template(each) for each in given]
        tokens = [self.tokenizer.encode_chat(each).astype(np.int64) for each in given]
        return self._generate(tokens, texts, sampling_params, ids, use_tqdm)

    def score(self, texts: Prompt | Sequence[Prompt], *, use_tqdm: bool = False) -> Ragged:
        """Log-probability of each token of each text, given the tokens before it.

        Returns
        -------
        Ragged of float32
            Row ``i`` belongs to the tokens ``self.encode(texts[i])``. Natural logarithms; NaN at
            the first token, which nothing predicts.

        Raises
        ------
        InputError
            If a text is empty or too long.
        """
        results = self.score_results(texts, use_tqdm=use_tqdm)
        return Ragged.from_rows([result.logprobs for result in results], np.float32)

    def score_results(
        self,
        texts: Prompt | Sequence[Prompt],
        *,
        prompt_logprobs: int = 0,
        scorer: Callable[..., Any] | None = None,
        use_tqdm: bool = False,
    ) -> list[ScoreResult]:
        """Like :meth:`score`, with the token ids, and whether each was the likeliest.

        Parameters
        ----------
        texts : str, array of token ids, or sequence of these
        prompt_logprobs : int
            Also the log-probabilities of so many likeliest tokens at each place.
        scorer : function, optional
            Decorated with ``numba.njit``, called as ``scorer(logits, target, position)`` for each
            token; what it returns is in the results' ``scores``. See :class:`Request`.

        Raises
        ------
        InputError
            If a text is empty or too long, or the scorer cannot be compiled or raises.
        """
        requests = []
        for i, text in enumerate(several(texts)):
            if len(text) == 0:
                raise InputError(f"text {i} is empty, should have at least one character")
            request = Request(
                i,
                self.encode(text),
                text=shown(text),
                prompt_logprobs=prompt_logprobs,
                scorer=scorer,
            )
            requests.append(request)
        return [r for r in self._run(requests, use_tqdm) if isinstance(r, ScoreResult)]

    def loglikelihood(
        self, pairs: Iterable[tuple[str, str]], *, use_tqdm: bool = False
    ) -> list[LogLikelihood]:
        """Log-likelihood of continuations after contexts, as lm-eval's ``loglikelihood``.

        Parameters
        ----------
        pairs : iterable of (context, continuation)
            The pair is tokenized as one text and cut where the context's own tokens end; spaces
            that end the context count to the continuation. An empty context stands for the
            beginning of a text: the BOS token, or the end token where a model has none.

        Returns
        -------
        list of LogLikelihood
            ``(logprob, is_greedy)``, in input order.

        Raises
        ------
        InputError
            If a continuation has no tokens, or a pair is too long.
        """
        requests = []
        for i, pair in enumerate(pairs):
            tokens, begin = pair_tokens(self.tokenizer, self._first, pair, i)
            requests.append(Request(i, tokens, score_from=begin, text="".join(pair)))
        results = self._run(requests, use_tqdm)
        return [_loglikelihood(result) for result in results if isinstance(result, ScoreResult)]

    def choose(
        self, context: str, options: Sequence[str], *, normalize: str | None = None
    ) -> Choice:
        """Choose the likeliest of several continuations of a context.

        Parameters
        ----------
        context : str
        options : sequence of str
            As they continue the context: usually each begins with a space.
        normalize : {None, "tokens", "bytes"}
            Compare log-likelihoods as they are (lm-eval's ``acc``), by token, or by byte (its
            ``acc_norm``).

        Raises
        ------
        InputError
            If there are no options, or ``normalize`` is unknown.
        """
        if isinstance(options, str) or not len(options):
            raise InputError(f"options is {options!r}, should be a list of at least one text")
        if normalize not in (None, "tokens", "bytes"):
            raise InputError(f'normalize is {normalize!r}, should be None, "tokens" or "bytes"')
        found = self.loglikelihood([(context, option) for option in options])
        logprobs = np.array([each.logprob for each in found])
        scores = logprobs
        if normalize == "bytes":
            scores = logprobs / [len(option.encode()) for option in options]
        elif normalize == "tokens":
            encoded = [self.encode_pair(context, option) for option in options]
            scores = logprobs / [len(tokens) - begin for tokens, begin in encoded]
        index = int(np.argmax(scores))
        return Choice(index, options[index], logprobs, scores)

    def perplexity(self, texts: str | Sequence[str], *, use_tqdm: bool = False) -> Perplexity:
        """Perplexity of each text and of all together, and bits per byte.

        Raises
        ------
        InputError
            If a text is empty or too long.
        """
        results = self.score_results(texts, use_tqdm=use_tqdm)
        total = math.fsum(result.sum_logprob for result in results)
        scored = sum(result.tokens_scored for result in results)
        size = sum(len(self.tokenizer.decode_bytes(result.token_ids[1:])) for result in results)
        return Perplexity(
            texts=np.array([result.perplexity for result in results]),
            corpus=perplexity_of(total, scored),
            bits_per_byte=-total / math.log(2) / size if size else math.nan,
            tokens=scored,
        )

    def encode_pair(self, context: str, continuation: str) -> tuple[np.ndarray, int]:
        """Return the tokens of a context and its continuation, and where the latter begins.

        The pair is split as :meth:`loglikelihood` says.
        """
        return encode_pair(self.tokenizer, self._first, context, continuation)

    @property
    def _first(self) -> int | None:
        """The token that stands for an empty context where the tokenizer adds none."""
        if self.tokenizer.bos_id is not None:
            return self.tokenizer.bos_id
        return min(self.model.eos_ids, default=None)

    def _generate(
        self,
        tokens: list[np.ndarray],
        texts: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        ids: Sequence[str | int] | None,
        use_tqdm: bool,
    ) -> list[GenerationResult]:
        params = one_each(sampling_params, len(tokens))
        names = range(len(tokens)) if ids is None else unique(ids, len(tokens))
        requests = [
            Request(name, each, own, text=shown(text))
            for name, each, own, text in zip(names, tokens, params, texts, strict=True)
        ]
        results = self._run(requests, use_tqdm)
        return [result for result in results if isinstance(result, GenerationResult)]

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
        for result in tqdm(running, total=len(requests), disable=not use_tqdm):
            if isinstance(result, FailedResult):
                raise InputError(f"request {result.id!r} failed: {result.error}")
            results[place[result.id]] = result
        return results


def _loglikelihood(result: ScoreResult) -> LogLikelihood:
    scored = ~np.isnan(result.logprobs)
    return LogLikelihood(result.sum_logprob, bool(np.all(result.greedy[scored])))
