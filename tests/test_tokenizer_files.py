"""Tokenizer files: which are read, and what is said of damaged ones."""

import base64
import json
import lzma

import numpy as np
import pytest

from numbatch.errors import ModelError
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.byte_level import byte_characters
from numbatch.models.tokenizers.from_gguf import tokenizer_from_gguf
from numbatch.models.tokenizers.vocabulary import byte_strings

ALL_BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
BYTES = {character: index for index, character in enumerate(byte_characters())}


def spec(**model):
    return {
        "version": "1.0",
        "added_tokens": [
            dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            | {"id": index, "content": content, "special": True}
            for index, content in ((258, "<s>"), (259, "</s>"), (260, "<pad>"))
        ],
        "pre_tokenizer": ALL_BYTES | {"add_prefix_space": False},
        "decoder": ALL_BYTES,
        "model": {
            "type": "BPE",
            "vocab": BYTES | {"he": 256, "hey": 257},
            "merges": ["h e", "he y"],
        }
        | model,
    }


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "tokenizer.json", spec())
    return tmp_path


def test_a_tokenizer_json(folder):
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    assert tokenizer.encode("hey he").tolist() == [257, BYTES["Ġ"], 256]
    assert tokenizer.vocabulary_size == 261
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.adds_bos) == (258, {259}, False)
    assert tokenizer.chat_template is None


def test_a_folder(folder):
    write(
        folder / "tokenizer_config.json",
        {
            "bos_token": {"content": "</s>", "lstrip": False},
            "eos_token": "<pad>",
            "add_bos_token": True,
            "chat_template": [
                {"name": "tool_use", "template": "x"},
                {"name": "default", "template": "{{ bos_token }}{{ eos_token }}"},
            ],
        },
    )
    write(folder / "generation_config.json", {"eos_token_id": [7, 260]})
    tokenizer = Tokenizer.from_file(str(folder))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (259, 260, True)
    assert tokenizer.eos_ids == {259, 260, 7}
    message = [{"role": "user", "content": "a"}]
    assert tokenizer.apply_chat_template(message) == "</s><pad>"
    write(folder / "chat_template.jinja", "from a file")
    assert Tokenizer.from_file(folder).apply_chat_template(message) == "from a file"


def test_bos_by_the_post_processor(tmp_path):
    content = spec()
    content["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel"},
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<pad>"}}, {"Sequence": {"id": "A"}}],
            },
        ],
    }
    tokenizer = Tokenizer.from_file(write(tmp_path / "tokenizer.json", content))
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (260, True)


def test_a_fast_tokenizer_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{{ messages[0].content }}{{ eos_token }}",
    )
    tokenizer = Tokenizer.from_huggingface(fast)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (258, 259)
    messages = [{"role": "user", "content": "hey"}]
    assert tokenizer.apply_chat_template(messages) == fast.apply_chat_template(
        messages, tokenize=False
    )
    assert tokenizer.encode_chat(messages).tolist() == [257, 259]


def write_ranks(path, ranks):
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()]
    path.write_bytes(b"".join(lines))
    return path


RANKS = {bytes([byte]): byte for byte in range(256)}


def test_a_tiktoken_file_of_a_known_encoding(data_folder, tmp_path, monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(data_folder / "vocabularies" / "tiktoken_cache"))
    encoding = tiktoken.get_encoding("cl100k_base")
    path = write_ranks(tmp_path / "cl100k_base.tiktoken", encoding._mergeable_ranks)
    tokenizer = Tokenizer.from_file(path)
    text = "Hello, wörld! <|endofprompt|> 12345\n\n  x"
    assert tokenizer.encode(text).tolist() == encoding.encode_ordinary(text)
    assert tokenizer.encode(text, allowed_special="all").tolist() == encoding.encode(
        text, allowed_special="all"
    )
    assert tokenizer.eos_ids == {100257}
    renamed = path.rename(tmp_path / "other.tiktoken")
    again = Tokenizer.from_file(renamed, encoding="cl100k_base")
    assert again.encode(text).tolist() == encoding.encode_ordinary(text)


