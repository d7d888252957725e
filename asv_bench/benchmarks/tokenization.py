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

from .sizes import (  # noqa: F401
    CHILDREN,
    CPU,
    min_run_count,
    once,
    only,
    repeat,
    rounds,
    sized,
    timeout,
    timer_of,
    version,
    warmup_time,
)

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


class Cold:
    """10 MB of documents in cl100k, with a cache that holds the vocabulary only."""

    params = (["english", "code", "multilingual"], [1, 2])
    param_names = ("corpus", "threads")

    def setup(self, name, threads):
        only(threads == 1 or name == "english")
        self.timer = timer_of(threads)
        self.tokenizer = tokenizer_of("cl100k_base")
        self.texts = copies(corpus(name, MEGABYTES))

    def time_cold(self, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Warm:
    """The same with a cache that has seen the texts."""

    params = (["english", "code", "multilingual"], [1, 2])
    param_names = ("corpus", "threads")
    number = sized(3, 1)

    @once
    def setup(self, name, threads):
        only(threads == 1 or name == "english")
        self.timer = timer_of(threads)
        self.tokenizer = tokenizer_of("cl100k_base")
        self.texts = copies(corpus(name, MEGABYTES))
        self.time_warm(name, threads)

    def time_warm(self, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Vocabularies:
    """Other vocabularies, cold: cased words, whole pieces, NFC and tokens always looked for."""

    params = (["o200k_base", "qwen3"],)
    param_names = ("vocabulary",)
    timer = CPU

    def setup(self, vocabulary):
        self.tokenizer = tokenizer_of(vocabulary)
        self.texts = copies(corpus("english", MEGABYTES / 2))

    def time_cold(self, vocabulary):
        self.tokenizer.encode_batch(self.texts, threads=1)


class Hard:
    """One text each that is slow in some tokenizer, with a cache that has not seen it."""

    params = (["one letter", "base64", "random Unicode"],)
    param_names = ("text",)
    timer = CPU

    def setup(self, name):
        self.tokenizer = tokenizer_of("cl100k_base")
        self.texts = copies([hard_texts()[name]])

    def time_hard(self, name):
        self.tokenizer.encode_batch(self.texts, threads=1)


class Small:
    """One short string, and decoding."""

    timer = CPU

    @once
    def setup(self):
        self.tokenizer = tokenizer_of("cl100k_base")
        self.ids = self.tokenizer.encode_batch(corpus("english", MEGABYTES / 2))
        self.time_decode_5_mb()
        self.time_encode_50_characters()

    def time_encode_50_characters(self):
        self.tokenizer.encode(SENTENCE)

    time_encode_50_characters.number = sized(1000, 1)

    def time_decode_5_mb(self):
        self.tokenizer.decode_batch(self.ids)


class Memory:
    """Peak memory of a process that encodes 100 MB."""

    def peakmem_encode_100_mb(self):
        tokenizer_of("cl100k_base").encode_batch(corpus("english", sized(20, 0.2)) * 5)


class Start:
    """A new process with a warm JIT cache, to the first ids."""

    timer = CHILDREN

    def time_first_ids(self):
        environment = dict(os.environ, TIKTOKEN_CACHE_DIR=CACHE)
        subprocess.run([sys.executable, "-c", FIRST_IDS], check=True, env=environment)
