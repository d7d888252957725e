"""Every benchmark runs, quickly; asv keeps a result and publishes it; a browser shows the graphs."""

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "asv_bench"
GROUPS = sorted(
    path.stem
    for path in (FOLDER / "benchmarks").glob("*.py")
    if path.stem not in ("__init__", "sizes")
)
KINDS = ("time_", "peakmem_", "track_")


def benchmarks_of(module):
    """The classes of a module and their benchmarks' names."""
    for name, kind in vars(module).items():
        if (
            isinstance(kind, type)
            and not name.startswith("_")
            and kind.__module__ == module.__name__
        ):
            methods = [each for each in dir(kind) if each.startswith(KINDS)]
            if methods:
                yield kind, methods


def cases_of(kind):
    """All combinations of parameters: each a tuple, one empty tuple where there are none."""
    params = getattr(kind, "params", ())
    if params and not isinstance(params[0], list | tuple):
        params = (params,)
    return list(itertools.product(*params))


@pytest.fixture(scope="module")
def quick(smollm2):
    """The benchmarks as asv imports them, in their small sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBATCH_BENCH_QUICK", "1")
        patch.syspath_prepend(str(FOLDER))
        yield
        for name in [each for each in sys.modules if each.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.filterwarnings("default")
def test_every_benchmark_runs(group, quick, request):
    if group == "tokenization":
        request.getfixturevalue("data_folder")
    module = importlib.import_module(f"benchmarks.{group}")
    found = list(benchmarks_of(module))
    assert found
    for kind, methods in found:
        cases = cases_of(kind)
        assert len(getattr(kind, "param_names", ())) == len(cases[0]), kind
        # The first and the last combination: small and large, of each parameter.
        for case in dict.fromkeys((cases[0], cases[-1])):
            benchmark = kind()
            getattr(benchmark, "setup", lambda *_: None)(*case)
            for method in methods:
                value = getattr(benchmark, method)(*case)
                if method.startswith("track_"):
                    assert value == value, (kind, method)
                    assert isinstance(value, int | float), (kind, method)
            getattr(benchmark, "teardown", lambda *_: None)(*case)
