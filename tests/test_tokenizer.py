"""What a tokenizer does beyond its ids: special tokens, bad text, decoding, streams, chats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.errors import InputError, ModelError
from numbatch.kernels.ragged import Ragged
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.byte_level import byte_characters
from numbatch.models.tokenizers.from_gguf import tokenizer_from_gguf
from numbatch.models.tokenizers.from_tiktoken import tokenizer_from_ranks
from numbatch.models.tokenizers.split_patterns import GPT2, TiktokenEncoding

RANKS = {bytes([b]): b for b in range(256)} | {b"he": 256, b"ll": 257, b"llo": 258, b"hello": 259}
CHATML = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BOS, EOS, START, END = 256, 257, 258, 259


@pytest.fixture(scope="module")
def tokenizer():
    special = {"<|endoftext|>": 300, "<s>": 301}
    return tokenizer_from_ranks(RANKS, TiktokenEncoding(GPT2, special), name="tiny")


def chat_metadata(**changes):
    tokens = [*byte_characters(), "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<tool>"]
    return {
        "general.name": "chatty",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([1] * 256 + [3, 3, 3, 3, 4], np.int32),
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": CHATML,
    } | changes


@pytest.fixture(scope="module")
def chatty():
    metadata = chat_metadata()
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "he"]
    metadata["tokenizer.ggml.token_type"] = np.append(metadata["tokenizer.ggml.token_type"], 1)
    return tokenizer_from_gguf(metadata)


@pytest.fixture(scope="module")
def spaced():
    """SentencePiece-style: a space is put before the text, and taken off when it is decoded."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += ["▁", "a", "b", "▁a", "ab", "▁ab"]
    return tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": -np.arange(len(tokens), dtype=np.float32),
            "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256 + [1] * 6, np.int32),
        }
    )


def test_special_tokens_only_where_asked(tokenizer):
    text = "hello<|endoftext|>"
    plain = [259, *b"<|endoftext|>"]
    assert tokenizer.encode(text).tolist() == plain
    assert tokenizer.encode(text, allowed_special=["<s>"]).tolist() == plain
    assert tokenizer.encode(text, allowed_special={"<|endoftext|>"}).tolist() == [259, 300]
    assert tokenizer.encode(text, allowed_special="all").tolist() == [259, 300]


def test_allowed_special_must_be_special(tokenizer):
    with pytest.raises(InputError, match=r"'<pad>', which is no special token"):
        tokenizer.encode("a", allowed_special=["<pad>"])
    with pytest.raises(InputError, match="should be 'all'"):
        tokenizer.encode("a", allowed_special="<s>")


def test_bos_once(tokenizer):
    assert tokenizer.bos_id == 301
    assert tokenizer.encode("he", add_bos=True).tolist() == [301, 256]
    assert tokenizer.encode("", add_bos=True).tolist() == [301]
    twice = tokenizer.encode("<s>he", add_bos=True, allowed_special="all")
    assert twice.tolist() == [301, 256]
    # Where it is not parsed it is text, and BOS is added.
    assert tokenizer.encode("<s>", add_bos=True).tolist() == [301, *b"<s>"]


def test_no_bos_to_add():
    metadata = chat_metadata()
    del metadata["tokenizer.ggml.bos_token_id"]
    metadata["tokenizer.ggml.tokens"][-1] = "he"
    metadata["tokenizer.ggml.tokens"][BOS] = "<x>"
    none = tokenizer_from_gguf(metadata)
    assert (none.bos_id, none.adds_bos) == (None, False)
    with pytest.raises(InputError, match="has no BOS"):
        none.encode("a", add_bos=True)


def test_tokens_that_are_added_but_not_special_are_always_parsed(chatty):
    assert chatty.encode("a<tool>b").tolist() == [ord("a"), 260, ord("b")]


@pytest.mark.parametrize(
    ("text", "repaired", "message"),
    [
        ("a\ud800b", "a\ufffdb", r"surrogate U\+D800 at character 1"),
        ("\ud83d\ude00", "😀", r"surrogate U\+D83D at character 0"),
        (b"ab\xffc", "ab\ufffdc", "byte 0xFF at byte 2"),
        (b"\xe2\x82", "\ufffd", "byte 0xE2 at byte 0"),
    ],
)
def test_invalid_text(tokenizer, text, repaired, message):
    assert tokenizer.encode(text).tolist() == tokenizer.encode(repaired).tolist()
    with pytest.raises(InputError, match=message):
        tokenizer.encode(text, errors="strict")
    with pytest.raises(InputError, match="text 1 has"):
        tokenizer.encode_batch(["fine", text], errors="strict")


