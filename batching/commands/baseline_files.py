"""Writes the three files of a baseline."""

from __future__ import annotations

import tempfile
from pathlib import Path

from numbatch.batching.baseline.compare import Change
from numbatch.batching.baseline.html import to_html
from numbatch.batching.baseline.markdown import to_markdown
from numbatch.batching.baseline.report import Report
from numbatch.errors import OutputError

__all__ = ["prepare_folder", "write_baseline"]


def prepare_folder(folder: str) -> Path:
    """Make the folder, before minutes of measuring; raise OutputError where that fails."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error
    return path


def write_baseline(folder: Path, report: Report, changes: list[Change] | None) -> list[Path]:
    """Write ``baseline.json``, ``.md`` and ``.html``; return their paths."""
    texts = {
        "baseline.json": report.to_json(),
        "baseline.md": to_markdown(report, changes),
        "baseline.html": to_html(report, changes),
    }
    try:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error
    return [folder / name for name in texts]
