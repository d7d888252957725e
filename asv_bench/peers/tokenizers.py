"""Numbatch and the other tokenizers behind one interface: texts in, flat ids and offsets out."""

import lzma
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

IN_TIKTOKENS_CACHE = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
JSON = ("llama3", "qwen3")


def data_folder():
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("NUMBATCH_TEST_DATA", default))


class VocabularyFile:
    """A vocabulary as a file under the name by which the peers know it."""

    def __init__(self, name):
        self.name, folder = name, Path(tempfile.mkdtemp())
        self.is_json = name in JSON
        if self.is_json:
            self.path = folder / "tokenizer.json"
            packed = data_folder() / "vocabularies" / f"{name}.tokenizer.json.xz"
            self.path.write_bytes(lzma.decompress(packed.read_bytes()))
        else:
            self.path = folder / f"{name}.tiktoken"
            cache = data_folder() / "vocabularies" / "tiktoken_cache"
            shutil.copy(cache / IN_TIKTOKENS_CACHE[name], self.path)


def ranks_file():
    """The ranks of cl100k_base."""
    return VocabularyFile("cl100k_base").path


def flat(ids):
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(row) for row in ids], out=offsets[1:])
    return np.concatenate([np.empty(0, np.uint32), *ids]).astype(np.uint32), offsets


class Numbatch:
    name = "numbatch"

    def __init__(self, vocabulary, threads):
        from numbatch import Tokenizer

        self.tokenizer, self.threads = Tokenizer.from_file(vocabulary.path), threads
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

    def __init__(self, vocabulary, threads):
        import gigatoken

        make = gigatoken.Tokenizer if vocabulary.is_json else gigatoken.Tokenizer.from_tiktoken
        self.make = lambda: make(vocabulary.path)
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

    def __init__(self, vocabulary, threads):
        from fastokens._native import Tokenizer

        path = str(vocabulary.path)
        if vocabulary.is_json:
            self.make = lambda: Tokenizer.from_file(path)
        else:
            self.make = lambda: Tokenizer.from_tiktoken(path, encoding=vocabulary.name)
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

    def __init__(self, vocabulary, threads):
        os.environ["TIKTOKEN_CACHE_DIR"] = str(data_folder() / "vocabularies" / "tiktoken_cache")
        import tiktoken

        self.encoding, self.threads = tiktoken.get_encoding(vocabulary.name), threads

    def fresh(self):
        pass

    def encode(self, texts):
        return self.encoding.encode_ordinary_batch(texts, num_threads=self.threads)

    def flat(self, result):
        return flat(result)

    def encode_one(self, text):
        return self.encoding.encode_ordinary(text)


class HuggingFace:
    name = "tokenizers"

    def __init__(self, vocabulary, threads):
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(vocabulary.path))

    def fresh(self):
        pass

    def encode(self, texts):
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def flat(self, result):
        return flat([encoding.ids for encoding in result])

    def encode_one(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def available(threads, wanted, vocabulary="cl100k_base"):
    """The tokenizers that are installed, the reference last.

    fastokens takes its threads from RAYON_NUM_THREADS.
    """
    file, found = VocabularyFile(vocabulary), []
    for kind in (Numbatch, Gigatoken, Fastokens, HuggingFace if file.is_json else Tiktoken):
        if wanted and kind.name not in (*wanted, "tiktoken", "tokenizers"):
            continue
        try:
            found.append(kind(file, threads))
        except ImportError as error:
            print(f"{kind.name} is not installed: {error}")
    return found
