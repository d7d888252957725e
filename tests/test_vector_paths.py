"""Masks, powers, selection, log-probabilities, sampling and text on every path of this CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbatch.kernels.simd_path import PATHS, simd_path

PRODUCTS = ["test_products.py", "test_gated.py", "test_logprob_tiles.py", "test_simd_bytes.py"]
FILES = ["test_simd_masks.py", "test_select.py", "test_logit_tiles.py", "test_quantize.py"]

COMPILED_FOR = {
    "avx512": ("cooperlake", ""),
    "avx2": ("haswell", ""),
    "portable": ("generic", "+fma"),  # without, products are rounded more often than tests allow
}
"""A CPU, by LLVM's name, and its features: what else this one has cannot be compiled for."""


def run_tests(path, cpu, features, files):
    """Run files in a process of their own: a path is chosen once, before anything is compiled."""
    narrow = {"NUMBATCH_SIMD": path, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        cwd=Path(__file__).parent,
        env={**os.environ, **narrow},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("path", PATHS[1:])
def test_the_same_tests_pass_on_a_forced_path(path):
    if "NUMBATCH_SIMD" in os.environ or PATHS.index(path) <= PATHS.index(simd_path()):
        pytest.skip("this path is tested by this process, or this CPU lacks it")
    files = [*FILES, *PRODUCTS]
    if path == "portable":  # these take long to compile, and are made of the others' parts
        files += ["test_words.py", "test_sampling.py", "test_split.py", "test_new_pieces.py"]
    run_tests(path, *COMPILED_FOR[path], files)


@pytest.mark.skipif("NUMBATCH_SIMD" in os.environ, reason="tested by another process")
def test_products_on_a_cpu_with_nothing_beyond_what_all_have():
    run_tests("portable", "generic", "", PRODUCTS)
