"""The run of a file: lines in, results out as they finish, and what it came to."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from tqdm import tqdm

from numbatch.batching.commands import openai_format
from numbatch.batching.commands.jsonl import LineIds, numbered_lines, parse_line
from numbatch.batching.commands.line_journal import LineJournal
from numbatch.batching.commands.line_request import Task, build_task
from numbatch.batching.commands.line_writer import LineWriter
from numbatch.batching.request import Request
from numbatch.batching.result_json import dump_line, generation_json, score_json
from numbatch.batching.results import (
    FailedResult,
    GenerationResult,
    Result,
    ScoreResult,
    perplexity_of,
)
from numbatch.errors import InputError, NumbatchError

if TYPE_CHECKING:
    from numbatch.batching.llm import LLM

__all__ = ["FileRun", "Summary", "count_lines"]


@dataclass(slots=True)
class Summary:
    """What a run came to, so far.

    Parameters
    ----------
    succeeded, failed : int
        Requests.
    prompt_tokens, generated_tokens, scored_tokens : int
        Of the requests that succeeded.
    text_tokens : int
        Scored tokens of whole texts, continuations after a context left out.
    text_logprob : float
        Their log-probability.
    seconds : float
        From the first line read to the last result written.
    """

    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    text_tokens: int = 0
    text_logprob: float = 0.0
    seconds: float = 0.0

    @property
    def perplexity(self) -> float:
        """Perplexity of all scored texts together; NaN where there were none."""
        return perplexity_of(self.text_logprob, self.text_tokens)

    def add(self, result: GenerationResult | ScoreResult, kind: str) -> None:
        """Count the result of a request that succeeded."""
        self.succeeded += 1
        if isinstance(result, GenerationResult):
            self.prompt_tokens += len(result.prompt_token_ids)
            self.generated_tokens += len(result.token_ids)
        else:
            self.scored_tokens += result.tokens_scored
            if kind == "text":
                self.text_tokens += result.tokens_scored
                self.text_logprob += result.sum_logprob

    def report(self, writer: LineWriter) -> str:
        """Return the lines that end a run."""
        tokens = self.prompt_tokens + self.generated_tokens + self.scored_tokens
        rate = f", {tokens / self.seconds:,.0f} tokens/s" if self.seconds > 0 and tokens else ""
        lines = [
            f"Requests    {self.succeeded:,} succeeded, {self.failed:,} failed",
            f"Tokens      {self.prompt_tokens:,} of prompts, {self.generated_tokens:,} generated, "
            f"{self.scored_tokens:,} scored",
            f"Time        {self.seconds:.1f} s{rate}",
        ]
        if self.text_tokens:
            lines.append(
                f"Perplexity  {self.perplexity:.4f} over {self.text_tokens:,} tokens of text"
            )
        lines.append(f"Results     {writer.lines:,} in {writer.name}")
        return "\n".join(lines)


def count_lines(source: BinaryIO) -> int | None:
    """Count the lines left in a regular file that are not blank; None for any other stream."""
    try:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return None
    except OSError:  # a stream in memory
        return None
    begin = source.tell()
    count = sum(1 for _ in numbered_lines(source))
    source.seek(begin)
    return count


class FileRun:
    """Serves the lines of a file.

    Lines are read only as fast as they are served. A line that cannot be served is answered with
    an error that names it, and disturbs no other.

    Parameters
    ----------
    llm : LLM
    source : binary stream
        Lines of JSON.
    writer : LineWriter
        Gets a line for each that is not blank, in the order in which they finish.
    model : str
        The model's name, for answers in OpenAI's format.
    journal : LineJournal, optional
        Keeps the answers; lines that it answers are not run again.
    """

    def __init__(
        self,
        llm: LLM,
        source: BinaryIO,
        writer: LineWriter,
        model: str,
        journal: LineJournal | None = None,
    ) -> None:
        self.summary = Summary()
        self._llm = llm
        self._source = source
        self._writer = writer
        self._journal = journal
        if journal is not None:  # the counts are of the whole file, the tokens of what is run now
            self.summary.failed = journal.failed
            self.summary.succeeded = journal.recovered - journal.failed
        self._lines: dict[int, bytes] = {}
        self._answerer = openai_format.Answerer(llm.tokenizer, model, int(time.time()))
        self._ids = LineIds()
        self._running: dict[str | int, Task] = {}

    def run(self, *, progress: bool = False) -> Summary:
        """Serve all lines; ``progress`` shows a bar on standard error.

        Raises
        ------
        OutputError
            If a result cannot be written; those before it are whole.
        InputError
            If the input cannot be read to its end.
        """
        begin = time.perf_counter()
        total = count_lines(self._source) if progress else None
        try:
            if self._journal is None:
                self._writer.begin()
            with tqdm(total=total, unit="request", disable=not progress) as bar:
                for result in self._llm.engine.run(self._requests(bar)):
                    self._finish(result)
                    bar.update()
        finally:
            if self._journal is not None:
                self._journal.close()
            self.summary.seconds = time.perf_counter() - begin
        return self.summary

    def _requests(self, bar: tqdm) -> Iterator[Request]:
        lines = numbered_lines(self._source)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except OSError as error:
                raise InputError(f"cannot read the input: {error.strerror}") from error
            if self._journal is not None:
                if self._journal.is_answered(number, line):
                    self._pass_over(number, line)
                    bar.update()
                    continue
                self._lines[number] = line
            task = self._task(number, line)
            if task is None:
                bar.update()
            else:
                self._running[task.request.id] = task
                yield task.request

    def _task(self, number: int, line: bytes) -> Task | None:
        """Make the request of a line; where that fails, write the line's error."""
        try:
            record = parse_line(line)
        except InputError as error:
            self._refuse(self._ids.claim_default(number), number, str(error))
            return None
        name = None
        try:
            name = self._ids.claim(record, number)
            return build_task(record, number, name, self._llm)
        except NumbatchError as error:
            self._refuse(name, number, str(error), openai=openai_format.is_openai(record))
            return None

    def _pass_over(self, number: int, line: bytes) -> None:
        """Take the id of a line that has its answer, so that no later line gets it."""
        try:
            self._ids.claim(parse_line(line), number)
        except InputError:
            self._ids.claim_default(number)

    def _write(self, number: int, record: dict[str, Any], *, failed: bool = False) -> None:
        if self._journal is None:
            self._writer.write(dump_line(record))
        else:
            self._journal.write(number, self._lines.pop(number), dump_line(record), failed=failed)

    def _finish(self, result: Result) -> None:
        """Write a result in the format of its line."""
        task = self._running.pop(result.id)
        if isinstance(result, FailedResult):
            self._refuse(result.id, task.line, result.error, openai=task.openai is not None)
            return
        if task.openai is not None:
            record = self._answerer.answer(result, task.line, task.openai)
        elif isinstance(result, ScoreResult):
            record = score_json(result, is_continuation=task.kind == "continuation")
        else:
            record = generation_json(result, self._llm.tokenizer)
        self._write(task.line, record)
        self.summary.add(result, task.kind)

    def _refuse(
        self, name: str | int | None, line: int, error: str, *, openai: bool = False
    ) -> None:
        message = f"line {line}: {error}"
        if openai:
            record = openai_format.refusal(name, line, message)
        else:
            record = {"custom_id": name, "error": message, "line": line}
        self._write(line, record, failed=True)
        self.summary.failed += 1
