"""Random strings that are hard to split: every class of character, and what patterns look for."""

import random
import unicodedata

FRAGMENTS = [
    *("'s", "'ll", "'RE", "'ve", "'\u017f", "'", " ", "  ", "\n", "\r\n", "\n\n", "    ", "\t"),
    *("a", "B", "word", "Word", "HTTP", "1", "1234567", "!", "//", "/", "\n/", "...", "\u0301"),
    *("é", "中", "\u01c5", "\u3000", "😀", "٣", "ª", "\x85", "\x00", "\x1c", "\u200d"),
]
ASCII = " \n\t\r'sStTlLreEvVdDmM0129.,/aAbBzZ!-\"("
# Characters of Unicode 3.2 are the same in the tables of every library.
BY_KIND: dict[str, list[str]] = {}
for _code in range(0x110000):
    _kind = unicodedata.ucd_3_2_0.category(chr(_code))
    if _kind not in ("Cn", "Cs"):
        BY_KIND.setdefault(_kind, []).append(chr(_code))


def random_text(rng: random.Random, most: int = 200) -> str:
    length = rng.choice([3, 10, 40, 70, 130, most])
    style = rng.random()
    if style < 0.3:
        return "".join(rng.choices(ASCII, k=length))
    if style < 0.6:
        return "".join(rng.choices(FRAGMENTS, k=length))
    kinds = [*BY_KIND]
    share = 0.8 if style < 0.8 else 0.0
    return "".join(
        rng.choice(FRAGMENTS) if rng.random() < share else rng.choice(BY_KIND[rng.choice(kinds)])
        for _ in range(length)
    )
