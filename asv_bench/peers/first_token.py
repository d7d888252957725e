"""How long a new process takes to its first token, and of that from the file on, beside llama.cpp.

Processes take turns. The first of each warms up: it fills the JIT cache, Python's own cache of
bytecode and the system's cache of the model's file. ``import numba`` is what no program of Numba's
can be faster than.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from asv_bench.peers.llama import Setting, running_llama
from asv_bench.peers.process import Process

__all__ = ["first_token"]

OURS = """
import time
begin = time.perf_counter()
from numbatch import LLM, SamplingParams
imported = time.perf_counter()
llm = LLM({path!r}, threads={threads})
loaded = time.perf_counter()
llm.generate("Hello", SamplingParams(temperature=0, max_tokens=1))
print(time.time(), imported - begin, loaded - imported, time.perf_counter() - loaded)
"""

THEIRS = """
import time
begin = time.perf_counter()
import numpy
from asv_bench.peers.llama import Llama, Setting
from llama_cpp import llama_cpp
imported = time.perf_counter()
llama = Llama(Setting({path!r}, "", {repacked}), {threads}, (1,))
loaded = time.perf_counter()
llama.generate(llama.tokens("Hello")[None], 1)
print(time.time(), imported - begin, loaded - imported, time.perf_counter() - loaded)
"""

NUMBA = """
import time
begin = time.perf_counter()
import numba
print(time.time(), time.perf_counter() - begin, 0, 0)
"""


def _times(program: str) -> list[float]:
    """Return what a new process took in all, for imports, for loading and to the first token."""
    # Who installs the package has bytecode, so it is written here, whatever the shell says.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.time()
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    end, *parts = [float(part) for part in done.stdout.split()]
    return [end - begin, *parts]


def _repacks(path: Path, threads: int) -> bool | None:
    """Return whether llama.cpp lives with repacked weights; None where it is not installed."""
    try:
        import llama_cpp  # noqa: F401
    except ImportError as error:
        print(f"llama-cpp-python is left out: {error}")
        return None
    try:
        Process(running_llama, Setting(path, "", True), threads).close()
    except EOFError:
        return False
    return True


def first_token(path: Path, threads: int, rounds: int) -> None:
    """Print medians of so many new processes of each."""
    programs = {"numbatch": OURS.format(path=str(path), threads=threads), "import numba": NUMBA}
    repacked = _repacks(path, threads)
    if repacked is not None:
        programs["llama.cpp"] = THEIRS.format(path=str(path), repacked=repacked, threads=threads)
    times: dict[str, list[list[float]]] = {name: [] for name in programs}
    for round_number in range(rounds + 1):
        for name, program in programs.items():
            found = _times(program)
            if round_number:
                times[name].append([*found, found[2] + found[3]])
    print(f"\n{'a new process to its first token, s':36}{'all':>8}{'imports':>9}{'load':>8}"
          f"{'first':>8}{'load + first':>14}")  # fmt: skip
    middle = {name: np.median(rows, axis=0) for name, rows in times.items()}
    for name, (whole, imports, load, first, both) in middle.items():
        print(f"    {name:32}{whole:8.3f}{imports:9.3f}{load:8.3f}{first:8.3f}{both:14.3f}")
    if repacked is not None:
        ours, theirs = times["numbatch"], times["llama.cpp"]
        whole, *_, both = np.median(np.divide(ours, theirs), axis=0)
        print(f"    numbatch to llama.cpp: all {whole:.2f}, load and first token {both:.2f}")