def test_a_tiktoken_file_with_its_own_pattern(tmp_path):
    path = write_ranks(tmp_path / "own.tiktoken", RANKS | {b"ab": 256, b"b ": 257})
    tokenizer = Tokenizer.from_file(path, pattern=r"\S+|\s", special_tokens={"<x>": 300})
    assert tokenizer.encode("ab ab<x>", allowed_special="all").tolist() == [256, 32, 256, 300]
    with pytest.raises(ModelError, match=r"encoding 'own' is not known.*cl100k_base"):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocabulary is empty"),
        (b"YQ== 0\nYg==\n", "line 2: b'Yg==' should be base64 and a rank"),
        (b"YQ== 0\nY*== 1\n", "line 2"),
        (b"YQ== x\n", "line 1"),
        (b"YQ== 0\nYQ== 1\n", "line 2: b'a' has rank 0 already"),
        (b"YQ== 0\nYg== 0\n", "b'a' and b'b' both have rank 0"),
        (b"YQ== -5\n", "outside 0 to"),
        (b"YQ== 99999999999\n", "outside 0 to"),
        (b"YQ== 0\n", "no token for the byte 0x00"),
        (b"\xff\xfe\x00\x01", "line 1"),
    ],
)
def test_damaged_tiktoken_files(tmp_path, content, message):
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_file(path, pattern=r"\S+")


def test_a_special_token_on_a_taken_id(tmp_path):
    path = write_ranks(tmp_path / "own.tiktoken", RANKS)
    with pytest.raises(ModelError, match="b'a' and '<x>' both have id 97"):
        Tokenizer.from_file(path, pattern=".", special_tokens={"<x>": 97})


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        Tokenizer.from_file(tmp_path / "none.json")
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        Tokenizer.from_file(tmp_path)
    with pytest.raises(
        ModelError, match=r"of no known kind; supported are tokenizer\.json, \.gguf"
    ):
        Tokenizer.from_file(write(tmp_path / "a.model", "x"))
    with pytest.raises(ModelError, match=r"are for \.tiktoken files"):
        Tokenizer.from_file(write(tmp_path / "a.json", "{}"), encoding="cl100k_base")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no valid JSON"),
        ("[]", "no object at 'model'"),
        ("{}", "no object at 'model'"),
        ('{"model": {"vocab": {"a": 0, "a": 1}}}', "key 'a' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(spec())[:-500], "no valid JSON"),
        ('{"model": "\\ud800"}', "no object at 'model'"),
    ],
)
def test_damaged_json(tmp_path, content, message):
    path = write(tmp_path / "tokenizer.json", content)
    with pytest.raises(ModelError, match=rf"tokenizer\.json.*{message}"):
        Tokenizer.from_file(path)


