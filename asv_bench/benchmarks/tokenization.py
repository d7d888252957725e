"""Encoding, decoding, memory and the start of a process."""

import os
import subprocess
import sys
from pathlib import Path

import tiktoken

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # asv runs from another folder

from asv_bench.peers.texts import copies, corpus, hard_texts
from asv_bench.peers.tokenizers import JSON, VocabularyFile, data_folder
from numbatch import Tokenizer

from .sizes import repeat, rounds, sized  # noqa: F401

CACHE = str(data_folder() / "vocabularies" / "tiktoken_cache")
FIRST_IDS = "from numbatch import Tokenizer; Tokenizer.from_tiktoken('cl100k_base').encode('Hello')"
SENTENCE = "The quick brown fox jumps over 13 lazy dogs, at 9."
MEGABYTES = sized(10, 0.2)


def tokenizer_of(vocabulary):
    """Return a tokenizer whose kernels are compiled and whose cache holds the vocabulary."""
    if vocabulary in JSON:
        tokenizer = Tokenizer.from_file(VocabularyFile(vocabulary).path)
    else:
        os.environ["TIKTOKEN_CACHE_DIR"] = CACHE
        tokenizer = Tokenizer.from_tiktoken(tiktoken.get_encoding(vocabulary))
    tokenizer.encode_batch([SENTENCE])
    return tokenizer


class _Corpus:
    """10 MB of documents."""

    params = (["cl100k_base"], ["english", "code", "multilingual"], [1, 2])
    param_names = ("vocabulary", "corpus", "threads")
    timeout = 300
    number = 1  # setup before every call: strings and cache are fresh for the cold one

    def setup(self, vocabulary, name, threads):
        self.tokenizer = tokenizer_of(vocabulary)
        self.texts = copies(corpus(name, MEGABYTES))


class Cold(_Corpus):
    """With a cache that holds the vocabulary only."""

    def time_cold(self, vocabulary, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Warm(_Corpus):
    """With a cache that has seen the texts."""

    def setup(self, vocabulary, name, threads):
        super().setup(vocabulary, name, threads)
        self.tokenizer.encode_batch(self.texts, threads=threads)

    def time_warm(self, vocabulary, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Vocabularies(Warm):
    """Other vocabularies: cased words, whole pieces, NFC and tokens that are always looked for."""

    params = (["o200k_base", "llama3", "qwen3"], ["english"], [1])


class Hard(_Corpus):
    """One text each that is slow in some tokenizer, with a cache that has not seen it."""

    params = (["cl100k_base"], ["one letter", "spaces", "base64", "random Unicode"], [1])
    param_names = ("vocabulary", "text", "threads")

    def setup(self, vocabulary, name, threads):
        self.tokenizer = tokenizer_of(vocabulary)
        self.texts = copies([hard_texts()[name]])

    def time_hard(self, vocabulary, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Small:
    """One short string, and decoding."""

    params = (["cl100k_base"],)
    param_names = ("vocabulary",)
    timeout = 300

    def setup(self, vocabulary):
        self.tokenizer = tokenizer_of(vocabulary)
        self.ids = self.tokenizer.encode_batch(corpus("english", MEGABYTES / 2))
        self.tokenizer.encode(SENTENCE)

    def time_encode_50_characters(self, vocabulary):
        self.tokenizer.encode(SENTENCE)

    def time_decode_5_mb(self, vocabulary):
        self.tokenizer.decode_batch(self.ids)

    def time_decode_bytes_5_mb(self, vocabulary):
        self.tokenizer.decode_bytes(self.ids.values)


class Memory:
    """Peak memory of a process that encodes 100 MB."""

    timeout = 300

    def peakmem_encode_100_mb(self):
        tokenizer_of("cl100k_base").encode_batch(corpus("english", sized(20, 0.2)) * 5)


class Start:
    """A new process with a warm JIT cache, to the first ids."""

    timeout = 300
    number = 1

    def setup(self):
        self.time_first_ids()

    def time_first_ids(self):
        environment = dict(os.environ, TIKTOKEN_CACHE_DIR=CACHE)
        subprocess.run([sys.executable, "-c", FIRST_IDS], check=True, env=environment)
