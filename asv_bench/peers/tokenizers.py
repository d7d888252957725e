"""Numbatch and the other tokenizers behind one interface: texts in, flat ids and offsets out."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
"""The name of cl100k_base in tiktoken's cache."""


def data_folder():
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("NUMBATCH_TEST_DATA", default))


def ranks_file():
    """The ranks of cl100k_base under the name by which the peers know them."""
    path = Path(tempfile.mkdtemp()) / "cl100k_base.tiktoken"
    shutil.copy(data_folder() / "vocabularies" / "tiktoken_cache" / CL100K, path)
    return path


def flat(ids):
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(row) for row in ids], out=offsets[1:])
    return np.concatenate([np.empty(0, np.uint32), *ids]).astype(np.uint32), offsets


class Numbatch:
    name = "numbatch"

    def __init__(self, path, threads):
        from numbatch import Tokenizer

        self.tokenizer, self.threads = Tokenizer.from_file(path), threads
        self.tokenizer.encode("a")  # compiled, and the vocabulary in the cache
        self.tokenizer.encode_batch(["a"])

    def fresh(self):
        self.tokenizer.clear_cache()
        self.tokenizer.encode_batch(["a"])

    def encode(self, texts):
        return self.tokenizer.encode_batch(texts, threads=self.threads)

    def flat(self, result):
        return result.values, result.offsets

    def encode_one(self, text):
        return self.tokenizer.encode(text)


class Gigatoken:
    name = "gigatoken"

    def __init__(self, path, threads):
        import gigatoken

        self.make = lambda: gigatoken.Tokenizer.from_tiktoken(path)
        self.parallel = threads > 1
        self.fresh()

    def fresh(self):
        self.tokenizer = self.make()
        self.tokenizer.backend.encode_batch(["a"], parallel=self.parallel)

    def encode(self, texts):
        return self.tokenizer.backend.encode_batch(texts, parallel=self.parallel)

    def flat(self, result):
        import awkward

        flattened = awkward.to_numpy(awkward.flatten(result)).astype(np.uint32)
        offsets = np.concatenate([[0], np.cumsum(awkward.to_numpy(awkward.num(result)))])
        return flattened, offsets

    def encode_one(self, text):
        return self.tokenizer.encode(text)


class Fastokens:
    name = "fastokens"

    def __init__(self, path, threads):
        from fastokens._native import Tokenizer

        self.make = lambda: Tokenizer.from_tiktoken(str(path), encoding="cl100k_base")
        self.fresh()

    def fresh(self):
        self.tokenizer = self.make()
        self.tokenizer.encode_batch_flat(["a"])

    def encode(self, texts):
        return self.tokenizer.encode_batch_flat(texts)

    def flat(self, result):
        ids, offsets = result
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    def encode_one(self, text):
        return self.tokenizer.encode_ordinary(text)


class Tiktoken:
    name = "tiktoken"

    def __init__(self, path, threads):
        os.environ["TIKTOKEN_CACHE_DIR"] = str(data_folder() / "vocabularies" / "tiktoken_cache")
        import tiktoken

        self.encoding, self.threads = tiktoken.get_encoding("cl100k_base"), threads

    def fresh(self):
        pass

    def encode(self, texts):
        return self.encoding.encode_ordinary_batch(texts, num_threads=self.threads)

    def flat(self, result):
        return flat(result)

    def encode_one(self, text):
        return self.encoding.encode_ordinary(text)


def available(threads, wanted):
    """The tokenizers that are installed; fastokens takes its threads from RAYON_NUM_THREADS."""
    path, found = ranks_file(), []
    for kind in (Numbatch, Gigatoken, Fastokens, Tiktoken):
        if wanted and kind.name not in wanted:
            continue
        try:
            found.append(kind(path, threads))
        except ImportError as error:
            print(f"{kind.name} is not installed: {error}")
    return found