def test_json_that_is_not_utf8(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b'{"model": "\xff"}')
    with pytest.raises(ModelError, match="no valid JSON"):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"type": "Unigram"}, "'Unigram', which is not supported; supported: BPE"),
        ({"dropout": 0.1}, r"model\.dropout is 0\.1"),
        ({"continuing_subword_prefix": "##"}, r"continuing_subword_prefix is '##'"),
        ({"vocab": None}, r"model\.vocab is missing"),
        ({"vocab": {}}, r"model\.vocab is empty"),
        ({"vocab": {"a": 0, "b": 0}}, "'a' and 'b' both have id 0"),
        ({"vocab": {"a": -1}}, "id of 'a' is -1"),
        ({"vocab": {"a": 2**60}}, "should be from 0 to"),
        ({"vocab": {"a": "0"}}, "id of 'a' is '0'"),
        ({"vocab": {"a": 0, "\ud800": 1}}, "lone surrogate"),
        (
            {"vocab": {c: i for c, i in BYTES.items() if c != "e"}, "merges": []},
            "no token for the byte 0x65",
        ),
        ({"vocab": {"<s>": 3}}, "'<s>' has id 258, in model.vocab 3"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["h e", "he"]}, r"merges\[1\] is 'he', should be two tokens"),
        ({"merges": ["h e", ["he", 5]]}, r"merges\[1\] is \['he', 5\]"),
        ({"merges": [{"a": 1, "b": 2}]}, r"merges\[0\] is"),
        ({"merges": ["h e", "q q"]}, r"merges\[1\] needs 'qq', which is no token"),
        ({"merges": ["hh e"]}, r"merges\[0\] needs 'hh', which is no token"),
        ({"unk_token": "<unk>"}, r"unk_token is '<unk>', which is no token"),
    ],
)
def test_damaged_models(tmp_path, model, message):
    path = write(tmp_path / "tokenizer.json", spec(**model))
    with pytest.raises(ModelError, match=rf"tokenizer\.json.*{message}"):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (5, "added_tokens is 5"),
        ([5], r"added_tokens\[0\] is 5"),
        ([{"content": "<s>"}], "id None"),
        ([{"id": 300, "content": ""}], "is the empty string"),
        ([{"id": 300, "content": "x1"}, {"id": 301, "content": "x1"}], "'x1' stands twice"),
        ([{"id": 3, "content": "<s>"}], "both have id 3"),
    ],
)
def test_damaged_added_tokens(tmp_path, added, message):
    path = write(tmp_path / "tokenizer.json", spec() | {"added_tokens": added})
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_file(path)


def test_a_damaged_config(folder):
    write(folder / "tokenizer_config.json", {"bos_token": "<nothing>"})
    with pytest.raises(ModelError, match="bos_token is '<nothing>', which is no token"):
        Tokenizer.from_file(folder)
    write(folder / "tokenizer_config.json", "[1]")
    with pytest.raises(ModelError, match="holds a list, should hold an object"):
        Tokenizer.from_file(folder)
    write(folder / "tokenizer_config.json", {})
    write(folder / "generation_config.json", {"eos_token_id": "x"})
    with pytest.raises(ModelError, match="eos_token_id is 'x'"):
        Tokenizer.from_file(folder)


def test_without_byte_tokens_there_must_be_an_unknown_token(tmp_path):
    content = {"model": {"vocab": {"a": 0, "b": 1}, "merges": []}}
    path = write(tmp_path / "tokenizer.json", content)
    with pytest.raises(ModelError, match="no token for the byte 0x00 and no unknown token"):
        Tokenizer.from_file(path)
    content["model"]["unk_token"] = "b"
    write(path, content)
    assert Tokenizer.from_file(path).encode("axa").tolist() == [0, 1, 0]


def gguf(**changes):
    metadata = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [*BYTES, "he", "<s>"],
        "token_type": np.array([1] * 257 + [3], np.int32),
        "merges": ["h e"],
    } | changes
    return {f"tokenizer.ggml.{k}": v for k, v in metadata.items() if v is not None}


