"""Writes the page of ``numbatch profile``."""

from __future__ import annotations

from pathlib import Path

from numbatch.batching.profiling.entry import Profile
from numbatch.batching.profiling.page import to_html
from numbatch.errors import OutputError

__all__ = ["write_page"]


def write_page(path: str, profiles: list[Profile]) -> None:
    """Write the page; raise OutputError where that fails."""
    try:
        Path(path).write_text(to_html(profiles), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
