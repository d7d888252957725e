"""Runs of the command line that are killed at random instants, and what their results come to."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["KillReport", "kill_runs"]

LINES = 60
ARGUMENTS = ("run", "in.jsonl", "-o", "out.jsonl", "--journal", "journal", "-q", "--threads", "1")


@dataclass
class KillReport:
    """What kills came to.

    Parameters
    ----------
    kills, runs, requests : int
        Processes killed, runs that were brought to their end, and requests in each.
    lost, doubled, different : int
        Results that were missing at the end, that were there twice, and that were not those of a
        run left alone.
    """

    kills: int = 0
    runs: int = 0
    requests: int = LINES
    lost: int = 0
    doubled: int = 0
    different: int = 0


def write_requests(folder: Path) -> None:
    """Write continuations and texts to score, of token ids from a fixed seed."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(LINES):
        tokens = rng.integers(1000, 40000, 12).tolist()
        line = {"custom_id": f"r{i}", "text": tokens}
        if i % 3 == 0:
            line = {"custom_id": i, "prompt": tokens, "max_tokens": 4, "ignore_eos": True}
        lines.append(json.dumps(line))
    (folder / "in.jsonl").write_text("\n".join(lines))


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "numbatch", *ARGUMENTS], cwd=folder, stderr=subprocess.DEVNULL
    )


def finished(folder: Path) -> list[str]:
    """Run until the end; return the output."""
    if start(folder).wait() != 0:
        raise RuntimeError("a run that was not killed failed")
    return (folder / "out.jsonl").read_text().splitlines()


def kill_runs(kills: int) -> KillReport:
    """Kill runs at random instants, ``kills`` times in all, and compare what they come to."""
    chance, report = random.Random(0), KillReport()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_requests(folder)
        finished(folder)  # compile
        remove(folder)
        begin = time.monotonic()
        expected = sorted(finished(folder))
        whole = time.monotonic() - begin
        while report.kills < kills:
            remove(folder)
            for _ in range(12):  # then let it end, so that many runs are looked at
                process = start(folder)
                try:
                    process.wait(whole * chance.uniform(0.3, 1.0))
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    report.kills += 1
            compare(report, finished(folder), expected)
    return report


def compare(report: KillReport, lines: list[str], expected: list[str]) -> None:
    """Count what is wrong with the output of a run."""
    report.runs += 1
    ids = [json.loads(line)["custom_id"] for line in lines]
    report.doubled += len(ids) - len(set(ids))
    report.lost += LINES - len(set(ids))
    report.different += len(set(lines) - set(expected))


def remove(folder: Path) -> None:
    """Leave nothing of a run."""
    for name in ("out.jsonl", "journal"):
        (folder / name).unlink(missing_ok=True)