def test_bytes_are_utf8(tokenizer):
    assert tokenizer.encode("é 😀".encode()).tolist() == tokenizer.encode("é 😀").tolist()


@pytest.mark.parametrize("text", [None, 3, ["a"], 1.5])
def test_what_is_no_text(tokenizer, text):
    with pytest.raises(InputError, match="should be str or bytes"):
        tokenizer.encode(text)
    with pytest.raises(InputError, match="text 1 is a"):
        tokenizer.encode_batch(["a", text])


def test_one_text_is_no_batch(tokenizer):
    with pytest.raises(InputError, match="should be a list of texts"):
        tokenizer.encode_batch("hello")


def test_unknown_way_to_treat_errors(tokenizer):
    with pytest.raises(InputError, match="should be 'replace' or 'strict'"):
        tokenizer.encode("a", errors="ignore")


@pytest.mark.parametrize("errors", ["replace", "strict"])
def test_bytes_that_the_vocabulary_lacks_are_left_out(errors):
    metadata = chat_metadata()
    metadata["tokenizer.ggml.tokens"][4] = "he"
    lacking = tokenizer_from_gguf(metadata)
    assert lacking.encode("a\x04b", errors=errors).tolist() == [ord("a"), ord("b")]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(), max_size=5))
def test_a_batch_equals_its_texts(tokenizer, texts):
    batch = tokenizer.encode_batch(texts, add_bos=True)
    assert isinstance(batch, Ragged)
    assert batch.values.dtype == np.uint32
    assert [r.tolist() for r in batch] == [
        tokenizer.encode(t, add_bos=True).tolist() for t in texts
    ]
    assert tokenizer.count(texts, add_bos=True).tolist() == batch.lengths.tolist()
    assert tokenizer.decode_batch(batch) == ["<s>" + text for text in texts]


def test_a_batch_of_several_groups(tokenizer):
    texts = ["hello " * 400_000, "", "x" * 3_000_000, "he", "hello" * 1_000_000]
    batch = tokenizer.encode_batch(iter(texts))
    assert batch.lengths.tolist() == [800_000, 0, 3_000_000, 1, 1_000_000]
    assert tokenizer.decode_batch(batch) == texts


def test_an_empty_batch(tokenizer):
    assert len(tokenizer.encode_batch([])) == 0
    assert tokenizer.encode_batch([]).values.dtype == np.uint32
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode_batch([]) == []


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 2, 302], "token id 302 at position 2 is out of range, should be from 0 to 301"),
        ([-1], "token id -1 at position 0"),
        ([2**40], f"token id {2**40} at position 0"),
        ([1.5], "should be whole numbers"),
        (["a"], "should be whole numbers"),
        ([[1], [2]], "in one dimension"),
        ([True], "should be whole numbers"),
        (5, "in one dimension"),
    ],
)
def test_ids_out_of_range(tokenizer, ids, message):
    for decode in (tokenizer.decode, tokenizer.decode_bytes):
        with pytest.raises(InputError, match=message):
            decode(ids)


def test_single_ids(tokenizer):
    assert tokenizer.token_bytes(0xE2) == b"\xe2"
    assert tokenizer.token_bytes(np.uint32(259)) == b"hello"
    assert tokenizer.token_bytes(280) == b""  # no token has this id
    with pytest.raises(InputError, match="302"):
        tokenizer.token_bytes(302)
    with pytest.raises(InputError, match="302"):
        tokenizer.stream_decoder().push(302)


def test_special_tokens_can_be_skipped(tokenizer):
    ids = [301, 259, 300]
    assert tokenizer.decode(ids) == "<s>hello<|endoftext|>"
    assert tokenizer.decode(ids, skip_special=True) == "hello"
    assert tokenizer.decode_batch([ids, [300]], skip_special=True) == ["hello", ""]


def stream(tokenizer, ids, **options):
    decoder = tokenizer.stream_decoder(**options)
    return [*(decoder.push(i) for i in ids), decoder.flush()]


