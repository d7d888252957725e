"""The calls that take texts and return results, whoever serves the requests they are made into."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

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
    GenerationResult,
    LogLikelihood,
    Perplexity,
    Result,
    ScoreResult,
    perplexity_of,
)
from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged
from numbatch.models.load import LoadedModel
from numbatch.models.tokenizer import Tokenizer

__all__ = ["TextCalls"]


class TextCalls(ABC):
    """Makes requests of texts, and results of what comes back, in input order.

    Parameters
    ----------
    model : LoadedModel
        Its tokenizer and its end tokens are used.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    @abstractmethod
    def _run(self, requests: Sequence[Request], use_tqdm: bool) -> list[Result]:
        """Serve requests that are all sound; return the results in their order."""

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


def _loglikelihood(result: ScoreResult) -> LogLikelihood:
    scored = ~np.isnan(result.logprobs)
    return LogLikelihood(result.sum_logprob, bool(np.all(result.greedy[scored])))
