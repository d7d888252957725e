"""GPT-2's spelling of bytes as visible characters, used by byte-level vocabularies."""

from __future__ import annotations

import functools

import numpy as np

from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.spelled_bytes import CODES, read_spelled

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


def bytes_of_spelled(texts: Ragged, raw: np.ndarray, *, keeps: bool) -> Ragged:
    """Return the bytes that each row of UTF-8 spells.

    Rows that are ``raw`` (a bool array), and those with a character that spells no byte, stay as
    they are if ``keeps``; otherwise they become empty.
    """
    return read_spelled(texts, raw, _byte_of_character(), keeps=keeps)


@functools.cache
def _byte_of_character() -> np.ndarray:
    """Return the byte that each character below ``CODES`` spells, or -1."""
    table = np.full(CODES, -1, np.int16)
    table[[ord(character) for character in byte_characters()]] = np.arange(256)
    return table
