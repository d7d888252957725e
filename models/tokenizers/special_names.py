"""Special tokens that are known by their texts, for files that do not say what they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from numbatch.models.tokenizers.added_tokens import AddedToken

__all__ = ["ends_of_turn", "likely_bos"]

_BOS = ("<|begin_of_text|>", "<bos>", "<s>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>")
_ENDS = frozenset(
    {
        "</s>",
        "<eos>",
        "<EOT>",
        "<end_of_turn>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|end_of_turn|>",
        "<|return|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)


def likely_bos(special_ids: Mapping[str, int]) -> int | None:
    """Return the special token that by its text begins a text, or None."""
    return next((special_ids[text] for text in _BOS if text in special_ids), None)


def ends_of_turn(added: Iterable[AddedToken]) -> set[int]:
    """Return the ids of the special tokens that by their texts end a text or a turn."""
    return {token.id for token in added if token.special and token.content in _ENDS}
