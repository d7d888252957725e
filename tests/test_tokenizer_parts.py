"""Each supported part of a tokenizer.json, against Hugging Face's tokenizers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken as HuggingFaceToken
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HuggingFace

from numbatch.errors import ModelError
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.byte_level import byte_characters, bytes_of_spelled
from numbatch.models.tokenizers.from_json import tokenizer_from_json
from numbatch.models.tokenizers.normalize import parse_normalizer
from numbatch.models.tokenizers.split_patterns import TIKTOKEN, gguf_split
from numbatch.models.tokenizers.split_text import parse_splitter
from numbatch.models.tokenizers.vocabulary import byte_strings

letters = st.sampled_from(list("aAbB  \t\n.,12½é\u0301Å▁\u03a3\u03c3İÅﬁ你x-<>"))
texts = st.text(letters, max_size=25)
quick = settings(deadline=None, max_examples=60)


def spec_of(part):
    """What tokenizer.json says of a part (the objects pickle as JSON)."""
    return json.loads(part.__getstate__())


NORMALIZERS = [
    normalizers.NFC(),
    normalizers.NFD(),
    normalizers.NFKC(),
    normalizers.NFKD(),
    normalizers.Lowercase(),
    normalizers.Strip(),
    normalizers.Strip(left=False, right=True),
    normalizers.Strip(left=True, right=False),
    normalizers.Prepend("▁"),
    normalizers.Replace(" ", "▁"),
    normalizers.Replace(Regex(r"\s+"), " "),
    normalizers.Replace(Regex(r"a|b$"), r"\1"),
    normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.Prepend("x")]),
    normalizers.Sequence([]),
]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
@quick
@given(texts)
def test_normalizers(normalizer, text):
    ours = parse_normalizer(spec_of(normalizer), "normalizer")
    assert ours(text) == normalizer.normalize_str(text)


def test_strip_takes_white_space_and_nothing_else():
    every = "".join(map(chr, range(0x20))) + "\x7f\x85\xa0\u1680\u200b\u2028\u3000\ufeff"
    ours = parse_normalizer({"type": "Strip", "strip_left": True, "strip_right": False}, "")
    for character in every:
        assert ours(character + "a") == normalizers.Strip().normalize_str(character + "a")


BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
SPLITTERS = [
    *(
        pre_tokenizers.Split(pattern, behavior, invert)
        for pattern in (Regex(r"\s+|[ab]"), Regex(r"(a)|(?:b|^ )|\.$"), " ", ".,")
        for behavior in BEHAVIORS
        for invert in (False, True)
    ),
    pre_tokenizers.Digits(individual_digits=True),
    pre_tokenizers.Digits(individual_digits=False),
    *(
        pre_tokenizers.Metaspace("▁", scheme, split)
        for scheme in ("always", "first", "never")
        for split in (False, True)
    ),
    pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.Metaspace("▁", "first", True)]
    ),
    pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "isolated")] * 2),
]


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
@quick
@given(texts)
def test_splitters(splitter, text):
    ours, byte_level = parse_splitter(spec_of(splitter), "pre_tokenizer")
    assert not byte_level
    pieces = ours.split([text], True) if text else []
    assert pieces == [piece for piece, _ in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("digits", [False, True])
@quick
@given(texts)
def test_byte_level_splitters(prefix, words, digits, text):
    reference = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=words)
    if digits:
        reference = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), reference])
    ours, byte_level = parse_splitter(spec_of(reference), "pre_tokenizer")
    assert byte_level
    pieces = [piece.encode() for piece in ours.split([text], True)] if text else []
    expected = [piece for piece, _ in reference.pre_tokenize_str(text)]
    assert pieces == spelled_bytes(expected)


def test_bytes_are_spelled_as_elsewhere():
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    text = "".join(map(chr, range(256))) + "€😀"
    spelled = pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text)[0][0]
    assert spelled_bytes([spelled]) == [text.encode()]
    texts = ["a", "", "a b", "Ġ", "▁", "ń", "\x80", "߿", "😀", "é"]
    left_out = [b"a", b"", b"", b" ", b"", b"", b"", b"", b"", b"\xe9"]
    assert spelled_bytes(texts) == left_out
    kept = [new or old.encode() for new, old in zip(left_out, texts, strict=True)]
    assert spelled_bytes(texts, keeps=True) == kept
    assert spelled_bytes(["Ġa", "Ġb"], [True, False], keeps=True) == ["Ġa".encode(), b" b"]
    assert spelled_bytes(["Ġa", "Ġb"], [True, False]) == [b"", b" b"]


def spelled_bytes(texts, raw=None, *, keeps=False):
    """The bytes that texts spell, as a list."""
    encoded = byte_strings([text.encode() for text in texts])
    raw = np.zeros(len(texts), bool) if raw is None else np.array(raw)
    return [row.tobytes() for row in bytes_of_spelled(encoded, raw, keeps=keeps)]


def byte_level(added, normalizer=None):
    vocabulary = {c: i for i, c in enumerate(byte_characters())}
    reference = HuggingFace(models.BPE(vocabulary, []))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.decoder = decoders.ByteLevel()
    if normalizer is not None:
        reference.normalizer = normalizer
    for token in added:
        (reference.add_special_tokens if token.special else reference.add_tokens)([token])
    return Tokenizer.from_huggingface(reference), reference


ADDED = [
    [HuggingFaceToken("<a>", normalized=False), HuggingFaceToken("<a><b>", normalized=False)],
    [HuggingFaceToken("<m>", lstrip=True, normalized=False)],
    [HuggingFaceToken("<m>", rstrip=True, normalized=False)],
    [HuggingFaceToken("<m>", lstrip=True, rstrip=True, normalized=False, special=True)],
    [HuggingFaceToken("ab", single_word=True, normalized=False)],
    [HuggingFaceToken("AB", normalized=True), HuggingFaceToken("<a>", normalized=False)],
    [
        HuggingFaceToken("<a>", normalized=False, special=True),
        HuggingFaceToken("a>", normalized=False),
        HuggingFaceToken("<a", normalized=True),
    ],
]
pieces = st.lists(
    st.sampled_from(
        ["<a>", "<b>", "<m>", "ab", "AB", " ", "\n", "\u3000", "x", "é", "_", "1", "."]
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize("added", ADDED, ids=str)
@pytest.mark.parametrize("special", [False, True])
@quick
@given(pieces)
def test_added_tokens(added, special, text):
    ours, reference = byte_level(added, normalizers.Lowercase())
    reference.encode_special_tokens = not special
    expected = reference.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, allowed_special="all" if special else ()).tolist() == expected


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("fallback", [False, True])
@quick
@given(st.lists(st.sampled_from(["ab", "▁", " ", "b", "é", "你", "<u>", "a"])).map("".join))
def test_sentencepiece_style(scheme, fuse, fallback, text):
    tokens = ["<u>", "▁", "a", "b", "ab", "▁a", "▁ab", "▁▁"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    merges = [("▁", "▁"), ("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "ab")]
    reference = HuggingFace(
        models.BPE(
            {t: i for i, t in enumerate(tokens)},
            merges,
            unk_token="<u>",
            fuse_unk=fuse,
            byte_fallback=fallback,
        )
    )
    reference.add_special_tokens([HuggingFaceToken("<u>", normalized=False, special=True)])
    reference.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, False)
    reference.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", int(scheme == "always"), 0),
        ]
    )
    ours = Tokenizer.from_huggingface(reference)
    expected = reference.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, allowed_special="all").tolist() == expected
    assert ours.decode(expected) == reference.decode(expected, skip_special_tokens=False)


def minimal(**changes):
    vocabulary = {c: i for i, c in enumerate(byte_characters())}
    return {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "BertNormalizer"}}, "normalizer has type 'BertNormalizer'.*NFKD"),
        ({"normalizer": {"type": "Sequence"}}, "normalizers is None, should be a list"),
        ({"normalizer": {"type": "Prepend"}}, "prepend is None, should be a string"),
        ({"normalizer": {"type": "Replace", "content": ""}}, "pattern is None"),
        ({"normalizer": 3}, "normalizer is 3"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "'Whitespace', which is not supported.*Digits"),
        ({"pre_tokenizer": {"type": "Sequence"}}, "pretokenizers is None, should be a list"),
        ({"pre_tokenizer": {"type": "Split", "pattern": "x"}}, "pattern is 'x'"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}}},
            r"'\(a' is no regular expression",
        ),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"String": "x"}, "behavior": "Odd"}},
            "behavior is 'Odd'",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}],
                }
            },
            "ByteLevel is followed by another step",
        ),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": ""}}, "should be one character"),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "x"}}, "prepend_scheme is 'x'"),
        ({"pre_tokenizer": []}, r"pre_tokenizer is \[\]"),
        ({"decoder": {"type": "WordPiece"}}, "decoder has type 'WordPiece'.*ByteFallback"),
        ({"decoder": {"type": "Strip", "content": "x", "start": 1, "stop": 0}}, "Strip takes 1"),
        ({"decoder": {"type": "Replace", "pattern": {"Regex": "x"}, "content": ""}}, "Replace has"),
        ({"post_processor": {"type": "BertProcessing"}}, "'BertProcessing'.*TemplateProcessing"),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<bos>"}}],
                }
            },
            "begins with '<bos>'",
        ),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(ModelError, match=f"(?s)file.json.*{message}"):
        tokenizer_from_json(minimal(**changes), name="file.json")


def test_unknown_gguf_split():
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.pre is 'odd'.*llama-bpe.*smollm"):
        gguf_split("odd")


def test_the_known_encodings_are_those_of_tiktoken(monkeypatch):
    """Names, special tokens and, where written the same way, patterns."""
    public = pytest.importorskip("tiktoken_ext.openai_public")
    for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(public, loader, lambda *args, **kwargs: {})
    assert set(TIKTOKEN) == set(public.ENCODING_CONSTRUCTORS)
    for name, constructor in public.ENCODING_CONSTRUCTORS.items():
        expected = constructor()
        assert TIKTOKEN[name].special_tokens == expected["special_tokens"]
        if name.startswith(("cl100k", "o200k")):
            assert TIKTOKEN[name].pattern == expected["pat_str"]
