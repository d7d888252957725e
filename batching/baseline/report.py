"""A baseline as data: what was measured, on what, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numbatch.batching.baseline.case import Record
from numbatch.batching.machine import MachineLimits
from numbatch.errors import InputError

__all__ = ["FORMAT", "Report"]

FORMAT = 2
"""Of the JSON file; raised when a field changes its meaning."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that one run of ``numbatch baseline`` found out.

    Parameters
    ----------
    made : str
        When, in ISO 8601 with the offset from UTC.
    model : str
        What the file calls the model.
    threads : int
        Of scoring, generation and end to end.
    machine : dict
        Of :func:`~numbatch.batching.machine.describe_machine`.
    core, team : MachineLimits
        Of one thread, and of ``threads``.
    records : list of Record
    seconds : float
        How long all of it took, compilation included.
    peak_memory : int
        Most bytes that the process held resident.
    """

    made: str
    model: str
    threads: int
    machine: dict[str, Any]
    core: MachineLimits
    team: MachineLimits
    records: list[Record]
    seconds: float
    peak_memory: int

    def groups(self) -> dict[str, list[Record]]:
        """Return the records by group, in the order in which they were measured."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.group, []).append(record)
        return found

    def to_json(self) -> str:
        """Return the report as JSON, for :meth:`read` and for other programs."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Read a report that :meth:`to_json` made.

        Raises
        ------
        InputError
            If the file cannot be read, or is not a report of this format.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from error
        if not isinstance(data, dict) or "format" not in data:
            raise InputError(f"{path} is not a report of numbatch baseline: it has no format")
        if data.pop("format") != FORMAT:
            raise InputError(f"{path} is of another format, should be {FORMAT}")
        try:
            for name in ("core", "team"):
                data[name] = MachineLimits(**data[name])
            data["records"] = [Record.from_json(record) for record in data["records"]]
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is not a report of numbatch baseline: {error}") from error
