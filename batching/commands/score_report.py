"""Texts from files, their scores, and a table of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from numbatch.batching.commands.line_writer import LineWriter
from numbatch.batching.request import Request
from numbatch.batching.result_json import dump_line, finite, floats
from numbatch.batching.results import FailedResult, ScoreResult, perplexity_of
from numbatch.errors import InputError

if TYPE_CHECKING:
    from numbatch.batching.llm import LLM
    from numbatch.models.tokenizer import Tokenizer

__all__ = ["Score", "read_text", "read_texts", "score_texts", "write_json", "write_table"]


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a text is. Natural logarithms.

    Parameters
    ----------
    name : str
        The text's file, with its line where texts are lines.
    tokens_scored : int
    sum_logprob : float
    bytes_scored : int
        UTF-8 bytes of the tokens that were scored.
    """

    name: str
    tokens_scored: int
    sum_logprob: float
    bytes_scored: int

    @property
    def perplexity(self) -> float:
        """``exp(-mean log-probability)``; NaN where no token was scored."""
        return perplexity_of(self.sum_logprob, self.tokens_scored)

    @property
    def bits_per_byte(self) -> float:
        """Minus the log-probability in bits, by the bytes; NaN where there are none."""
        bits = -self.sum_logprob / math.log(2)
        return bits / self.bytes_scored if self.bytes_scored else math.nan

    def json(self) -> dict[str, Any]:
        """Return the values for a line of JSON."""
        return {
            "text": self.name,
            "tokens_scored": self.tokens_scored,
            "perplexity": finite(self.perplexity),
            "sum_logprob": finite(self.sum_logprob),
            "bits_per_byte": finite(self.bits_per_byte),
        }


def read_text(path: str) -> str:
    """Read a text; ``-`` is standard input.

    Raises
    ------
    InputError
        If it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not valid UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from None


def read_texts(paths: Iterable[str], *, lines: bool) -> list[tuple[str, str]]:
    """Read files as one text each, or as one text a line, blank ones left out.

    Returns
    -------
    list of (name, text)

    Raises
    ------
    InputError
        If a file cannot be read, is not UTF-8, or has no text.
    """
    texts: list[tuple[str, str]] = []
    for path in paths:
        content = read_text(path)
        name = "standard input" if path == "-" else path
        found = [(name, content)] if content else []
        if lines:
            found = [
                (f"{name}:{number}", line.removesuffix("\r"))
                for number, line in enumerate(content.split("\n"), 1)
                if line.strip()
            ]
        if not found:
            raise InputError(f"{name} is empty, should have some text to score")
        texts += found
    return texts


def score_texts(
    llm: LLM, texts: Sequence[tuple[str, str]], *, progress: bool = False
) -> list[ScoreResult]:
    """Score texts; results come in input order.

    Raises
    ------
    InputError
        If a text is longer than the context; none is run then.
    """
    requests = []
    for i, (name, text) in enumerate(texts):
        tokens = llm.encode(text)
        if len(tokens) > llm.engine.context:
            raise InputError(
                f"{name} has {len(tokens):,} tokens, more than the context of "
                f"{llm.engine.context:,}; cut it into shorter texts"
            )
        requests.append(Request(i, tokens, text=text))
    found: dict[str | int, ScoreResult] = {}
    results = llm.engine.run(requests)
    for result in tqdm(results, total=len(texts), unit="text", disable=not progress):
        if isinstance(result, FailedResult):
            raise InputError(f"{texts[int(result.id)][0]} cannot be scored: {result.error}")
        if isinstance(result, ScoreResult):
            found[result.id] = result
    return [found[i] for i in range(len(texts))]


def summarize(name: str, result: ScoreResult, tokenizer: Tokenizer) -> Score:
    """Reduce a result to its numbers."""
    data = tokenizer.decode_bytes(result.token_ids[1:], continues=True)
    return Score(name, result.tokens_scored, result.sum_logprob, len(data))


def total(scores: Sequence[Score]) -> Score:
    """Return the score of all texts together."""
    return Score(
        "all texts",
        sum(score.tokens_scored for score in scores),
        math.fsum(score.sum_logprob for score in scores),
        sum(score.bytes_scored for score in scores),
    )


def write_json(
    writer: LineWriter,
    names: Sequence[str],
    results: Sequence[ScoreResult],
    tokenizer: Tokenizer,
    *,
    tokens: bool,
) -> None:
    """Write an object for each text and, where there are several, one for all of them.

    ``tokens`` adds each token with its log-probability, null at an unscored one.
    """
    scores = _summaries(names, results, tokenizer)
    for score, result in zip(scores, results, strict=True):
        record = score.json()
        if tokens:
            pairs = zip(result.token_ids.tolist(), floats(result.logprobs), strict=True)
            record["tokens"] = [
                {"token_id": token, "token": _text(tokenizer, token), "logprob": logprob}
                for token, logprob in pairs
            ]
        writer.write(dump_line(record))
    if len(scores) > 1:
        writer.write(dump_line(_total(scores).json()))


def write_table(
    writer: LineWriter,
    names: Sequence[str],
    results: Sequence[ScoreResult],
    tokenizer: Tokenizer,
    *,
    tokens: bool,
) -> None:
    """Write an aligned table: a row for each text and, where there are several, one for all.

    ``tokens`` writes each token with its log-probability before it.
    """
    scores = _summaries(names, results, tokenizer)
    if tokens:
        for name, result in zip(names, results, strict=True):
            writer.write(f"==> {name} <==")
            for token, value in zip(result.token_ids.tolist(), result.logprobs, strict=True):
                logprob = "-" if math.isnan(value) else f"{value:.4f}"
                writer.write(f"{logprob:>10}  {_text(tokenizer, token)!r}")
            writer.write("")
    for line in _table(scores if len(scores) == 1 else [*scores, _total(scores)]):
        writer.write(line)


def _summaries(
    names: Sequence[str], results: Sequence[ScoreResult], tokenizer: Tokenizer
) -> list[Score]:
    return [
        Score(
            name,
            result.tokens_scored,
            result.sum_logprob,
            len(tokenizer.decode_bytes(result.token_ids[1:], continues=True)),
        )
        for name, result in zip(names, results, strict=True)
    ]


def _total(scores: Sequence[Score]) -> Score:
    return Score(
        "all texts",
        sum(score.tokens_scored for score in scores),
        math.fsum(score.sum_logprob for score in scores),
        sum(score.bytes_scored for score in scores),
    )


def _text(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.token_bytes(token).decode(errors="replace")


def _table(scores: Sequence[Score]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("text", "tokens scored", "perplexity", "log-probability", "bits per byte")
    ]
    for score in scores:
        values = (score.perplexity, score.sum_logprob, score.bits_per_byte)
        numbers = [f"{value:.4f}" for value in values]
        rows.append((score.name, f"{score.tokens_scored:,}", *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        aligned.append("  ".join([name.ljust(widths[0]), *padded]))
    return aligned
