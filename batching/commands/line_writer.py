"""Writes lines so that each is whole on disk as soon as it is written."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from numbatch.errors import InputError, OutputError

__all__ = ["LineWriter", "open_output", "standard_output"]


class LineWriter:
    """Writes lines past every buffer of this process.

    What was written survives a crash of the process. A line that could not be written in full is
    taken back where the output is a regular file, so that the file ends with a whole line.

    Parameters
    ----------
    raw : binary stream
        Unbuffered; ``write`` returns how many bytes it took.
    name : str
        What messages call it.
    owned : bool
        Whether it is this writer's to close.
    regular : bool
        Whether it is a regular file, which may be cut.

    Attributes
    ----------
    lines : int
        How many lines have been written.
    """

    def __init__(
        self, raw: BinaryIO, name: str, *, owned: bool = False, regular: bool = False
    ) -> None:
        self.name = name
        self.lines = 0
        self._raw = raw
        self._owned = owned
        self._regular = regular
        self._end = 0

    def begin(self) -> None:
        """Empty a file that is to be replaced.

        Raises
        ------
        OutputError
            If the file cannot be emptied.
        """
        if self._regular:
            try:
                self._raw.truncate(0)
            except OSError as error:
                raise OutputError(f"cannot empty {self.name}: {error.strerror}") from error

    def restore(self, lines: Iterable[str]) -> None:
        """Make the output begin with lines of an earlier run, and with nothing else.

        A file keeps the part of them that it has; what follows is cut.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._regular:
            with open(self.name, "rb") as written:
                for line in lines:
                    data = _encoded(line)
                    if written.read(len(data)) != data:
                        self._cut()
                        self._raw.seek(self._end)
                        self.write(line)
                        break
                    self._end += len(data)
                    self.lines += 1
        for line in lines:
            self.write(line)
        self._cut()
        if self._regular:
            self._raw.seek(self._end)

    def write(self, line: str) -> None:
        """Write a line; the line end is added.

        Half a surrogate pair, as names of files may hold it, becomes a question mark.

        Raises
        ------
        OutputError
            If it cannot be written: a full disk, a closed pipe.
        """
        data = _encoded(line)
        left = memoryview(data)
        try:
            while left:
                left = left[self._raw.write(left) or 0 :]
        except OSError as error:
            self._cut()
            raise OutputError(
                f"cannot write to {self.name}: {error.strerror}; {self.kept()}"
            ) from error
        except BaseException:
            self._cut()
            raise
        self.lines += 1
        self._end += len(data)

    def kept(self) -> str:
        """Say how much is written."""
        results = "1 result is" if self.lines == 1 else f"{self.lines} results are"
        return f"{results} whole in {self.name}"

    def close(self) -> None:
        """Close what is this writer's own.

        Raises
        ------
        OutputError
            If the system reports only now that something was not written.
        """
        if self._owned:
            try:
                self._raw.close()
            except OSError as error:
                raise OutputError(f"cannot write to {self.name}: {error.strerror}") from error

    def __enter__(self) -> LineWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cut(self) -> None:
        if self._regular:
            with contextlib.suppress(OSError):
                self._raw.truncate(self._end)


def _encoded(line: str) -> bytes:
    return line.encode(errors="replace") + b"\n"


def standard_output() -> LineWriter:
    """Return a writer to standard output, past Python's buffers."""
    sys.stdout.flush()
    stream = sys.stdout.buffer
    return LineWriter(getattr(stream, "raw", stream), "standard output")


def open_output(path: str, *, overwrite: bool, source: BinaryIO) -> LineWriter:
    """Open a file for results, leaving what it holds until the first is to be written.

    Parameters
    ----------
    path : str
        ``-`` is standard output.
    overwrite : bool
        Whether a file with content may be replaced.
    source : binary stream
        Where requests are read from, which must not be the same file.

    Raises
    ------
    InputError
        If the file cannot be opened, has content, or is the one that is read.
    """
    if path == "-":
        return standard_output()
    folder = Path(path).parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {folder}")
    try:
        raw = open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    status = os.fstat(raw.fileno())
    regular = stat.S_ISREG(status.st_mode)
    try:
        if regular and _is_same_file(status, source):
            raise InputError(f"{path} is input and output both, give the output a name of its own")
        if regular and status.st_size and not overwrite:
            raise InputError(
                f"{path} exists and holds {status.st_size} bytes; name another output, or give "
                f"--overwrite to replace it"
            )
    except InputError:
        raw.close()
        raise
    return LineWriter(raw, path, owned=True, regular=regular)


def _is_same_file(status: os.stat_result, source: BinaryIO) -> bool:
    try:
        return os.path.samestat(status, os.fstat(source.fileno()))
    except OSError:  # a stream in memory
        return False
