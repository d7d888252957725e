"""Runs with a journal that are killed at random instants, and what their results come to.

A process is forked from one that has loaded the model, so that a kill costs no start. Runs of the
command line and of ``LLM.run`` take turns.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numbatch import LLM, Request, SamplingParams
from numbatch.batching import journal
from numbatch.batching.commands import cli

__all__ = ["KillReport", "kill_runs"]

LINES = 40


@dataclass
class KillReport:
    """What kills came to.

    Parameters
    ----------
    kills, at_work, runs, requests : int
        Processes killed, those of them that had journaled something, runs that were brought to
        their end, and requests in each.
    lost, doubled, different : int
        Results that were missing at the end, that were there twice, and that were not those of a
        run left alone.
    """

    kills: int = 0
    at_work: int = 0
    runs: int = 0
    requests: int = LINES
    lost: int = 0
    doubled: int = 0
    different: int = 0


def write_requests(folder: Path) -> list[Request]:
    """Write continuations and texts to score, of token ids from a fixed seed; return them too."""
    rng = np.random.default_rng(0)
    lines, requests = [], []
    for i in range(LINES):
        tokens = rng.integers(1000, 40000, 8)
        if i % 3 == 0:
            lines.append({"prompt": tokens.tolist(), "max_tokens": 4, "ignore_eos": True})
            params = SamplingParams(max_tokens=4, ignore_eos=True)
        else:
            lines.append({"text": tokens.tolist()})
            params = None
        lines[-1]["custom_id"] = f"r{i}"
        requests.append(Request(f"r{i}", tokens, params))
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return requests


class Runs:
    """The two kinds of run, each in a forked process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.llm = LLM("smollm2", threads=1)
        self.requests = write_requests(folder)
        cli.load_llm = lambda *_, **__: self.llm
        journal.GROUP_RECORDS = 3  # so that a kill finds the journal in many states
        list(self.llm.engine.run(self.requests))  # compile

    def command_line(self) -> None:
        """Run the file by the command line."""
        names = ("in.jsonl", "out.jsonl", "journal")
        source, output, book = (str(self.folder / name) for name in names)
        arguments = ["run", source, "-o", output, "--journal", book, "-q"]
        cli.main(arguments, standalone_mode=False)

    def interface(self) -> None:
        """Run the same requests by ``LLM.run``."""
        batch = self.llm.run(self.requests, journal=self.folder / "journal")
        batch.to_jsonl(self.folder / "out.jsonl")

    def fork(self, run: Callable[[], None]) -> int:
        """Begin a run, or go on with it, in a process of its own; return its number."""
        process = os.fork()
        if process == 0:
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                run()
                status = 0
            finally:
                os._exit(status)
        return process

    def finished(self, run: Callable[[], None]) -> list[str]:
        """Run until the end; return the output."""
        _, status = os.waitpid(self.fork(run), 0)
        if status != 0:
            raise RuntimeError(f"a run that was not killed failed: {status}")
        return (self.folder / "out.jsonl").read_text().splitlines()

    def remove(self) -> None:
        """Leave nothing of a run."""
        for name in ("out.jsonl", "journal"):
            (self.folder / name).unlink(missing_ok=True)


def kill_runs(kills: int) -> KillReport:
    """Kill runs at random instants, ``kills`` times in all, and compare what they come to."""
    chance, report = random.Random(0), KillReport()
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(Path(name))
        kinds = (runs.command_line, runs.interface)
        expected, whole = {}, {}
        for kind in kinds:
            runs.remove()
            begin = time.monotonic()
            expected[kind] = sorted(runs.finished(kind))
            whole[kind] = time.monotonic() - begin
        while report.kills < kills:
            kind = kinds[report.runs % 2]
            runs.remove()
            for _ in range(4):  # then let it end, so that many runs are looked at
                kill_once(runs, kind, whole[kind] * chance.uniform(0, 0.7), report)
            compare(report, runs.finished(kind), expected[kind])
    return report


def kill_once(runs: Runs, kind: Callable[[], None], after: float, report: KillReport) -> None:
    """Go on with a run, and kill it after so many seconds unless it has ended."""
    book = runs.folder / "journal"
    before = book.stat().st_size if book.exists() else 0
    process = runs.fork(kind)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        report.kills += 1
        report.at_work += book.exists() and book.stat().st_size > before


def compare(report: KillReport, lines: list[str], expected: list[str]) -> None:
    """Count what is wrong with the output of a run."""
    report.runs += 1
    ids = [json.loads(line)["custom_id"] for line in lines]
    report.doubled += len(ids) - len(set(ids))
    report.lost += LINES - len(set(ids))
    report.different += len(set(lines) - set(expected))
