"""The text of a generating sequence, and the stop strings in it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["TextStream"]


class Decoder(Protocol):
    """Turns tokens into text one at a time, never half a character."""

    def push(self, token: int) -> str:
        """Return the text that the token completes."""

    def flush(self) -> str:
        """Return what is left, incomplete characters replaced."""


class TextStream:
    """Collects text and cuts it at the first stop string.

    Parameters
    ----------
    decoder : Decoder
    stop : tuple of str
        Where several end at the same token, the one that begins first in the text counts.
    """

    def __init__(self, decoder: Decoder, stop: tuple[str, ...]) -> None:
        self._decoder = decoder
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self.text = ""

    def push(self, token: int) -> str | None:
        """Add a token; return the stop string that it completed, if any."""
        return self._add(self._decoder.push(token))

    def flush(self) -> str | None:
        """Add what is left of an incomplete character; return the stop string, if any."""
        return self._add(self._decoder.flush())

    def _add(self, piece: str) -> str | None:
        if not self._stop:
            self.text += piece
            return None
        begin = max(0, len(self.text) - self._longest + 1)
        text = self.text + piece
        found = [(at, s) for s in self._stop if (at := text.find(s, begin)) >= 0]
        at, stop = min(found, default=(len(text), None))
        self.text = text[:at]  # set once: another thread may be reading it
        return stop

    @property
    def settled(self) -> int:
        """How many characters no stop string can take back."""
        return max(0, len(self.text) - max(0, self._longest - 1))
