"""Runs tests of CUDA kernels in Numba's simulator, which is chosen when a process starts."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run_simulated(name: str) -> None:
    """Run the tests of ``tests/<name>`` in a process of their own; fail as they do."""
    path = os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))
    # pytest-benchmark, where it is installed, warns in a process that xdist began.
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / name)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": path},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
