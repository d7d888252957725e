"""The compiled encoder: exact on any text, from any container, on any number of threads."""

import os
import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_text import random_text

from numbatch.errors import InputError, SpecialTokenError
from numbatch.kernels.ragged import Ragged
from numbatch.models.tokenizer import Tokenizer
from numbatch.models.tokenizers.from_tiktoken import tokenizer_from_ranks
from numbatch.models.tokenizers.split_patterns import GPT2, TiktokenEncoding

RANKS = {bytes([b]): b for b in range(256)}
for _token in (b"ab", b" a", b"abab", b"ba", "é".encode(), "中".encode()[:2], "中".encode(), b"  "):
    RANKS[_token] = len(RANKS)
SPECIAL = {"<|endoftext|>": 300, "<s>": 301}


@pytest.fixture
def tiny():
    return tokenizer_from_ranks(RANKS, TiktokenEncoding(GPT2, SPECIAL), name="tiny")


@pytest.fixture(scope="module")
def cl100k(data_folder):
    tiktoken = pytest.importorskip("tiktoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(data_folder / "vocabularies" / "tiktoken_cache"))
        encoding = tiktoken.get_encoding("cl100k_base")
    return Tokenizer.from_tiktoken(encoding), encoding


def slow(tokenizer, texts):
    """The ids by the path for tokenizers that are not compiled."""
    return tokenizer._encoding.encode_group(texts, None, frozenset())


def same(a, b):
    return np.array_equal(a.values, b.values) and np.array_equal(a.offsets, b.offsets)


def test_many_random_texts(cl100k):
    tokenizer, encoding = cl100k
    rng = random.Random(3)
    texts = [random_text(rng) for _ in range(30_000)]
    got = tokenizer.encode_batch(texts, threads=1)
    expected = encoding.encode_ordinary_batch(texts, num_threads=2)
    assert np.array_equal(got.lengths, [len(row) for row in expected])
    assert np.array_equal(got.values, np.concatenate([np.array(r, np.uint32) for r in expected]))
    again = tokenizer.encode_batch(texts, threads=2)
    assert same(got, again)
    assert [tokenizer.encode(t).tolist() for t in texts[:500]] == expected[:500]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.sampled_from("ab é中\n  '1"), max_size=40), max_size=6))
def test_equals_the_slow_path(texts):
    tokenizer = tokenizer_from_ranks(RANKS, TiktokenEncoding(GPT2, SPECIAL), name="tiny")
    assert same(tokenizer.encode_batch(texts), slow(tokenizer, texts))


@pytest.mark.parametrize("size", [90, 96, 97, 98, 500, 70_000])
@pytest.mark.parametrize("unit", ["ab", "a", "bba", "é", "中", "中é", "!?"])
def test_long_pieces(tiny, unit, size):
    text = (unit * size)[:size]
    expected = slow(tiny, [text]).values.tolist()
    for _ in range(2):  # new, and from the cache
        assert tiny.encode(text).tolist() == expected
        assert tiny.encode_batch([text + "\nx", text])[1].tolist() == expected


def test_a_full_cache_starts_again(tiny):
    tiny.set_cache_size(tiny.vocabulary_size)
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 40))) for _ in range(30_000)]
    assert same(tiny.encode_batch(texts), slow(tiny, texts))
    texts.reverse()
    assert same(tiny.encode_batch(texts), slow(tiny, texts))
    with pytest.raises(InputError, match="pieces is 3, should be at least 302"):
        tiny.set_cache_size(3)


def test_clearing_the_cache_changes_nothing(tiny):
    before = tiny.encode_batch(["abab é"])
    tiny.clear_cache()
    assert same(tiny.encode_batch(["abab é"]), before)


def test_containers(tiny):
    texts = ["abab é", "", "中 ab", "x\n" * 50]
    expected = tiny.encode_batch(texts)
    data = [text.encode() for text in texts]
    flat = Ragged.from_rows([np.frombuffer(d, np.uint8) for d in data], np.uint8)
    for rows in (data, tuple(texts), iter(texts), flat, [texts[0], data[1], *texts[2:]]):
        assert same(tiny.encode_batch(rows), expected)
    assert tiny.count(flat).tolist() == expected.lengths.tolist()
    assert len(tiny.encode_batch(Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64)))) == 0


def test_strings_of_every_width(tiny):
    texts = ["a" * 100, "é" * 70 + "a" * 70, "中a" * 50, "a" * 64 + "😀", "\x00", "😀" * 40, "ÿ"]
    assert tiny.decode_batch(tiny.encode_batch(texts)) == texts

    class Named(str): ...

    assert tiny.encode_batch([Named("ab")]).values.tolist() == tiny.encode("ab").tolist()


def test_bad_ragged_texts(tiny):
    halves = Ragged(np.frombuffer("é".encode(), np.uint8), np.array([0, 1, 2]))
    assert tiny.decode_batch(tiny.encode_batch(halves)) == ["\ufffd", "\ufffd"]
    with pytest.raises(InputError, match="text 0 has the byte 0xC3"):
        tiny.encode_batch(halves, errors="strict")
    with pytest.raises(InputError, match="int64, should be of uint8"):
        tiny.encode_batch(Ragged.from_rows([[1]], np.int64))


def test_arrow(tiny):
    pa = pytest.importorskip("pyarrow")
    texts = ["abab é", "", "中 ab", "x"]
    expected = tiny.encode_batch(texts)
    for kind in (pa.string(), pa.large_string(), pa.binary()):
        values = [t.encode() for t in texts] if kind == pa.binary() else texts
        array = pa.array(["abc", *values] if kind != pa.binary() else [b"abc", *values], kind)[1:]
        assert same(tiny.encode_batch(array), expected)
        assert same(tiny.encode_batch(pa.chunked_array([array[:1], array[1:]])), expected)
    with pytest.raises(InputError, match="1 nulls"):
        tiny.encode_batch(pa.array(["a", None]))
    with pytest.raises(InputError, match="pyarrow string array"):
        tiny.encode_batch(pa.array([1]))


