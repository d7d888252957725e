"""The journal of a file's run: which lines are answered, and how."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from numbatch.batching.commands.line_writer import LineWriter
from numbatch.batching.journal import Journal
from numbatch.errors import InputError

__all__ = ["LineJournal", "input_digest"]


def input_digest(source: BinaryIO) -> str:
    """Return a hash of a regular file that is about to be read; of any other stream, nothing."""
    try:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return "a stream"
    except OSError:  # a stream in memory
        return "a stream"
    begin = source.tell()
    digest = hashlib.blake2b(digest_size=8)
    while data := source.read(1 << 20):
        digest.update(data)
    source.seek(begin)
    return digest.hexdigest()


class LineJournal:
    """Writes answers to a journal first and then to the output, a group at a time.

    So the output never holds what the journal does not; what it lacks after a kill is written
    again from the journal.

    Parameters
    ----------
    journal : Journal
    writer : LineWriter

    Attributes
    ----------
    recovered, failed : int
        How many answers the journal held, and how many of them were errors.
    """

    def __init__(self, journal: Journal, writer: LineWriter) -> None:
        self._journal, self._writer = journal, writer
        self._answered: dict[int, str] = {}
        self._held: list[str] = []
        self.failed = 0
        writer.restore(self._recover())
        self.recovered = len(self._answered)

    @classmethod
    def open(
        cls, path: str, identity: Mapping[str, str], source: BinaryIO, writer: LineWriter
    ) -> LineJournal:
        """Open a journal for the lines of ``source``."""
        return cls(Journal(path, {**identity, "input": input_digest(source)}), writer)

    def _recover(self) -> Iterator[str]:
        for content in self._journal.records():
            number, digest, failed, line = json.loads(content)
            self._answered[number] = digest
            self.failed += failed
            yield line

    @property
    def dropped(self) -> int:
        """Bytes of a torn record that were removed."""
        return self._journal.dropped

    def is_answered(self, number: int, line: bytes) -> bool:
        """Tell whether a line of the input has its answer already.

        Raises
        ------
        InputError
            If the journal answers another line.
        """
        digest = self._answered.get(number)
        if digest is not None and digest != _digest(line):
            raise InputError(
                f"the journal {self._journal.path} was begun with another input: line {number} "
                f"was another"
            )
        return digest is not None

    def write(self, number: int, line: bytes, answer: str, *, failed: bool) -> None:
        """Take in the answer to a line."""
        record = json.dumps([number, _digest(line), failed, answer], ensure_ascii=False)
        self._held.append(answer)
        if self._journal.append(record.encode(errors="surrogatepass")):
            self.flush()

    def flush(self) -> None:
        """Write what was taken in.

        Raises
        ------
        OutputError
            If journal or output cannot be written.
        """
        self._journal.flush()
        held, self._held = self._held, []
        for answer in held:
            self._writer.write(answer)

    def close(self) -> None:
        """Write what was taken in, and close the journal."""
        try:
            self.flush()
        finally:
            self._journal.close()


def _digest(line: bytes) -> str:
    return hashlib.blake2b(line, digest_size=8).hexdigest()
