"""Tokenizers side by side: interleaved in one run, the best of several rounds.

MB of UTF-8 a second, and the ratio of Numbatch to the faster of gigatoken and fastokens. A peer
whose ids differ from the reference's (tiktoken's, or Hugging Face's where the vocabulary is a
tokenizer.json) is not timed. Cold: a fresh tokenizer (its vocabulary loaded) and fresh strings;
warm: the same texts once more.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from asv_bench.peers import texts as sources
from asv_bench.peers import tokenizer_limits
from asv_bench.peers.tokenizers import available

FAST = ("gigatoken", "fastokens")
REFERENCES = ("tiktoken", "tokenizers")
SENTENCE = "The quick brown fox jumps over 13 lazy dogs, at 9."


def seconds(function, *arguments):
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def exact(peers, texts):
    """The peers whose ids are the reference's, and those; compared on a sample of at most 2 MB."""
    sample, size = [], 0
    for text in texts:
        if size > 2_000_000:
            break
        sample.append(text[:3_000_000])
        size += len(text)
    (reference,) = (peer for peer in peers if peer.name in REFERENCES)
    ids, offsets = reference.flat(reference.encode(sample))
    right = []
    for peer in peers:
        mine, places = peer.flat(peer.encode(sample))
        if np.array_equal(mine, ids) and np.array_equal(places, offsets):
            right.append(peer)
        else:
            print(f"  {peer.name}: ids differ from those of {reference.name}, not timed")
    return right


def rows_of(peers, texts, rounds):
    """Best cold and warm times of each peer; the reference is timed once."""
    cold, warm = ({peer.name: np.inf for peer in peers} for _ in range(2))
    for turn in range(rounds):
        for peer in peers:
            if peer.name in REFERENCES and turn:
                continue
            peer.fresh()
            fresh = sources.copies(texts)
            cold[peer.name] = min(cold[peer.name], seconds(peer.encode, fresh))
            again = cold if peer.name in REFERENCES else warm  # it keeps nothing
            took = again[peer.name] if again is cold else seconds(peer.encode, fresh)
            warm[peer.name] = min(warm[peer.name], took)
    return cold, warm


def report(label, times, size):
    rates = {name: size / 1e6 / time for name, time in times.items()}
    cells = "".join(f"{rates.get(name, float('nan')):10.1f}" for name in ("numbatch", *FAST))
    others = [rates[name] for name in FAST if name in rates]
    ratio = rates["numbatch"] / max(others) if others and "numbatch" in rates else float("nan")
    reference = "".join(f"{rates[name]:10.1f}" for name in REFERENCES if name in rates)
    print(f"{label:36s}{cells}{reference}{ratio:8.2f}", flush=True)


def head(reference):
    print(f"{'MB/s':36s}  numbatch gigatoken fastokens{reference:>10s}   ratio")


def compare(label, peers, texts, rounds):
    size = sum(len(text.encode()) for text in texts)
    cold, warm = rows_of(exact(peers, texts), texts, rounds)
    report(f"{label}, cold", cold, size)
    report(f"{label}, warm", warm, size)


def compare_corpora(peers, options):
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    head("tiktoken")
    for name in ("english", "code", "multilingual"):
        texts = sources.corpus(name, options.megabytes)
        compare(f"{name}, {threads}", peers, texts, options.rounds)


def compare_vocabularies(peers, options):
    texts = sources.corpus("english", options.megabytes / 2)
    for vocabulary in ("o200k_base", "llama3", "qwen3"):
        peers = available(1, options.only, vocabulary)
        head(peers[-1].name)
        compare(f"english, {vocabulary}, 1 thread", peers, texts, options.rounds)


def compare_hard(peers, options):
    """Texts that are slow in some tokenizer, and how the time grows where they are doubled."""
    head("tiktoken")
    mine = peers[0]
    for name, text in sources.hard_texts().items():
        compare(name, peers, [text], options.rounds)
        halves = [text[: len(text) // 2], text]
        best = [np.inf, np.inf]
        for _ in range(options.rounds):
            for i, part in enumerate(halves):
                mine.fresh()
                best[i] = min(best[i], seconds(mine.encode, sources.copies([part])))
        print(f"  numbatch, cold: twice the text takes {best[1] / best[0]:.2f} times as long")


def compare_single(peers, rounds):
    """Microseconds for a string of 50 characters, one call each."""
    best = {peer.name: np.inf for peer in peers}
    for _ in range(rounds * 3):
        for peer in peers:
            took = seconds(lambda peer=peer: [peer.encode_one(SENTENCE) for _ in range(2000)])
            best[peer.name] = min(best[peer.name], took / 2000)
    cells = ", ".join(f"{name} {1e6 * took:.2f}" for name, took in best.items())
    ratio = best["numbatch"] / best["tiktoken"]
    print(f"{len(SENTENCE)} characters, us: {cells}; numbatch / tiktoken {ratio:.2f}", flush=True)


def compare_decoding(peers, texts, rounds):
    named = {peer.name: peer for peer in peers}
    tokenizer, encoding = named["numbatch"].tokenizer, named["tiktoken"].encoding
    ids = tokenizer.encode_batch(texts)
    lists = [row.tolist() for row in ids]
    size = sum(len(text.encode()) for text in texts)
    best = dict.fromkeys(("text", "bytes", "tiktoken"), np.inf)
    for _ in range(3 * rounds):
        for name, decode in (
            ("text", lambda: tokenizer.decode_batch(ids)),
            ("bytes", lambda: tokenizer.decode_bytes(ids.values)),
            ("tiktoken", lambda: [encoding.decode(row) for row in lists]),
        ):
            best[name] = min(best[name], seconds(decode))
    print(
        f"decoding, MB/s: numbatch {size / 1e6 / best['text']:.0f} to text, "
        f"{size / 1e6 / best['bytes']:.0f} to bytes; tiktoken {size / 1e6 / best['tiktoken']:.0f}; "
        f"ratio {best['tiktoken'] / best['text']:.2f}",
        flush=True,
    )


def compare_small(peers, options):
    compare_single(peers, options.rounds)
    compare_decoding(peers, sources.corpus("english", 5), options.rounds)
    tokenizer_limits.print_utf8(options)


def print_limits(peers, options):
    tokenizer_limits.print_memory()
    tokenizer_limits.print_start()


SECTIONS = {
    "corpora": compare_corpora,
    "vocabularies": compare_vocabularies,
    "hard": compare_hard,
    "small": compare_small,
    "limits": print_limits,
}


def compare_all(options):
    peers = available(options.threads, options.only)
    for name in options.sections:
        if name == "corpora" or options.threads == 1:
            SECTIONS[name](peers, options)


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m asv_bench.peers tokenization")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="only so many; by default 1, then 2")
    parser.add_argument("--only", nargs="*", help="names of tokenizers, beside the reference")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=[*SECTIONS])
    options = parser.parse_args(arguments)
    if options.threads:
        compare_all(options)
        return
    for threads in (1, 2):  # Rayon's number of threads is set once a process
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        command = [sys.executable, "-m", "asv_bench.peers", "tokenization", *arguments]
        subprocess.run([*command, "--threads", str(threads)], env=environment, check=True)
