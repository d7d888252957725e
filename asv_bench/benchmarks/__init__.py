"""Benchmarks for airspeed velocity; see CONTRIBUTING.md."""

import sys
from pathlib import Path

# asv runs from a folder of its own, and some benchmarks share code with ``asv_bench``.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
