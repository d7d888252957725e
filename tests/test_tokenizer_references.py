"""The tokenizer against tiktoken and Hugging Face's tokenizers, on real and on hard text."""

import itertools
import json
import lzma
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders, models, pre_tokenizers

from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.from_gguf import tokenizer_from_gguf

TIKTOKEN_NAMES = ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")
JSON_NAMES = ("llama3", "qwen3", "llama2", "gemma3")
HARD = [
    "",
    " ",
    "\n",
    "a" * 5000,
    " " * 3000 + "x",
    "x" + "\n \t\r\n" * 300,
    "1234567890 12 3 ४५६ ½²Ⅷ",
    "\x00\x01\x00\x1c\x1d\x85\u2028\u3000",
    "don't DON'T it\u2019s '\u017f 'S'll",
    "e\u0301\u0327 e\u0327\u0301 ﬁ Å ℵ \u1100\u1161\u11a8",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 \U0010ffff",
    "<|endoftext|><s></s><bos><unk><|im_start|>",
    "▁▁▁ ▁a ▁ ▁",
    "<0x0A><0xE2>",
    "\t\tif x:\r\n\t\t\treturn [1, 2]\n\n\n",
    "ABCdefGHI'Re XMLHttpRequest/path/\n/",
]
# Characters that Unicode 3.2 had: every library's tables agree on them.
KNOWN = [
    chr(c) for c in range(0x110000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs")
]
tricky = st.sampled_from(
    list(" \n\t\r'sStTlLreEvV0129.,/▁é\u0301\u017f中😀\u200d\x00\x85\u3000<|>")
)
texts = st.one_of(
    st.text(st.sampled_from(KNOWN)),
    st.text(tricky, max_size=60),
    st.lists(st.one_of(st.text(tricky), st.text(st.sampled_from(KNOWN), max_size=3))).map("".join),
)
hypothesis_settings = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def documents(data_folder):
    rows = []
    for name in ("english", "code", "multilingual"):
        with lzma.open(
            data_folder / "corpora" / f"{name}.jsonl.xz", "rt", encoding="utf-8"
        ) as file:
            rows += [json.loads(line) for line in itertools.islice(file, 0, 1000, 8)]
    assert len(rows) == 375
    return rows + HARD


@pytest.fixture(scope="module")
def json_file(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabularies")

    def unpack(name):
        path = folder / f"{name}.tokenizer.json"
        if not path.exists():
            packed = data_folder / "vocabularies" / f"{name}.tokenizer.json.xz"
            path.write_bytes(lzma.decompress(packed.read_bytes()))
        return path

    return unpack


@pytest.fixture(scope="module", params=TIKTOKEN_NAMES)
def tiktoken_pair(request, data_folder):
    tiktoken = pytest.importorskip("tiktoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(data_folder / "vocabularies" / "tiktoken_cache"))
        encoding = tiktoken.get_encoding(request.param)
    return Tokenizer.from_tiktoken(encoding), encoding


@pytest.fixture(scope="module", params=JSON_NAMES)
def json_pair(request, json_file):
    path = json_file(request.param)
    return Tokenizer.from_file(path), HuggingFace.from_file(str(path))


def smollm2_like(metadata):
    """The tokenizer that a GGUF with ``tokenizer.ggml.pre = smollm`` stands for."""
    vocabulary = {t: i for i, t in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(m.split(" ")) for m in metadata["tokenizer.ggml.merges"]]
    reference = HuggingFace(models.BPE(vocabulary, merges))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    reference.decoder = decoders.ByteLevel()
    return reference


@pytest.fixture(scope="module")
def qwen3_spec(json_file):
    return json.loads(json_file("qwen3").read_bytes())


@pytest.fixture(scope="module", params=["smollm", "gpt-2", "qwen2", "llama-bpe"])
def byte_level_gguf_pair(request, json_file, qwen3_spec):
    """GGUF metadata from Qwen 3's vocabulary, with some control characters taken out."""
    model = qwen3_spec["model"]
    kept = [t for t in model["vocab"] if t not in ("Ą", "Ć", "ĝ")]  # bytes 4, 6 and 0x1d
    assert len(kept) == len(model["vocab"]) - 3
    merges = [pair for pair in model["merges"] if not {"Ą", "Ć", "ĝ"} & set("".join(pair))]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": request.param,
        "tokenizer.ggml.tokens": [*kept, "<|endoftext|>"],
        "tokenizer.ggml.token_type": np.array([1] * len(kept) + [3], np.int32),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges[:60_000]],
    }
    reference = smollm2_like(metadata)
    split = {
        "smollm": None,
        "gpt-2": pre_tokenizers.ByteLevel(False),
        "qwen2": qwen3_spec["pre_tokenizer"],
        "llama-bpe": json.loads(json_file("llama3").read_bytes())["pre_tokenizer"],
    }[request.param]
    if isinstance(split, dict):
        spec = json.loads(reference.to_str())
        spec["pre_tokenizer"] = split
        spec["model"]["ignore_merges"] = request.param == "llama-bpe"
        reference = HuggingFace.from_str(json.dumps(spec))
    elif split is not None:
        reference.pre_tokenizer = split
    return tokenizer_from_gguf(metadata), reference


@pytest.fixture(scope="module")
def sentencepiece_gguf_pair(json_file):
    """Llama 2's vocabulary as GGUF has it: tokens, scores, types, and no merges."""
    path = json_file("llama2")
    model = json.loads(path.read_bytes())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    scores = np.full(len(tokens), -1e9, np.float32)
    for rank, merge in enumerate(model["merges"]):
        whole = model["vocab"][merge.replace(" ", "")]
        scores[whole] = max(scores[whole], -rank)
    kinds = np.ones(len(tokens), np.int32)
    kinds[:3] = 2, 3, 3
    kinds[[model["vocab"][f"<0x{byte:02X}>"] for byte in range(256)]] = 6
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token.encode() for token in tokens],
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
    }
    return tokenizer_from_gguf(metadata), HuggingFace.from_file(str(path))


