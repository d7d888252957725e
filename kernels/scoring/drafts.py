"""Guesses of what a sequence goes on with: what followed the last time that its end stood in it.

Known as prompt look-up (A. Saxena, "Prompt Lookup Decoding", 2023). It costs no second model, and
guesses well where text repeats itself or its prompt: code, summaries, answers by a scheme.
"""

from __future__ import annotations

from numbatch.kernels.jit import cpu_kernel

__all__ = ["guess_tokens"]


@cpu_kernel
def guess_tokens(tokens, length, out):
    """Guess the tokens after the first ``length``. No error check.

    The last place before the end is sought where the last three tokens stood, or else the last two.
    What followed there is guessed; where that reaches the end, guesses go on with themselves.

    Parameters
    ----------
    tokens : int64 array, shape (at least length,)
    length : intp
    out : int64 array
        Modified in place, if there is such a place.

    Returns
    -------
    bool
        Whether there is.
    """
    if length < 3:
        return False
    last, before, third = tokens[length - 1], tokens[length - 2], tokens[length - 3]
    start = -1
    for end in range(length - 1, 1, -1):
        if tokens[end - 1] == last and tokens[end - 2] == before:
            if end > 2 and tokens[end - 3] == third:
                start = end
                break
            start = max(start, end)
    if start < 0:
        return False
    for i in range(out.size):
        out[i] = tokens[start + i % (length - start)]
    return True
