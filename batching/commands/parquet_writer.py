"""Writes the results of a run to a Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from numbatch.batching.commands.line_writer import LineWriter, open_output
from numbatch.batching.parquet_file import ParquetFile
from numbatch.errors import InputError, OutputError

__all__ = ["ParquetWriter", "open_parquet", "open_results"]


class ParquetWriter(LineWriter):
    """Takes lines as a :class:`LineWriter`, and makes rows of them.

    A Parquet file has its index at its end, so it is complete only when it is closed: what was
    written survives Ctrl-C, but not a crash. With a journal nothing is lost: the next run begins
    the file anew from it.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        self.name, self.lines = path, 0
        self._file: ParquetFile | None = None

    def begin(self) -> None:
        """Make the file, beside one that is there: that one is replaced when this is complete.

        Raises
        ------
        InputError
            If it cannot be made.
        """
        self._file = ParquetFile(self.name)

    def restore(self, lines: Iterable[str]) -> None:
        """Begin with the results of an earlier run."""
        self.begin()
        for line in lines:
            self.write(line)

    def write(self, line: str) -> None:
        """Add the result of a line.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._file is None:
            raise ValueError("the file was not begun")
        try:
            self._file.add(json.loads(line))
        except OutputError:
            self._file = None  # it is gone
            raise
        self.lines += 1

    def close(self) -> None:
        """Complete the file, if it was begun.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._file is not None:
            self._file.close()


def open_results(path: str, *, overwrite: bool, source: BinaryIO) -> LineWriter:
    """Open a file for results: Parquet where the name ends in ``.parquet``, else lines of JSON.

    Raises
    ------
    InputError
        If it cannot be used; see :func:`open_output` and :func:`open_parquet`.
    """
    chosen = open_parquet if path.endswith(".parquet") else open_output
    return chosen(path, overwrite=overwrite, source=source)


def open_parquet(path: str, *, overwrite: bool, source: BinaryIO) -> ParquetWriter:
    """Return a writer to a Parquet file; ``source`` is JSON, and so another file.

    Raises
    ------
    InputError
        If there is no such folder, or the file has content that is to be kept.
    """
    if not Path(path).parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {Path(path).parent}")
    if os.path.isdir(path):
        raise InputError(f"cannot write {path}: Is a directory")
    if os.path.exists(path) and os.path.getsize(path) and not overwrite:
        raise InputError(
            f"{path} exists and holds {os.path.getsize(path)} bytes; name another output, or give "
            f"--overwrite to replace it"
        )
    return ParquetWriter(path)
