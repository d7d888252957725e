"""The statistics on a CPU that has nothing beyond what every CPU of its kind has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import statistics_results


def test_no_bit_depends_on_the_instructions_of_the_cpu():
    """Without AVX and fused multiply-adds the vectors are taken apart, and sums stay in order."""
    narrow = {"NUMBATCH_SIMD": "portable", "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    program = Path(statistics_results.__file__)
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, **narrow},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == statistics_results.results()
