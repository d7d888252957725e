"""A baseline as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from numbatch.batching.baseline.compare import Change
from numbatch.batching.baseline.report import Report
from numbatch.batching.baseline.tables import (
    CHANGE_HEADS,
    RECORD_HEADS,
    change_rows,
    machine_rows,
    record_rows,
)

__all__ = ["NOTE", "to_markdown"]

NOTE = (
    "All is measured in two rounds. Each time is the median of several calls after one that is not "
    "counted, the mean of both rounds; the interval holds the bootstrap intervals of both medians. "
    "The limit is the least time in which this machine could do the work, by what it was measured "
    "to read and to multiply in this run: for scoring and generation the model's multiply-adds in "
    "the arithmetic that it used, or its weights' bytes, whichever takes longer; for tokenization "
    "and statistics reading the input once."
)


def to_markdown(report: Report, changes: list[Change] | None = None) -> str:
    """Return the report, and what changed where it was compared with another."""
    parts = ["# Numbatch baseline", _table(("", ""), machine_rows(report)), NOTE]
    if changes is not None:
        parts += ["## Changes", _table(CHANGE_HEADS, change_rows(changes))]
    for group, records in report.groups().items():
        parts += [f"## {group.capitalize()}", _table(RECORD_HEADS, record_rows(records))]
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_row(heads), "|" + " --- |" * len(heads), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