@settings(deadline=None)
@given(st.lists(st.integers(0, 255) | st.integers(0, 301), max_size=30), st.booleans())
def test_a_stream_equals_the_whole(tokenizer, ids, skip):
    assert "".join(stream(tokenizer, ids, skip_special=skip)) == tokenizer.decode(
        ids, skip_special=skip
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 264), max_size=12), st.booleans(), st.booleans())
def test_a_stream_equals_the_whole_with_leading_spaces(spaced, ids, skip, continues):
    options = {"skip_special": skip, "continues": continues}
    assert "".join(stream(spaced, ids, **options)) == spaced.decode(ids, **options)


def test_a_stream_never_gives_half_a_character(tokenizer):
    assert stream(tokenizer, "a😀é".encode()) == ["a", "", "", "", "😀", "", "é", ""]
    assert stream(tokenizer, "é".encode()[:1]) == ["", "\ufffd"]


def test_leading_spaces(spaced):
    assert spaced.decode(spaced.encode("ab b")) == "ab b"
    assert spaced.decode_bytes(spaced.encode(" a")) == b" a"
    assert spaced.decode(spaced.encode("ab"), continues=True) == " ab"
    assert stream(spaced, spaced.encode("ab"), continues=True) == [" ab", ""]
    assert spaced.encode("é").tolist() == [259, 3 + 0xC3, 3 + 0xA9]
    assert spaced.decode(spaced.encode("é\n")) == "é\n"


def test_no_space_is_put_first_where_the_file_says_so():
    tokens = ["<unk>", "<s>", "</s>", "▁", "a", "▁a"]
    plain = tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": np.zeros(6, np.float32),
            "tokenizer.ggml.token_type": np.array([2, 3, 3, 1, 1, 1], np.int32),
            "tokenizer.ggml.add_space_prefix": False,
        }
    )
    assert plain.encode("a a").tolist() == [4, 5]
    assert plain.decode([5, 4]) == " aa"
    assert plain.encode("xya").tolist() == [0, 4]  # no byte tokens: unknown, once for a run


def test_attributes(chatty):
    assert (chatty.name, chatty.vocabulary_size) == ("chatty", 262)
    assert (chatty.bos_id, chatty.eos_id, chatty.adds_bos) == (BOS, EOS, True)
    assert chatty.eos_ids == {EOS, END}
    assert chatty.special_ids == {"<s>": BOS, "</s>": EOS, "<|im_start|>": START, "<|im_end|>": END}
    assert repr(chatty) == "Tokenizer('chatty', 262 ids)"


def test_further_ends():
    metadata = chat_metadata(**{"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 6})
    metadata["tokenizer.ggml.tokens"][-1] = "he"
    assert tokenizer_from_gguf(metadata).eos_ids == {EOS, END, 5, 6}


def test_chat(chatty):
    messages = [{"role": "user", "content": "hey"}]
    prompt = chatty.apply_chat_template(messages)
    assert prompt == "<s><|im_start|>user\nhey<|im_end|>\n<|im_start|>assistant\n"
    ids = chatty.encode_chat(messages)
    assert ids.tolist()[:2] == [BOS, START]
    assert (ids == BOS).sum() == 1
    assert (ids == START).sum() == 2
    assert (ids == END).sum() == 1
    assert chatty.decode(ids) == prompt
    short = chatty.apply_chat_template(messages, add_generation_prompt=False)
    assert prompt == short + "<|im_start|>assistant\n"


def test_chat_adds_the_bos_that_a_template_leaves_out():
    metadata = chat_metadata()
    metadata["tokenizer.ggml.tokens"][-1] = "he"
    metadata["tokenizer.chat_template"] = "{{ messages[0].content }}{{ name }}"
    tokenizer = tokenizer_from_gguf(metadata)
    ids = tokenizer.encode_chat([{"role": "user", "content": "a"}], name="b")
    assert ids.tolist() == [BOS, ord("a"), ord("b")]


def test_no_chat_template(tokenizer):
    with pytest.raises(InputError, match="'tiny' has no chat template"):
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}])


def test_from_huggingface_takes_tokenizers_only():
    with pytest.raises(ModelError, match=r"no tokenizers\.Tokenizer"):
        Tokenizer.from_huggingface("gpt2")


def test_from_tiktoken_takes_encodings_only():
    pytest.importorskip("tiktoken")
    with pytest.raises(ModelError, match="no encoding 'nothing'"):
        Tokenizer.from_tiktoken("nothing")
    with pytest.raises(ModelError, match=r"int is no tiktoken\.Encoding"):
        Tokenizer.from_tiktoken(3)
