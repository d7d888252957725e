"""The journal: what a run has finished, kept so that a killed run goes on where it stopped.

A journal is a file that only grows: a line with the format's version, then records. A record is its
length and the CRC-32 of its content, each a little-endian uint32, and the content. The first one
tells to which run the journal belongs. Records are written in groups, each in one call, so a
process that is killed leaves whole records and at most one that is cut off; that one is dropped
when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from numbatch.errors import InputError, OutputError

__all__ = ["Journal"]

MAGIC = b"numbatch journal "
VERSION = 1
GROUP_RECORDS = 256
GROUP_SECONDS = 0.5
"""What is not written after so many records or seconds is computed again after a kill."""
SYNC_SECONDS = 5.0
"""How often records are forced to the disk itself, which matters only if the machine fails."""

_FRAME = struct.Struct("<II")


class Journal:
    """An open journal.

    Parameters
    ----------
    path : str or Path
        Made if it is not there.
    identity : mapping of str to str
        What the run's results depend on: model, parameters, input. A journal that was begun with
        another identity is refused.

    Attributes
    ----------
    dropped : int
        Bytes of a record that was cut off, and that were removed.
    resumed : bool
        Whether the journal was there before.

    Raises
    ------
    InputError
        If the file cannot be opened, is in use, is no journal, is of a newer version, is damaged,
        or belongs to another run.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.dropped = 0
        self._group: list[bytes] = []
        self._begun = self._synced = time.monotonic()
        try:
            self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise InputError(f"cannot write the journal {path}: {error.strerror}") from error
        try:
            self._lock()
            self.resumed = self._open(dict(identity))
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"the journal {self.path} is in use by another run") from error

    def _open(self, identity: dict[str, str]) -> bool:
        """Check what is there, or begin; return whether anything was."""
        first = MAGIC + b"%d\n" % VERSION
        begin = self._file.read(len(first)).rstrip(b"\0")
        own = json.dumps(identity, sort_keys=True).encode()
        size = os.fstat(self._file.fileno()).st_size
        if first.startswith(begin) and (begin != first or self._whole_end(len(first)) < 0):
            if size:  # killed before its first record was whole
                self._file.truncate(0)
            self._file.seek(0)
            self._write(first + _framed(own))
            self.dropped = size
            return False
        if not begin.startswith(MAGIC):
            raise InputError(f"{self.path} is no journal; name a new file, or one of numbatch's")
        if begin != first:
            version = begin[len(MAGIC) :].decode(errors="replace").strip()
            raise InputError(
                f"the journal {self.path} has version {version}, this Numbatch reads {VERSION}"
            )
        records = self._read(len(first))
        _, content = next(records)
        self._compare(json.loads(content), identity)
        self._start = end = len(first) + _FRAME.size + len(content)
        for after, _ in records:
            end = after
        self.dropped = size - end
        if self.dropped:
            self._file.truncate(end)
        self._file.seek(end)
        return True

    def _whole_end(self, start: int) -> int:
        """Return where the first record ends, -1 if it is not whole."""
        return next((end for end, _ in self._read(start)), -1)

    def _compare(self, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                raise InputError(
                    f"the journal {self.path} was begun with another {name} "
                    f"({theirs.get(name)}, now {ours.get(name)}); go on as it was begun, or name "
                    f"a new journal"
                )

    def _read(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield the end and the content of each whole record."""
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(start)
            while len(frame := file.read(_FRAME.size)) == _FRAME.size:
                length, checksum = _FRAME.unpack(frame)
                content = file.read(length) if length <= size - file.tell() else b""
                if len(content) < length:
                    return
                if zlib.crc32(content) != checksum or not length:
                    self._check_tail(file, start)
                    return
                start = file.tell()
                yield start, content

    def _check_tail(self, file: BinaryIO, start: int) -> None:
        """Refuse a journal that is damaged before its end: what follows would be lost."""
        if file.read().strip(b"\0"):
            raise InputError(f"the journal {self.path} is damaged at byte {start}")

    def records(self) -> Iterator[bytes]:
        """Yield the records that were there when the journal was opened."""
        if self.resumed:
            for _, content in self._read(self._start):
                yield content

    def append(self, content: bytes) -> bool:
        """Add a record; return whether a group is complete, so that :meth:`flush` is due."""
        if not self._group:
            self._begun = time.monotonic()
        self._group.append(_framed(content))
        return len(self._group) >= GROUP_RECORDS or time.monotonic() > self._begun + GROUP_SECONDS

    def flush(self) -> None:
        """Write what was added: it survives if the process is killed.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._group:
            group, self._group = b"".join(self._group), []
            self._write(group)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
            if time.monotonic() > self._synced + SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise OutputError(
                f"cannot write to the journal {self.path}: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Write what was added, and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _framed(content: bytes) -> bytes:
    return _FRAME.pack(len(content), zlib.crc32(content)) + content
