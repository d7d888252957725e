"""Which compiled family of split patterns stands for a splitter.

Patterns are known by their text. A pattern that is not known is run by the ``regex`` library,
which gives the same pieces at about a hundredth of the speed.
"""

from __future__ import annotations

import numpy as np
import regex

from numbatch.kernels.tokenization.split_rules import (
    APART,
    CASED,
    CONTRACTIONS,
    END_SPACES,
    ONE_DIGIT,
    PREFIXED,
    SPACED,
    THREE_DIGITS,
)
from numbatch.models.tokenizers.split_patterns import CL100K, GPT2, LLAMA3, O200K, QWEN2, TEKKEN
from numbatch.models.tokenizers.split_text import ChainedSplitter, PatternSplitter, Splitter

__all__ = ["compiled_rules"]

_NUMBER = r"\p{N}"
_GPT2 = SPACED | CONTRACTIONS
_CL100K = PREFIXED | CONTRACTIONS | THREE_DIGITS | END_SPACES
_FAMILIES: dict[str, np.intp] = {
    GPT2: _GPT2,
    # GPT-2 as tiktoken writes it.
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": _GPT2,
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": _GPT2,
    CL100K: _CL100K,
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+": PREFIXED | CONTRACTIONS | THREE_DIGITS,
    LLAMA3: PREFIXED | CONTRACTIONS | THREE_DIGITS,
    QWEN2: PREFIXED | CONTRACTIONS | ONE_DIGIT,
    O200K: CASED | CONTRACTIONS | THREE_DIGITS,
    TEKKEN: CASED | ONE_DIGIT,
}


def compiled_rules(splitter: Splitter) -> int | None:
    """Return the family that divides text as the splitter does, or None where there is none."""
    steps = splitter.splitters if isinstance(splitter, ChainedSplitter) else (splitter,)
    patterns = [step for step in steps if isinstance(step, PatternSplitter)]
    if len(patterns) < len(steps) or not all(map(_keeps_all_in_place, patterns)):
        return None
    sources = [step.pattern.pattern for step in patterns]
    if sources == [_NUMBER, GPT2]:
        return int(_GPT2 | ONE_DIGIT | APART)
    if len(sources) != 1:
        return None
    rules = _FAMILIES.get(sources[0])
    # With lines, $ stands for the end of each of them.
    if rules is not None and "$" in sources[0] and patterns[0].pattern.flags & regex.MULTILINE:
        return None
    return None if rules is None else int(rules)


def _keeps_all_in_place(step: PatternSplitter) -> bool:
    """Return whether the step's matches are the pieces; what lies between them, if any, too."""
    covers = step.pattern.pattern in _FAMILIES  # these match every character
    if step.behavior == "Isolated":
        return covers or step.pattern.pattern == _NUMBER
    return covers and step.behavior == "Removed" and step.invert