def plain(reference, text):
    """Encode with the special tokens' texts as plain text."""
    reference.encode_special_tokens = True
    return reference.encode(text, add_special_tokens=False).ids


def check_plain(pair, rows):
    tokenizer, reference = pair
    encoded = tokenizer.encode_batch(rows)
    assert encoded.values.dtype == np.uint32
    assert len(encoded) == len(rows)
    for text, ids in zip(rows, encoded, strict=True):
        expected = plain(reference, text)
        assert ids.tolist() == expected
        assert tokenizer.decode(ids) == reference.decode(expected, skip_special_tokens=False)


def test_tiktoken_on_documents(tiktoken_pair, documents):
    tokenizer, encoding = tiktoken_pair
    assert tokenizer.vocabulary_size == encoding.n_vocab
    encoded = tokenizer.encode_batch(documents)
    for text, ids in zip(documents, encoded, strict=True):
        assert ids.tolist() == encoding.encode_ordinary(text)
        assert tokenizer.decode_bytes(ids) == text.encode()


@hypothesis_settings
@given(texts)
@example("\ud83d\ude00 \ud800 x")
def test_tiktoken_on_any_text(tiktoken_pair, text):
    tokenizer, encoding = tiktoken_pair
    assert tokenizer.encode(text).tolist() == encoding.encode_ordinary(text)
    expected = encoding.encode(text, allowed_special="all")
    assert tokenizer.encode(text, allowed_special="all").tolist() == expected


@hypothesis_settings
@given(st.text())
def test_byte_level_round_trip(tiktoken_pair, text):
    tokenizer, _ = tiktoken_pair
    ids = tokenizer.encode(text, errors="strict")
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text


def test_tiktoken_random_ids_decode_alike(tiktoken_pair):
    tokenizer, encoding = tiktoken_pair
    ids = np.random.default_rng(0).integers(0, 50_000, 3000)
    assert tokenizer.decode_bytes(ids) == encoding.decode_bytes(ids.tolist())
    assert tokenizer.decode(ids) == encoding.decode(ids.tolist())


def test_tokenizer_json_on_documents(json_pair, documents):
    check_plain(json_pair, documents)


@hypothesis_settings
@given(texts)
def test_tokenizer_json_on_any_text(json_pair, text):
    tokenizer, reference = json_pair
    assert tokenizer.encode(text).tolist() == plain(reference, text)
    reference.encode_special_tokens = False
    expected = reference.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, allowed_special="all").tolist() == expected


def test_tokenizer_json_special_tokens(json_pair):
    tokenizer, reference = json_pair
    tokens = list(tokenizer.special_ids)[:4]
    text = " a ".join(tokens) + "".join(tokens) + "\n <think>" + tokens[0]
    reference.encode_special_tokens = False
    expected = reference.encode(text, add_special_tokens=False).ids
    ids = tokenizer.encode(text, allowed_special="all")
    assert ids.tolist() == expected
    assert {tokenizer.special_ids[t] for t in tokens} <= set(expected)
    for skip in (False, True):
        assert tokenizer.decode(ids, skip_special=skip) == reference.decode(
            expected, skip_special_tokens=skip
        )


def test_added_tokens_beside_texts_that_are_normalized(json_pair):
    """A batch of which some rows hold tokens, some change by NFC, and one both."""
    texts = ["e\u0301", "a<think>b", "plain", "<think>", "<think>e\u0301<|im_end|>", "", "\u212b x"]
    for rows in (texts, texts[:4], texts[:3], [texts[1]] * 3, [texts[0], texts[6]]):
        check_plain(json_pair, rows)


def test_tokenizer_json_bos(json_pair):
    tokenizer, reference = json_pair
    reference.encode_special_tokens = False
    expected = reference.encode("Hello", add_special_tokens=True).ids
    assert tokenizer.encode("Hello", add_bos=tokenizer.adds_bos).tolist() == expected


def test_byte_level_gguf_on_documents(byte_level_gguf_pair, documents):
    check_plain(byte_level_gguf_pair, documents)


def test_missing_bytes_are_left_out_as_elsewhere(byte_level_gguf_pair):
    tokenizer, reference = byte_level_gguf_pair
    text = "a\x04b \x06\x1d c"
    assert tokenizer.encode(text).tolist() == plain(reference, text)
    assert tokenizer.decode(tokenizer.encode(text)) == "ab  c"


def test_sentencepiece_gguf_on_documents(sentencepiece_gguf_pair, documents):
    check_plain(sentencepiece_gguf_pair, documents)


@hypothesis_settings
@given(texts)
def test_sentencepiece_gguf_on_any_text(sentencepiece_gguf_pair, text):
    tokenizer, reference = sentencepiece_gguf_pair
    assert tokenizer.encode(text).tolist() == plain(reference, text)


def test_sentencepiece_gguf_special_tokens(sentencepiece_gguf_pair):
    tokenizer, reference = sentencepiece_gguf_pair
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.adds_bos) == (1, {2}, True)
    reference.encode_special_tokens = False
    text = "<s> a</s>b <unk>"
    expected = reference.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, allowed_special="all").tolist() == expected
    assert tokenizer.encode(text, allowed_special="all", add_bos=True).tolist() == expected


@pytest.mark.parametrize("name", ["llama2", "gemma3"])
def test_a_million_characters_in_one_piece(json_file, documents, name):
    tokenizer = Tokenizer.from_file(json_file(name))
    text = "".join(documents[: -len(HARD)])[: 2**20]
    assert len(text) > 900_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
