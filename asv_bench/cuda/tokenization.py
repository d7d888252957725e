"""Tokenization on the GPU beside the CPU: ``python -m asv_bench.cuda tokenization:kernels``.

Needs ``NUMBATCH_TEST_DATA``. The ids are compared with the CPU's, all of them, and with tiktoken's,
some of them, before anything is timed.
"""

import argparse
import itertools
import json
import lzma
import os
from pathlib import Path

import numpy as np

from asv_bench.cuda.clock import gpu_in_use, kernel_seconds, print_table, wall_seconds
from numbatch import Tokenizer
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.ragged import Ragged

CORPORA = ("english", "code", "multilingual")


def read_texts(corpus: str, most: int) -> list[str]:
    """Return documents of a corpus, up to ``most`` bytes of UTF-8."""
    path = Path(os.environ["NUMBATCH_TEST_DATA"]) / "corpora" / f"{corpus}.jsonl.xz"
    texts, size = [], 0
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            texts.append(json.loads(line))
            size += len(texts[-1].encode())
            if size >= most:
                break
    return texts


def flat(texts: list[str]) -> Ragged:
    """Return the texts as rows of UTF-8."""
    rows = [text.encode() for text in texts]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return Ragged(np.frombuffer(b"".join(rows), np.uint8), offsets)


def repeated(rows: Ragged, times: int) -> Ragged:
    """Return the rows again and again."""
    shifts = np.arange(times)[:, None] * rows.offsets[-1]
    offsets = np.append((rows.offsets[:-1] + shifts).ravel(), times * rows.offsets[-1])
    return Ragged(np.tile(rows.values, times), offsets)


def check(tokenizer: Tokenizer, encoding: str, texts: list[str], gpu: Gpu, threads: int) -> None:
    """Raise AssertionError unless the GPU's ids are the CPU's and tiktoken's."""
    import tiktoken

    rows = flat(texts)
    found = tokenizer.encode_batch(rows.to_device(gpu)).to_host()
    wanted = tokenizer.encode_batch(rows, threads=threads)
    assert np.array_equal(found.offsets, wanted.offsets), "the GPU's counts differ"
    assert np.array_equal(found.values, wanted.values), "the GPU's ids differ"
    reference = tiktoken.get_encoding(encoding)
    for i in range(0, len(texts), max(1, len(texts) // 200)):
        assert found[i].tolist() == reference.encode_ordinary(texts[i]), f"text {i} differs"


def measure(tokenizer: Tokenizer, rows: Ragged, gpu: Gpu, threads: int) -> list[float]:
    """Return MB/s of the GPU, and of the CPU: warm, the better of rows of bytes and strings."""
    placed = rows.to_device(gpu)
    device = wall_seconds(gpu, lambda: tokenizer.encode_batch(placed))
    strings = [row.tobytes().decode() for row in rows]
    host = min(
        wall_seconds(gpu, lambda: tokenizer.encode_batch(rows, threads=threads), 5),
        wall_seconds(gpu, lambda: tokenizer.encode_batch(strings, threads=threads), 5),
    )
    return [len(rows.values) / device / 1e6, len(rows.values) / host / 1e6]


def adversarial() -> dict[str, list[str]]:
    """Return texts that are hard: long pieces, nothing to divide at."""
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, 1 << 20).astype(np.uint8).tobytes().decode()
    return {
        "1 MB of one letter": ["a" * (1 << 20)],
        "1 MB of spaces": [" " * (1 << 20)],
        "1 MB of random letters, no space": [letters],
        "1 MB of digits": ["".join(map(str, rng.integers(0, 10, 1 << 20)))],
        "emoji": ["😀😁🤣❤️👩‍👩‍👧" * 20000],
    }


def main(*options: str) -> None:
    """Check, time, and print a table; options are those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=20, help="of each corpus")
    parser.add_argument("--times", type=int, default=10, help="repeat the texts for the GPU")
    parser.add_argument("--threads", type=int, default=16, help="of the CPU")
    parser.add_argument("--encodings", nargs="*", default=["cl100k_base"])
    parser.add_argument("--kernels", action="store_true", help="the time of each kernel too")
    given = parser.parse_args([f"--{option}" for option in options])
    gpu = gpu_in_use()
    rows, parts = [], []
    for encoding, corpus in itertools.product(given.encodings, CORPORA):
        tokenizer = Tokenizer.from_tiktoken(encoding)
        texts = read_texts(corpus, int(given.megabytes * 1e6))
        check(tokenizer, encoding, texts, gpu, given.threads)
        small = flat(texts)
        once = measure(tokenizer, small, gpu, given.threads)
        large = repeated(small, given.times)
        often = measure(tokenizer, large, gpu, given.threads)
        for data, (device, host) in ((small, once), (large, often)):
            rows.append(
                [f"{encoding} {corpus}", f"{len(data.values) / 1e6:.0f}", f"{device:.0f}",
                 f"{host:.0f}", f"{device / host:.1f}"]
            )  # fmt: skip
        if given.kernels:
            placed = large.to_device(gpu)
            with kernel_seconds(gpu) as seconds:
                tokenizer.encode_batch(placed)
            parts += [[f"{corpus} {name}", f"{s * 1e6:.0f}"] for name, s in seconds.items()]
    header = ["texts of 2-4 KB", "MB", "GPU, MB/s", f"CPU, {given.threads} threads", "ratio"]
    print_table("tokenization on the GPU, ids checked", header, rows)
    if parts:
        print_table("time of each kernel", ["", "us"], parts)
    hard = []
    tokenizer = Tokenizer.from_tiktoken(given.encodings[0])
    for name, texts in adversarial().items():
        check(tokenizer, given.encodings[0], texts, gpu, given.threads)
        data = flat(texts)
        device, host = measure(tokenizer, data, gpu, given.threads)
        hard.append([name, f"{device:.0f}", f"{host:.0f}"])
    print_table("hard texts", ["", "GPU, MB/s", "CPU, MB/s"], hard)
