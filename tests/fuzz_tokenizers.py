"""Compare tokenizers with their references on any number of random strings.

    python tests/fuzz_tokenizers.py --strings 1000000 --vocabularies cl100k_base llama3

With no vocabulary named, on all of them. Prints the first difference, if there is one, and then
exits with status 1. Vocabularies lie in the folder named by ``NUMBATCH_TEST_DATA``; SmolLM2's comes
with the default model, if that was fetched.
"""

from __future__ import annotations

import argparse
import itertools
import lzma
import os
import random
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from random_text import random_text

from numbatch import Tokenizer

TIKTOKEN = ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")
HUGGING_FACE = ("llama3", "qwen3", "llama2", "gemma3", "gpt2", "smollm2")
Encode = Callable[[list[str]], list[list[int]]]


def folder() -> Path:
    return Path(os.environ["NUMBATCH_TEST_DATA"]) / "vocabularies"


def of_tiktoken(name: str) -> tuple[Tokenizer, Encode]:
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder() / "tiktoken_cache")
    import tiktoken

    encoding = tiktoken.get_encoding(name)
    return Tokenizer.from_tiktoken(encoding), encoding.encode_ordinary_batch


def of_huggingface(name: str) -> tuple[Tokenizer, Encode]:
    import tokenizers

    if name == "gpt2":
        reference = gpt2()
    elif name == "smollm2":
        reference = smollm2()
    else:
        packed = (folder() / f"{name}.tokenizer.json.xz").read_bytes()
        reference = tokenizers.Tokenizer.from_str(lzma.decompress(packed).decode())

    def encode(texts: list[str]) -> list[list[int]]:
        rows = reference.encode_batch_fast(texts, add_special_tokens=False)
        return [row.ids for row in rows]

    return Tokenizer.from_huggingface(reference), encode


def gpt2():
    """GPT-2 as Hugging Face has it, from tiktoken's ranks: the merges follow from them."""
    import tiktoken
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder() / "tiktoken_cache")
    ranks = tiktoken.get_encoding("r50k_base")._mergeable_ranks
    letters = bytes_to_unicode()
    vocabulary, merges = {}, []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        vocabulary["".join(letters[b] for b in token)] = rank
        if len(token) > 1:
            merges.append(tuple("".join(letters[b] for b in half) for half in halves(token, ranks)))
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def halves(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts that a token is merged from: what its bytes come to before it."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def smollm2():
    """SmolLM2's tokenizer as its model card has it, from the vocabulary in the GGUF file."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from numbatch.models.locate import locate

    fields = GGUFReader(locate("smollm2")).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def texts_for(rng: random.Random, count: int, normalizes: bool) -> list[str]:
    """Random texts; where they are normalized, no character that Python's tables may not know."""
    texts = [random_text(rng) for _ in range(count)]
    if normalizes:
        texts = [t for t in texts if not any(unicodedata.category(c) == "Cn" for c in t)]
    return texts


def compare(name: str, count: int, seed: int) -> bool:
    tokenizer, reference = (of_tiktoken if name in TIKTOKEN else of_huggingface)(name)
    rng, done, begin = random.Random(seed), 0, time.time()
    while done < count:
        texts = texts_for(rng, min(20_000, count - done), name == "qwen3")
        ids, expected = tokenizer.encode_batch(texts), reference(texts)
        flat = np.concatenate([np.array(row, np.uint32) for row in expected])
        if not np.array_equal(ids.values, flat):
            for text, mine, right in zip(texts, ids, expected, strict=True):
                if mine.tolist() != right:
                    print(f"{name}: {text!r}\n  {mine.tolist()}\n  {right}")
                    return False
        done += len(texts)
    print(f"{name}: {done} strings, no difference, {time.time() - begin:.0f} s", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--strings", type=int, default=100_000, help="for each vocabulary")
    parser.add_argument("--vocabularies", nargs="*", default=[*TIKTOKEN, *HUGGING_FACE])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    right = [compare(name, options.strings, options.seed) for name in options.vocabularies]
    sys.exit(not all(right))


if __name__ == "__main__":
    main()