def test_out(tiny):
    out = np.zeros(8, np.uint32)
    ids = tiny.encode_batch(["abx", "é"], out=out)
    assert np.shares_memory(ids.values, out)
    assert ids.values.tolist() == tiny.encode_batch(["abx", "é"]).values.tolist()
    with pytest.raises(InputError, match="room for 1 ids, should for 3"):
        tiny.encode_batch(["abx", "é"], out=out[:1])
    for wrong in (out.astype(np.int64), out[::2], [1], out.reshape(2, 4)):
        with pytest.raises(InputError, match="out "):
            tiny.encode_batch(["a"], out=wrong)


def test_threads_divide_long_texts(tiny):
    rng = random.Random(5)
    long = "".join(random_text(rng) for _ in range(12_000)) + " word" * 200_000
    texts = ["ab", long, "", long[:900_000], "é"]
    expected = tiny.encode_batch(texts, threads=1)
    for threads in (2, 3, 7):
        assert same(tiny.encode_batch(texts, threads=threads), expected)
    assert tiny.decode_batch(expected) == texts
    with pytest.raises(InputError, match="threads is 0"):
        tiny.encode_batch(texts, threads=0)


def test_one_tokenizer_on_many_threads(tiny):
    rng = random.Random(6)
    texts = [[random_text(rng) for _ in range(200)] for _ in range(4)]
    expected = [slow(tiny, rows) for rows in texts]
    wrong = []

    def work(index):
        for _ in range(20):
            if not same(tiny.encode_batch(texts[index]), expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork(tiny):
    texts = ["ab é " * 200_000] * 2
    expected = tiny.encode_batch(texts, threads=2)
    child = os.fork()
    if child == 0:  # a failed child must not run on as a second pytest
        os._exit(0 if same(tiny.encode_batch(texts, threads=2), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_disallowed_special(cl100k):
    tokenizer, encoding = cl100k
    text = "a<|endoftext|>b"
    with pytest.raises(SpecialTokenError, match=r"text 1 holds the special token '<\|endoftext"):
        tokenizer.encode_batch(["a", text], disallowed_special="all")
    with pytest.raises(ValueError, match="disallowed special token"):
        encoding.encode(text, disallowed_special="all")
    allowed = {"<|endoftext|>"}
    ids = tokenizer.encode(text, allowed_special=allowed, disallowed_special="all")
    assert ids.tolist() == encoding.encode(text, allowed_special=allowed)
    other = tokenizer.encode(text, disallowed_special={"<|fim_prefix|>"})
    assert other.tolist() == encoding.encode_ordinary(text)
    with pytest.raises(InputError, match="disallowed_special has 'x'"):
        tokenizer.encode(text, disallowed_special={"x"})


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["<s>", "<|endoftext|>", "<s", "ab", " ", "é", "<"])), st.booleans()
)
def test_special_tokens_between_texts(parts, add_bos):
    tokenizer = tokenizer_from_ranks(RANKS, TiktokenEncoding(GPT2, SPECIAL), name="tiny")
    texts = ["".join(parts), "<s", ">", "".join(reversed(parts)), ""]
    allowed = frozenset(SPECIAL.values())
    start = 301 if add_bos else None
    got = tokenizer.encode_batch(texts, allowed_special="all", add_bos=add_bos)
    assert same(got, tokenizer._encoding.encode_group(texts, start, allowed))


@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("ab é中😀")), st.integers(0, 12))
def test_truncate(text, most):
    tokenizer = tokenizer_from_ranks(RANKS, TiktokenEncoding(GPT2, SPECIAL), name="tiny")
    whole = tokenizer.encode(text)
    (cut,) = tokenizer.truncate([text], most)
    assert cut.tolist() == whole[: len(cut)].tolist()
    assert len(cut) <= most
    assert text.startswith(tokenizer.decode(cut))
    longer = [tokenizer.decode_bytes(whole[:n]) for n in range(len(cut) + 1, most + 1)]
    for data in longer[: max(0, len(whole) - len(cut))]:
        with pytest.raises(UnicodeDecodeError):
            data.decode()


def test_truncate_takes_no_negative_number(tiny):
    with pytest.raises(InputError, match="n is -1"):
        tiny.truncate(["a"], -1)


def test_offsets(tiny):
    text = "ab 中é😀x"
    ids, spans = tiny.offsets(text)
    assert ids.tolist() == tiny.encode(text).tolist()
    data = text.encode()
    assert [data[a:b] for a, b in spans.tolist()] == [tiny.token_bytes(i) for i in ids]
    assert spans[-1, 1] == len(data)
    assert tiny.offsets("")[1].shape == (0, 2)
    with pytest.raises(InputError, match="surrogate"):
        tiny.offsets("\ud800")


def test_decoding_rows(tiny):
    texts = ["ab", "", "中é", "x" * 50]
    ids = tiny.encode_batch(texts)
    assert tiny.decode_batch(ids) == texts
    assert tiny.decode_batch([row.tolist() for row in ids]) == texts
    assert tiny.decode_batch(Ragged(np.array([0xE4, 300], np.int64), np.array([0, 1, 2]))) == [
        "\ufffd",
        "<|endoftext|>",
    ]
    with pytest.raises(InputError, match="token id 302 at position 1"):
        tiny.decode_batch(Ragged(np.array([1, 302]), np.array([0, 2])))
