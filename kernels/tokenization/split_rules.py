"""The families of split patterns that are compiled, each as one number.

Every pattern of a family is one of three styles with a few switches:

``SPACED``
    GPT-2: a word, a number or a run of signs takes one space before it.
``PREFIXED``
    cl100k, Llama 3, Qwen: a word takes any one character before it that is no letter, number or
    line end; signs take one space before them and the line ends after them.
``CASED``
    o200k: as PREFIXED, and a word ends where its small letters do.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "APART",
    "CASED",
    "CONTRACTIONS",
    "END_SPACES",
    "ONE_DIGIT",
    "PREFIXED",
    "SPACED",
    "STYLE",
    "THREE_DIGITS",
]

# np.intp, not int: Numba types a plain number as a constant of its own, and would compile the
# functions that it is given to once for each.
STYLE = np.intp(3)
SPACED, PREFIXED, CASED = np.intp(0), np.intp(1), np.intp(2)
ONE_DIGIT = np.intp(4)
"""Each number character is a piece (``\\p{N}``)."""
THREE_DIGITS = np.intp(8)
"""Numbers are divided into threes from the left (``\\p{N}{1,3}``)."""
CONTRACTIONS = np.intp(16)
"""``'s``, ``'t``, ``'re``, ``'ve``, ``'m``, ``'ll``, ``'d`` are pieces; in CASED, ends of words."""
END_SPACES = np.intp(32)
"""White space that ends the text is one piece, line ends and all (``\\s+$``)."""
APART = np.intp(64)
"""With SPACED: the text is divided at each number character before anything else is done."""
