"""Benchmarks for airspeed velocity; see CONTRIBUTING.md."""

import os
import sys
from pathlib import Path

# asv runs from a folder of its own, and some benchmarks share code with ``asv_bench``.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from .sizes import keep_compiled_code_apart

if {"ASV_ENV_DIR", "ASV_COMMIT"} <= set(os.environ):
    keep_compiled_code_apart(Path(os.environ["ASV_ENV_DIR"]), os.environ["ASV_COMMIT"])
