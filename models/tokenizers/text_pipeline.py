"""From a text to the pieces that are merged: added tokens, normalization, splitting."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from numbatch.models.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from numbatch.models.tokenizers.normalize import Normalizer
from numbatch.models.tokenizers.split_text import Splitter

__all__ = ["TextPipeline", "build_pipeline"]


@dataclass(frozen=True, slots=True)
class TextPipeline:
    """Turns a text into pieces, in the order that Hugging Face's tokenizers keeps."""

    raw_tokens: AddedTokenFinder
    """Found in the text as it is."""
    normalized_tokens: AddedTokenFinder
    """Found in what lies between, once it is normalized."""
    normalizer: Normalizer | None
    splitter: Splitter

    def pieces(self, text: str, allowed: Container[int]) -> Iterator[str | int]:
        """Yield pieces to merge, and the ids of added tokens between them.

        Parameters
        ----------
        text : str
            Valid Unicode.
        allowed : container of int
            Ids of the special tokens that are found; the others are plain text.
        """
        first = True
        for stretch in self.raw_tokens.divide(text, allowed):
            if isinstance(stretch, int):
                yield stretch
            else:
                yield from self._stretch(stretch, allowed, first)
            first = False

    def _stretch(self, text: str, allowed: Container[int], first: bool) -> Iterator[str | int]:
        if self.normalizer is not None:
            text = self.normalizer(text)
        for part in self.normalized_tokens.divide(text, allowed):
            if isinstance(part, int):
                yield part
            else:
                yield from self.splitter.split([part], first)
            first = False


def build_pipeline(
    added: Sequence[AddedToken], normalizer: Normalizer | None, splitter: Splitter, where: str
) -> TextPipeline:
    """Sort the added tokens by where they are looked for; ``where`` names the file in messages."""
    raw = [token for token in added if not token.normalized]
    normalized = [token for token in added if token.normalized]
    contents = [normalizer(t.content) if normalizer else t.content for t in normalized]
    return TextPipeline(
        AddedTokenFinder(raw, [token.content for token in raw], where),
        AddedTokenFinder(normalized, contents, where),
        normalizer,
        splitter,
    )
