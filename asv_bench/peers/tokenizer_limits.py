"""What a tokenizer needs beside its speed: memory, the start of a process, UTF-8 of strings."""

import os
import subprocess
import sys
import time

from asv_bench.peers import texts as sources
from asv_bench.peers.tokenizers import ranks_file

MEMORY = """
import sys
import numpy
from asv_bench.peers.texts import copies, corpus
from numbatch import Tokenizer

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

tokenizer = Tokenizer.from_file(sys.argv[1])
documents = corpus("english", 20)
texts = [text for _ in range(5) for text in copies(documents)]
size = sum(len(text.encode()) for text in texts)
tokenizer.encode_batch(documents[:300], threads=2)
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = status("VmRSS")
ids = tokenizer.encode_batch(texts)
output = ids.values.nbytes + ids.offsets.nbytes
more = status("VmHWM") - before - output
print(f"memory, {size / 1e6:.0f} MB of text: {more / size:.2f} bytes a byte above input and output")
"""
START = """
import sys, time
begin = time.perf_counter()
from numbatch import Tokenizer
imported = time.perf_counter()
tokenizer = Tokenizer.from_file(sys.argv[1])
loaded = time.perf_counter()
tokenizer.encode("Hello")
first = time.perf_counter()
tokenizer.encode_batch(["Hello"])
second = time.perf_counter()
print(imported - begin, loaded - imported, first - loaded, second - first)
"""


def child(source):
    command = [sys.executable, "-c", source, str(ranks_file())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return done.stdout.strip()


def print_memory():
    """Peak memory while 100 MB are encoded, in a process of its own."""
    print(child(MEMORY), flush=True)


def print_start(runs=3):
    """Seconds of a new process to its first ids, with what is compiled on disk."""
    rows = [[float(x) for x in child(START).split()] for _ in range(runs + 1)][1:]
    best = min(rows, key=sum)
    print(
        f"a new process, s: import {best[0]:.2f}, vocabulary {best[1]:.2f}, first encode "
        f"{best[2]:.2f}, first encode_batch {best[3]:.3f}",
        flush=True,
    )


def print_utf8(options):
    """How fast strings become one array of UTF-8, beside ``str.encode`` of each."""
    from numbatch.models.tokenizers.flat_text import flat_text

    for name in ("english", "multilingual"):
        texts = sources.corpus(name, options.megabytes / 2)
        size = sum(len(text.encode()) for text in texts)
        best = [float("inf")] * 2
        for _ in range(options.rounds):
            for i, take in enumerate((lambda t: flat_text(t, "replace"), encode_each)):
                fresh = sources.copies(texts)
                begin = time.perf_counter()
                take(fresh)
                best[i] = min(best[i], time.perf_counter() - begin)
        ours, theirs = (size / 1e6 / took for took in best)
        print(f"strings to UTF-8, {name}, MB/s: numbatch {ours:.0f}, str.encode {theirs:.0f}")


def encode_each(texts):
    return b"".join([text.encode() for text in texts])
