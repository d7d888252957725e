"""English text that every Python carries: the documentation of its own language."""

from __future__ import annotations

from pydoc_data.topics import topics

__all__ = ["documents", "long_text"]


def documents(count: int, characters: int = 2000) -> list[str]:
    """Return ``count`` passages of about so many characters, the same ones each time."""
    whole = long_text(count * characters)
    return [whole[i * characters : (i + 1) * characters] for i in range(count)]


def long_text(characters: int) -> str:
    """Return one text of so many characters; where there are too few, they come again."""
    whole = "\n\n".join(topics[name] for name in sorted(topics))
    return (whole * (characters // len(whole) + 1))[:characters]
