"""What NFC may change, found without normalizing; and added tokens found 64 bytes at a time."""

import random
import unicodedata

import numpy as np
from random_text import random_text

from numbatch.kernels.tokenization.composition import (
    UNSURE,
    composition_table,
    rows_to_normalize,
)
from numbatch.kernels.tokenization.literals import find_literals_in_rows, longest_by_first_byte
from numbatch.kernels.tokenization.tables import build_string_table
from numbatch.kernels.tokenization.unicode_classes import PAGES
from numbatch.models.tokenizers.flat_text import flat_text
from numbatch.models.tokenizers.vocabulary import byte_strings


def test_all_of_unicode():
    table = composition_table()
    pages = table[:PAGES].astype(np.int64)
    entries = table[PAGES:].reshape(-1, 256)[pages].ravel()
    assert not entries[:0x300].any()
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        if unicodedata.normalize("NFC", character) != character:
            assert entries[code] == UNSURE
        else:
            assert entries[code] in (unicodedata.combining(character), UNSURE)


def test_rows_that_change_are_found():
    rng = random.Random(2)
    marks = ["e\u0301", "\u1100\u1161", "\u212b", "\u0345\u0301", "\u0344", "\U0001d15e"]
    texts = [random_text(rng, 150) for _ in range(3000)]
    texts += ["a" * n + rng.choice(marks) + "b" * rng.randint(0, 70) for n in range(140)]
    rng.shuffle(texts)
    flat = flat_text(texts, "strict")
    found = set(rows_to_normalize(flat.data, flat.offsets).tolist())
    changed = {i for i, t in enumerate(texts) if unicodedata.normalize("NFC", t) != t}
    assert changed <= found
    assert len(changed) > 140
    ascii_rows = {i for i, text in enumerate(texts) if text.isascii()}
    assert ascii_rows
    assert not found & ascii_rows
    normal, rows = flat.normalized()
    assert set(rows.tolist()) == changed
    expected = [unicodedata.normalize("NFC", text) for text in texts]
    assert [normal.text(i) for i in range(len(texts))] == expected


def test_nothing_to_normalize():
    flat = flat_text(["plain", "", "é中한"], "strict")
    normal, rows = flat.normalized()
    assert normal is flat
    assert rows.size == 0


def test_literals_wherever_they_lie_in_a_block():
    rng = random.Random(4)
    for literals in (["<a>", "<ab>", "[x", "#"], ["<tool>"], ["ab", "cd", "ef", "gh", "i"]):
        table, _ = build_string_table(
            byte_strings([text.encode() for text in literals]), np.arange(len(literals))
        )
        texts = []
        for _ in range(400):
            parts = rng.choices(
                [*literals, "<", "<a", "x" * rng.randint(0, 90)], k=rng.randint(0, 5)
            )
            texts.append("".join(parts))
        flat = flat_text(texts, "strict")
        starts, which, rows = find_literals_in_rows(
            flat.data, flat.offsets, table, longest_by_first_byte(table)
        )
        expected = []
        for row, text in enumerate(texts):
            at = 0
            while at < len(text):
                fitting = [literal for literal in literals if text.startswith(literal, at)]
                best = max(fitting, key=len, default="")
                if best:
                    expected.append((int(flat.offsets[row]) + at, literals.index(best), row))
                at += len(best) or 1
        assert [*zip(starts.tolist(), which.tolist(), rows.tolist(), strict=True)] == expected
