"""The texts that tokenizers are compared on."""

import base64
import json
import lzma
import random

import numpy as np

from asv_bench.peers.tokenizers import data_folder


def corpus(name, megabytes):
    """Documents of 2 to 4 KB, together at most so many million bytes."""
    path = data_folder() / "corpora" / f"{name}.jsonl.xz"
    documents, size = [], 0
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            documents.append(json.loads(line))
            size += len(documents[-1].encode())
            if size > megabytes * 1e6:
                break
    return documents


def copies(texts):
    """The same texts as new objects: nothing can be known of them from before."""
    return [text.encode().decode() for text in texts]


def hard_texts():
    """One text each of a kind that is slow in some tokenizer; 1 MB if not said otherwise."""
    rng, million = random.Random(0), 1_000_000
    bits = np.random.default_rng(0).integers(0, 256, 750_000).astype(np.uint8).tobytes()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = " ".join("".join(rng.choices(letters, k=rng.randint(2, 12))) for _ in range(140_000))
    emoji = "".join(chr(rng.randint(0x1F300, 0x1F64F)) for _ in range(250_000))
    assigned = [*range(0x20, 0xD800), *range(0xE000, 0x20000)]
    english = corpus("english", 10)
    return {
        "one letter": "a" * million,
        "spaces": " " * million,
        "random words": words,
        "base64": base64.b64encode(bits).decode(),
        "emoji": emoji,
        "random Unicode": "".join(map(chr, rng.choices(assigned, k=350_000))),
        "10 MB, no newline": " ".join(english).replace("\n", " "),
    }
