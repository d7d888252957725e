"""The patterns by which known tokenizers split text into pieces.

Sources: the files of tiktoken (``tiktoken_ext/openai_public.py``), the ``pre_tokenizer`` of the
models' tokenizer.json files, and llama.cpp's names for them (``tokenizer.ggml.pre``).
"""

from __future__ import annotations

from dataclasses import dataclass

from numbatch.errors import ModelError

__all__ = [
    "CL100K",
    "GPT2",
    "LLAMA3",
    "O200K",
    "QWEN2",
    "TEKKEN",
    "TIKTOKEN",
    "GGUFSplit",
    "TiktokenEncoding",
    "gguf_split",
]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
O200K = (
    _CASED.replace("%s", _CONTRACTION + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
)
TEKKEN = _CASED.replace("%s", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"


@dataclass(frozen=True, slots=True)
class TiktokenEncoding:
    """What a .tiktoken file does not say: how text is split, and the special tokens."""

    pattern: str
    special_tokens: dict[str, int]
    tokens: int = 0
    """How many tokens its file has, the special ones not among them; 0 where that is not known."""


_FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
_HARMONY = {
    "<|startoftext|>": 199998,
    "<|endoftext|>": 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
    "<|endofprompt|>": 200018,
}
TIKTOKEN = {
    "gpt2": TiktokenEncoding(GPT2, {"<|endoftext|>": 50256}, 50256),
    "r50k_base": TiktokenEncoding(GPT2, {"<|endoftext|>": 50256}, 50256),
    "p50k_base": TiktokenEncoding(GPT2, {"<|endoftext|>": 50256}, 50280),
    "p50k_edit": TiktokenEncoding(
        GPT2,
        {"<|endoftext|>": 50256, **dict(zip(_FIM, range(50281, 50284), strict=True))},
        50280,
    ),
    "cl100k_base": TiktokenEncoding(
        CL100K,
        {
            "<|endoftext|>": 100257,
            **dict(zip(_FIM, range(100258, 100261), strict=True)),
            "<|endofprompt|>": 100276,
        },
        100256,
    ),
    "o200k_base": TiktokenEncoding(
        O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}, 199998
    ),
    # 200018 has two names there.
    "o200k_harmony": TiktokenEncoding(
        O200K,
        {
            f"<|reserved_{i}|>": i
            for i in (200000, 200001, 200004, *range(200009, 201088))
            if i != _HARMONY["<|call|>"]
        }
        | _HARMONY,
        199998,
    ),
}


@dataclass(frozen=True, slots=True)
class GGUFSplit:
    """What a name in ``tokenizer.ggml.pre`` stands for."""

    patterns: tuple[str, ...]
    """Each is applied to the pieces that the one before it left; what lies between stays."""
    whole_pieces: bool = False
    """A piece that is a token is that token (``ignore_merges``)."""
    adds_bos: bool = False
    """Where the file does not say."""


_SPLITS: tuple[tuple[GGUFSplit, tuple[str, ...]], ...] = (
    (GGUFSplit((_PUNCTUATION, GPT2, r"\p{N}+", "[0-9][0-9][0-9]")), ("default",)),
    (GGUFSplit((GPT2,)), ("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion")),
    (
        GGUFSplit((r"\p{N}", GPT2)),
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    ),
    (
        GGUFSplit((LLAMA3,), whole_pieces=True, adds_bos=True),
        ("llama-bpe", "llama3", "llama-v3", "falcon3"),
    ),
    (GGUFSplit((LLAMA3,)), ("dbrx", "smaug-bpe", "glm4", "chatglm-bpe")),
    (GGUFSplit((QWEN2,)), ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan")),
    (GGUFSplit((O200K,)), ("gpt-4o", "llama4")),
    (GGUFSplit((TEKKEN,), whole_pieces=True, adds_bos=True), ("tekken",)),
)


def gguf_split(name: str) -> GGUFSplit:
    """Return how the tokenizer of this ``tokenizer.ggml.pre`` splits text.

    Raises
    ------
    ModelError
        If the name is not known; it says which are.
    """
    known = {alias: split for split, aliases in _SPLITS for alias in aliases}
    if name not in known:
        raise ModelError(
            f"tokenizer.ggml.pre is {name!r}, which is not supported; "
            f"supported are {', '.join(sorted(known))}"
        )
    return known[name]
