"""Tokenizers side by side, cl100k_base: interleaved in one run, the best of several rounds.

MB of UTF-8 a second, and the ratio of Numbatch to the faster of gigatoken and fastokens. A peer
whose ids differ from tiktoken's is not timed. Cold: a fresh tokenizer (its vocabulary loaded) and
fresh strings; warm: the same texts once more.
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from asv_bench.peers import texts as sources
from asv_bench.peers.tokenizers import available

FAST = ("gigatoken", "fastokens")


def seconds(function, *arguments):
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def exact(peers, texts):
    """The peers whose ids are tiktoken's, which come from a sample of at most 2 MB."""
    sample, size = [], 0
    for text in texts:
        if size > 2_000_000:
            break
        sample.append(text)
        size += len(text)
    reference = next(peer for peer in peers if peer.name == "tiktoken")
    ids, offsets = reference.flat(reference.encode(sample))
    right = []
    for peer in peers:
        mine, places = peer.flat(peer.encode(sample))
        if np.array_equal(mine, ids) and np.array_equal(places, offsets):
            right.append(peer)
        else:
            print(f"  {peer.name}: ids differ from tiktoken's, not timed")
    return right


def rows_of(peers, texts, rounds):
    """Best cold and warm times of each peer."""
    cold, warm = ({peer.name: np.inf for peer in peers} for _ in range(2))
    for _ in range(rounds):
        for peer in peers:
            peer.fresh()
            fresh = sources.copies(texts)
            cold[peer.name] = min(cold[peer.name], seconds(peer.encode, fresh))
            warm[peer.name] = min(warm[peer.name], seconds(peer.encode, fresh))
    return cold, warm


def report(label, times, size):
    rates = {name: size / 1e6 / time for name, time in times.items()}
    cells = "".join(f"{rates.get(name, float('nan')):10.1f}" for name in ("numbatch", *FAST))
    others = [rates[name] for name in FAST if name in rates]
    ratio = rates["numbatch"] / max(others) if others and "numbatch" in rates else float("nan")
    tiktoken = f"{rates['tiktoken']:10.1f}" if "tiktoken" in rates else " " * 10
    print(f"{label:36s}{cells}{tiktoken}{ratio:8.2f}", flush=True)


def compare(label, peers, texts, rounds):
    size = sum(len(text.encode()) for text in texts)
    cold, warm = rows_of(exact(peers, texts), texts, rounds)
    report(f"{label}, cold", cold, size)
    report(f"{label}, warm", warm, size)


def compare_single(peers, rounds):
    """Microseconds for a string of 50 characters, and for decoding."""
    text = "The quick brown fox jumps over 13 lazy dogs, at 9."
    best = {peer.name: np.inf for peer in peers}
    for _ in range(rounds * 3):
        for peer in peers:
            took = seconds(lambda peer=peer: [peer.encode_one(text) for _ in range(2000)])
            best[peer.name] = min(best[peer.name], took / 2000)
    cells = ", ".join(f"{name} {1e6 * took:.2f}" for name, took in best.items())
    print(f"{len(text)} characters, microseconds: {cells}", flush=True)


def compare_decoding(peers, texts, rounds):
    named = {peer.name: peer for peer in peers}
    tokenizer, encoding = named["numbatch"].tokenizer, named["tiktoken"].encoding
    ids = tokenizer.encode_batch(texts)
    lists = [row.tolist() for row in ids]
    size = sum(len(text.encode()) for text in texts)
    ours = theirs = np.inf
    for _ in range(rounds):
        ours = min(ours, seconds(tokenizer.decode_batch, ids))
        theirs = min(theirs, seconds(lambda: [encoding.decode(row) for row in lists]))
    print(
        f"decoding, MB/s: numbatch {size / 1e6 / ours:.0f}, tiktoken {size / 1e6 / theirs:.0f}, "
        f"ratio {theirs / ours:.2f}",
        flush=True,
    )


def compare_all(threads, options):
    peers = available(threads, options.only)
    plural = "s" if threads > 1 else ""
    print(f"{'':36s}  numbatch gigatoken fastokens  tiktoken   ratio")
    for name in ("english", "code", "multilingual"):
        texts = sources.corpus(name, options.megabytes)
        compare(f"{name}, {threads} thread{plural}", peers, texts, options.rounds)
    if threads > 1 or options.short:
        return
    for name, text in sources.hard_texts().items():
        compare(name, peers, [text], max(1, options.rounds // 2))
    compare_single(peers, options.rounds)
    compare_decoding(peers, sources.corpus("english", 5), options.rounds)


def main(arguments):
    parser = argparse.ArgumentParser(prog="python -m asv_bench.peers tokenization")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="only so many; by default 1, then 2")
    parser.add_argument("--only", nargs="*", help="names of tokenizers; tiktoken must be one")
    parser.add_argument("--short", action="store_true", help="the corpora only")
    options = parser.parse_args(arguments)
    if options.threads:
        compare_all(options.threads, options)
        return
    for threads in (1, 2):  # Rayon's number of threads is set once a process
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        command = [sys.executable, "-m", "asv_bench.peers", "tokenization", *arguments]
        subprocess.run([*command, "--threads", str(threads)], env=environment, check=True)
