"""The compiled splitter against the ``regex`` library and tiktoken."""

import random

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from random_text import ASCII, FRAGMENTS, random_text

from numbatch.kernels.tokenization import unicode_classes as classes
from numbatch.kernels.tokenization.gather import cut_points
from numbatch.kernels.tokenization.split import split_pieces
from numbatch.models.tokenizers.split_families import compiled_rules
from numbatch.models.tokenizers.split_patterns import (
    CL100K,
    GPT2,
    LLAMA3,
    O200K,
    QWEN2,
    TEKKEN,
)
from numbatch.models.tokenizers.split_text import (
    ChainedSplitter,
    MetaspaceSplitter,
    PatternSplitter,
    compile_pattern,
)

FAMILIES = {
    "gpt2": (GPT2,),
    "cl100k": (CL100K,),
    "llama3": (LLAMA3,),
    "qwen2": (QWEN2,),
    "o200k": (O200K,),
    "tekken": (TEKKEN,),
    "smollm": (r"\p{N}", GPT2),
}


def splitter_of(patterns, lines=False):
    return ChainedSplitter(
        tuple(PatternSplitter(compile_pattern(p, "test", lines=lines)) for p in patterns)
    )


def compiled(text, rules):
    data = text.encode()
    ends = split_pieces(np.frombuffer(data, np.uint8), rules).tolist()
    return [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


@pytest.fixture(params=FAMILIES)
def family(request):
    splitter = splitter_of(FAMILIES[request.param])
    rules = compiled_rules(splitter)
    assert rules is not None
    return splitter, rules


def check(family, text):
    splitter, rules = family
    assert compiled(text, rules) == (splitter.split([text], True) if text else [])


def test_random_text(family):
    rng = random.Random(0)
    for _ in range(1500):
        check(family, random_text(rng))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from([*ASCII, *FRAGMENTS])).map("".join))
def test_any_text(text):
    for patterns in FAMILIES.values():
        splitter = splitter_of(patterns)
        check((splitter, compiled_rules(splitter)), text)


@pytest.mark.parametrize("length", [1, 62, 63, 64, 65, 66, 127, 128, 129, 1000])
@pytest.mark.parametrize("unit", ["a", " ", "\n", "A", "1", "!", "é", "\u0301", "aB", " \n", "/\n"])
def test_runs_that_cross_blocks(family, unit, length):
    for before in ("", "x", " ", "x!", "\n"):
        for after in ("", "x", " ", "\n", "'s", "é"):
            check(family, before + unit * length + after)


def test_classes_are_those_of_tiktoken():
    tiktoken = pytest.importorskip("tiktoken")
    text = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    ranks = {bytes([byte]): byte for byte in range(256)}
    table = classes.class_table()
    codes = np.arange(0x110000)
    kinds = table[classes.PAGES + (table[codes >> 8].astype(int) << 8) + (codes & 255)]
    for pattern, bit in {
        r"\p{L}": classes.LETTER,
        r"\p{N}": classes.NUMBER,
        r"\s": classes.SPACE,
        r"[\r\n]": classes.NEWLINE,
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": classes.UPPER,
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": classes.LOWER,
    }.items():
        encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        expected = np.zeros(0x110000, bool)
        expected[[ord(c) for c in bytes(encoding.encode_ordinary(text)).decode()]] = True
        different = np.flatnonzero(expected != (kinds & bit != 0))
        # Versions of tiktoken before and after have another version of Unicode.
        known = [c for c in different if regex.match(r"\p{Age=15.0}|\p{Age=3.2}", chr(c))]
        assert not known, [hex(c) for c in known[:9]]


def test_texts_are_cut_only_where_pieces_end(family):
    _, rules = family
    rng = random.Random(1)
    for _ in range(300):
        data = np.frombuffer(random_text(rng, 400).encode(), np.uint8)
        points = np.empty(data.size, np.int64)
        wanted = np.arange(1, data.size)
        count = cut_points(data, 0, data.size, wanted[: data.size], points)
        assert set(points[:count].tolist()) <= set(split_pieces(data, rules).tolist())


def test_what_is_not_compiled_is_left_to_regex():
    assert compiled_rules(splitter_of([r"\w+|\W"])) is None
    assert compiled_rules(splitter_of([CL100K], lines=True)) is None
    assert compiled_rules(splitter_of([GPT2, GPT2])) is None
    assert compiled_rules(ChainedSplitter((MetaspaceSplitter("▁", "always", True),))) is None
    removed = PatternSplitter(compile_pattern(GPT2, "test"), "Removed")
    assert compiled_rules(removed) is None
    kept = PatternSplitter(compile_pattern(GPT2, "test"), "Removed", invert=True)
    assert compiled_rules(kept) == compiled_rules(splitter_of([GPT2]))