def test_gguf_metadata():
    tokenizer = tokenizer_from_gguf(gguf())
    assert tokenizer.encode("he<s>", allowed_special="all").tolist() == [256, 257]
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (257, False)
    as_bytes = gguf(tokens=[t.encode() for t in [*BYTES, "he", "<s>"]], merges=[b"h e"])
    assert tokenizer_from_gguf(as_bytes).encode("he").tolist() == [256]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model is None, which is not supported; supported: gpt2, llama"),
        ({"model": "bert"}, "model is 'bert'"),
        ({"pre": "odd"}, "pre is 'odd'"),
        ({"tokens": None}, "tokens is missing or empty"),
        ({"tokens": []}, "tokens is missing or empty"),
        ({"tokens": ["a", 5]}, r"tokens\[1\] is 5"),
        ({"tokens": ["a", b"\xff"]}, "which is not UTF-8"),
        ({"tokens": byte_strings([b"a", b"\xff"])}, r"tokens\[1\] is .*which is not UTF-8"),
        ({"tokens": byte_strings([b"a\xc3", b"\xa9"])}, r"tokens\[0\] is .*which is not UTF-8"),
        ({"tokens": byte_strings([])}, "tokens is missing or empty"),
        ({"tokens": ["", "b", ""]}, "0 and 2 are both ''"),
        ({"tokens": ["a", "b", "a"]}, "0 and 2 are both 'a'"),
        ({"tokens": [c if c != "q" else "qq" for c in [*BYTES, "he", "<s>"]]}, "the byte 0x71"),
        ({"token_type": np.ones(3)}, "token_type has 3 values of float64, should have 258"),
        ({"merges": None}, "merges is missing or empty"),
        ({"merges": ["h e", "x y"]}, r"merges\[1\] needs 'xy'"),
        ({"merges": ["h e", "xy"]}, r"merges\[1\] is 'xy', should be two tokens"),
        ({"merges": ["h e x", "xy"]}, r"merges\[0\] is 'h e x', should be two tokens"),
        ({"merges": ["h  e", "he"]}, r"merges\[0\] is 'h  e', should be two tokens"),
        ({"merges": ["h e", "ab ", " "]}, r"merges\[1\] needs 'ab'"),
        ({"bos_token_id": 258}, "bos_token_id is 258, should be from 0 to 257"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x'"),
    ],
)
def test_damaged_gguf_metadata(changes, message):
    with pytest.raises(ModelError, match=rf"tokenizer\.ggml\..*{message}"):
        tokenizer_from_gguf(gguf(**changes))


def spm(**changes):
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "▁a"]
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "scores": -np.arange(len(tokens), dtype=np.float32),
        "token_type": np.array([2, 3, 3] + [6] * 256 + [1] * 3, np.int32),
    } | changes
    return {f"tokenizer.ggml.{k}": v for k, v in metadata.items() if v is not None}


def test_sentencepiece_without_token_types():
    guessed, told = tokenizer_from_gguf(spm(token_type=None)), tokenizer_from_gguf(spm())
    for text in ("a a", "é<s>\n", "<0x0A>"):
        for special in ((), "all"):
            ids = guessed.encode(text, allowed_special=special)
            assert ids.tolist() == told.encode(text, allowed_special=special).tolist()
    assert guessed.special_ids == told.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.array([1.0])}, "scores has 1 values"),
        ({"scores": np.full(262, np.nan)}, "not finite"),
        ({"token_type": np.array([6] * 262)}, "no byte <0xNN>"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces is true"),
    ],
)
def test_damaged_sentencepiece_metadata(changes, message):
    with pytest.raises(ModelError, match=message):
        tokenizer_from_gguf(spm(**changes))


def test_a_truncated_file_of_a_real_tokenizer(data_folder, tmp_path):
    packed = (data_folder / "vocabularies" / "llama2.tokenizer.json.xz").read_bytes()
    whole = lzma.decompress(packed)
    path = tmp_path / "tokenizer.json"
    for part in (0.1, 0.5, 0.999):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ModelError, match="no valid JSON"):
            Tokenizer.from_file(path)


def test_a_tiktoken_file_that_ends_at_a_line(data_folder, tmp_path, monkeypatch):
    """It reads well and would give wrong ids."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(data_folder / "vocabularies" / "tiktoken_cache"))
    tiktoken = pytest.importorskip("tiktoken")
    ranks = tiktoken.get_encoding("r50k_base")._mergeable_ranks
    whole = Tokenizer.from_file(write_ranks(tmp_path / "r50k_base.tiktoken", ranks))
    assert whole.encode("Hello world").tolist() == [15496, 995]
    path = write_ranks(tmp_path / "gpt2.tiktoken", dict([*ranks.items()][:40_000]))
    with pytest.raises(ModelError, match="has 40000 tokens, but gpt2 has 50256: it is cut short"):
        Tokenizer.from_file(path)
