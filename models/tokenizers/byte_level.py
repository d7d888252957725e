"""GPT-2's spelling of bytes as visible characters, used by byte-level vocabularies."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

__all__ = ["byte_characters", "bytes_of_spelled"]


@functools.cache
def byte_characters() -> str:
    """Return the 256 characters that spell the bytes 0 to 255, in order.

    Printable Latin-1 characters spell themselves; the other bytes, in order, are spelled by the
    characters from U+0100 on (Radford et al. 2019, ``encoder.py`` of GPT-2).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (b for b in range(256) if b not in printable)
    spare = {byte: 0x100 + index for index, byte in enumerate(others)}
    return "".join(chr(spare.get(byte, byte)) for byte in range(256))


def bytes_of_spelled(tokens: Sequence[str]) -> list[bytes | None]:
    """Return the bytes that each token spells; None where a character spells no byte."""
    joined = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), np.uint32)
    characters = byte_characters()
    table = np.full(max(map(ord, characters)) + 2, -1, np.int16)
    table[[ord(character) for character in characters]] = np.arange(256)
    spelled = table[np.minimum(joined, table.size - 1)]
    ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
    bad = np.searchsorted(ends, np.flatnonzero(spelled < 0), side="right")
    flat, bounds = spelled.astype(np.uint8).tobytes(), [0, *ends.tolist()]
    rows: list[bytes | None] = [flat[a:b] for a, b in itertools.pairwise(bounds)]
    for row in np.unique(bad).tolist():
        rows[row] = None
    return rows
