"""Results as a Parquet file: one schema for all kinds of them, written a row group at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from numbatch.errors import InputError, OutputError

__all__ = ["ParquetFile"]

GROUP_ROWS = 4096
GROUP_TOKENS = 1 << 18
"""A row group is written at so many rows or tokens: more would only take memory."""


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet  # loaded here so that it is one error
    except ImportError as error:
        raise InputError(
            'Parquet needs pyarrow: install it with python -m pip install "numbatch[arrow]"'
        ) from error
    return pyarrow


def _schema(pa: Any) -> Any:
    likeliest = pa.struct([("token_id", pa.int64()), ("logprob", pa.float32())])
    return pa.schema(
        [
            ("custom_id", pa.string()),
            ("error", pa.string()),
            ("line", pa.int64()),
            ("text", pa.string()),
            ("finish_reason", pa.string()),
            ("stop_reason", pa.string()),
            ("token_ids", pa.list_(pa.int64())),
            ("logprobs", pa.list_(pa.float32())),
            ("top_logprobs", pa.list_(pa.list_(likeliest))),
            ("prompt_logprobs", pa.list_(pa.float32())),
            ("prompt_top_logprobs", pa.list_(pa.list_(likeliest))),
            ("scores", pa.list_(pa.float64())),
            ("sum_logprob", pa.float64()),
            ("perplexity", pa.float64()),
            ("tokens_scored", pa.int64()),
            ("is_greedy", pa.bool_()),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("response", pa.string()),
        ]
    )


class ParquetFile:
    """A Parquet file that is being written.

    A row is a result as it is in a file of JSON lines, with ``usage`` spread over two columns. Its
    ``custom_id`` is a text, whole numbers as their digits; ``response``, of OpenAI's format, is
    JSON. What a result lacks is null. The file is written under another name, and takes its own
    when it is closed: under its name there is never half a file.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    InputError
        If pyarrow is not installed, or the file cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self._pa = _arrow()
        self.path = Path(path)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._schema = _schema(self._pa)
        self._rows: list[dict[str, Any]] = []
        self._tokens = 0
        try:
            self._writer = self._pa.parquet.ParquetWriter(str(self._partial), self._schema)
        except OSError as error:
            raise InputError(f"cannot write {path}: {_reason(error)}") from error

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a result as ``result_json`` or a line of JSON has it.

        Raises
        ------
        OutputError
            If a row group cannot be written.
        """
        self._rows.append(_row(record))
        self._tokens += len(record.get("token_ids", ()))
        if len(self._rows) >= GROUP_ROWS or self._tokens >= GROUP_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = self._pa.Table.from_pylist(self._rows, schema=self._schema)
            self._rows, self._tokens = [], 0
            with self._output():
                self._writer.write_table(table)

    def close(self) -> None:
        """Write what was added, and give the file its name.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._flush()
        with self._output():
            self._writer.close()
            os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Leave no file."""
        with contextlib.suppress(OSError):
            self._writer.close()
        self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _output(self) -> Any:
        try:
            yield
        except OSError as error:
            self.discard()
            raise OutputError(f"cannot write {self.path}: {_reason(error)}") from error

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


def _reason(error: OSError) -> str:
    """Return the system's words; pyarrow's own name the file under which it is being written."""
    return os.strerror(error.errno) if error.errno else str(error)


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    usage, error, response = (record.get(name) for name in ("usage", "error", "response"))
    row = {**record, **(usage or {})}
    row["error"] = error["message"] if isinstance(error, Mapping) else error
    for name in ("custom_id", "stop_reason", "error"):
        value = row.get(name)
        row[name] = None if value is None else str(value).encode(errors="replace").decode()
    row["response"] = None if response is None else json.dumps(response, ensure_ascii=False)
    return row
