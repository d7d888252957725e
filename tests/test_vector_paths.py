"""Masks, powers, selection, log-probabilities, sampling and text on every path of this CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbatch.kernels.simd_path import PATHS, simd_path

FILES = [
    *("test_simd_masks.py", "test_select.py", "test_logit_tiles.py", "test_products.py"),
    *("test_quantize.py", "test_gated.py", "test_logprob_tiles.py"),
]

COMPILED_FOR = {"avx512": "cooperlake", "avx2": "haswell", "portable": "generic"}
"""A CPU, by LLVM's name, that has a path's instructions and no more: others are not compiled."""


@pytest.mark.parametrize("path", PATHS[1:])
def test_the_same_tests_pass_on_a_forced_path(path):
    """In a process of its own: a path is chosen once, before anything is compiled."""
    if "NUMBATCH_SIMD" in os.environ or PATHS.index(path) <= PATHS.index(simd_path()):
        pytest.skip("this path is tested by this process, or this CPU lacks it")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES]
    if path == "portable":  # these take long to compile, and are made of the others' parts
        command += ["test_sampling.py", "test_split.py", "test_new_pieces.py"]
    cpu = COMPILED_FOR[path]
    narrow = {"NUMBATCH_SIMD": path, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent,
        env={**os.environ, **narrow},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
