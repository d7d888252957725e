"""Encoding, decoding and the start of a process, cl100k_base from tiktoken's cache."""

import os
import subprocess
import sys
from pathlib import Path

import tiktoken

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # asv runs from another folder

from asv_bench.peers.texts import copies, corpus
from asv_bench.peers.tokenizers import data_folder
from numbatch import Tokenizer

from .sizes import repeat, rounds  # noqa: F401

CACHE = str(data_folder() / "vocabularies" / "tiktoken_cache")
FIRST_IDS = "from numbatch import Tokenizer; Tokenizer.from_tiktoken('cl100k_base').encode('Hello')"


def cl100k():
    os.environ["TIKTOKEN_CACHE_DIR"] = CACHE
    return Tokenizer.from_tiktoken(tiktoken.get_encoding("cl100k_base"))


class _Corpus:
    """10 MB of documents."""

    params = (["english", "code", "multilingual"], [1, 2])
    param_names = ("corpus", "threads")
    timeout = 300
    number = 1  # setup before every call: strings and cache are fresh for the cold one

    def setup(self, name, threads):
        self.tokenizer = cl100k()
        self.texts = copies(corpus(name, 10))
        self.tokenizer.encode_batch(["a"])


class Cold(_Corpus):
    """With a cache that holds the vocabulary only."""

    def time_cold(self, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Warm(_Corpus):
    """With a cache that has seen the texts."""

    def setup(self, name, threads):
        super().setup(name, threads)
        self.tokenizer.encode_batch(self.texts, threads=threads)

    def time_warm(self, name, threads):
        self.tokenizer.encode_batch(self.texts, threads=threads)


class Small:
    """One short string, and decoding."""

    timeout = 300

    def setup(self):
        self.tokenizer = cl100k()
        self.ids = self.tokenizer.encode_batch(corpus("english", 5))
        self.text = "The quick brown fox jumps over 13 lazy dogs, at 9."
        self.tokenizer.encode(self.text)

    def time_encode_50_characters(self):
        self.tokenizer.encode(self.text)

    def time_decode_5_mb(self):
        self.tokenizer.decode_batch(self.ids)


class Memory:
    """Peak memory of a process that encodes 100 MB."""

    timeout = 300

    def peakmem_encode_100_mb(self):
        cl100k().encode_batch(corpus("english", 20) * 5)


class Start:
    """A new process with a warm JIT cache, to the first ids."""

    timeout = 300
    number = 1

    def setup(self):
        self.time_first_ids()

    def time_first_ids(self):
        environment = dict(os.environ, TIKTOKEN_CACHE_DIR=CACHE)
        subprocess.run([sys.executable, "-c", FIRST_IDS], check=True, env=environment)
