"""Tokenization on a simulated GPU; run by test_cuda_tokenization.py."""

import lzma
import random
import unicodedata

import numpy as np
import pytest
from random_text import random_text

from numbatch import Tokenizer
from numbatch.errors import DeviceError, InputError, SpecialTokenError
from numbatch.kernels.device_arrays import shared_gpu
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.cuda import encoder

HARD = [
    "Hello, world! It's 1234567 o'clock\n\n  yes",
    "",
    "naïve café 漢字かな交じり文 \u0301x 한국어 नमस्ते",
    "a" * 66 + " abcabcabc " + "0" * 40,
    "  \n\n x  \t",
    "don'T We'LL HTTPServer's/\n/ ...\r\n",
    "ends with spaces   ",
]


@pytest.fixture(scope="module")
def gpu():
    return shared_gpu()


@pytest.fixture(scope="module")
def cl100k(data_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(data_folder / "vocabularies" / "tiktoken_cache"))
        return Tokenizer.from_tiktoken("cl100k_base")


@pytest.fixture(scope="module")
def from_json(data_folder, tmp_path_factory):
    def read(name):
        path = tmp_path_factory.mktemp(name) / "tokenizer.json"
        packed = data_folder / "vocabularies" / f"{name}.tokenizer.json.xz"
        path.write_bytes(lzma.decompress(packed.read_bytes()))
        return Tokenizer.from_file(path)

    return read


def placed(texts, gpu):
    rows = [
        np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8) for text in texts
    ]
    return Ragged.from_rows(rows, np.uint8).to_device(gpu)


def check(tokenizer, texts, gpu, **options):
    found = tokenizer.encode_batch(placed(texts, gpu), **options)
    assert hasattr(found.values, "copy_to_host")
    assert found.values.dtype == np.uint32
    host = found.to_host()
    wanted = tokenizer.encode_batch(texts, **options)
    np.testing.assert_array_equal(host.offsets, wanted.offsets)
    np.testing.assert_array_equal(host.values, wanted.values)


def test_ids_are_those_of_the_cpu(cl100k, gpu):
    rng = random.Random(1)
    check(cl100k, HARD + [random_text(rng, 90) for _ in range(4)], gpu, add_bos=False)


def test_no_text_and_empty_texts(cl100k, gpu):
    check(cl100k, [], gpu)
    check(cl100k, ["", ""], gpu)


def test_long_pieces_are_merged_by_a_block_and_on_the_host(cl100k, gpu, monkeypatch):
    monkeypatch.setattr(encoder, "LONGEST", 150)  # the room for what is left to the host
    text = "ab" * 33 + " " * 66 + "é" * 1030
    check(cl100k, [text], gpu)


def test_normalizer_added_tokens_and_start(from_json, gpu):
    qwen = from_json("qwen3")
    plain = ["plain text 12", "한국어 नमस्ते"]
    decomposed = [unicodedata.normalize("NFD", "café"), "x"]
    for texts in (plain, decomposed, ["a<|im_end|>b", "y"]):
        check(qwen, texts, gpu)
    check(qwen, ["a<|im_end|>b", "y"], gpu, allowed_special="all")
    with pytest.raises(SpecialTokenError):
        qwen.encode_batch(placed(["a<|im_end|>b"], gpu), disallowed_special="all")
    llama = from_json("llama3")
    check(llama, ["Hello  world", "", "  "], gpu, add_bos=True)


def test_a_tokenizer_without_kernels_goes_by_the_host(from_json, gpu):
    check(from_json("llama2"), ["Hello  world", "é"], gpu)


def test_invalid_utf8(cl100k, gpu):
    check(cl100k, [b"a\xffb", b"\xc3", b"ok"], gpu)
    with pytest.raises(InputError, match="text 0"):
        cl100k.encode_batch(placed([b"a\xffb"], gpu), errors="strict")
    cut = np.frombuffer("é".encode(), np.uint8)  # two texts that share a character
    texts = Ragged(cut, np.array([0, 1, 2]))
    found = cl100k.encode_batch(texts.to_device(gpu)).to_host()
    np.testing.assert_array_equal(found.values, cl100k.encode_batch(texts).values)


def test_bad_arrays(cl100k, gpu):
    good = placed(["abc"], gpu)
    for offsets in ([0, 2], [1, 3], [0, 4, 3]):
        bad = Ragged(good.values, gpu.upload(np.array(offsets, np.int64)))
        with pytest.raises(InputError, match="never decrease"):
            cl100k.encode_batch(bad)
    wrong = Ragged(gpu.upload(np.zeros(3, np.int32)), good.offsets)
    with pytest.raises(InputError, match="int32, should be uint8"):
        cl100k.encode_batch(wrong)
    with pytest.raises(InputError, match="out is on the host"):
        cl100k.encode_batch(good, out=np.empty(10, np.uint32))
    with pytest.raises((InputError, DeviceError), match="host"):
        encoder.DeviceEncoder.encode(
            encoder.DeviceEncoder(gpu, None), Ragged(np.zeros(1, np.uint8), np.array([0, 1]))
        )


def test_counts_and_texts_come_to_the_host(cl100k, gpu):
    texts = placed(["Hello world", ""], gpu)
    assert cl100k.count(texts).tolist() == [2, 0]
    assert cl100k.decode_batch(cl100k.encode_batch(texts)) == ["Hello world", ""]
    assert cl100k.truncate(texts, 1).lengths.tolist() == [1, 0]
